"""Shared by the tests of the reference networks."""

import jaxtyping
import pytest


@pytest.fixture
def as_users_run_it(monkeypatch):
    """Shape annotations are only checked in tests; our own messages come after them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def count():
    """How many numbers a network learns."""
    return lambda network: sum(weights.numel() for weights in network.parameters())
