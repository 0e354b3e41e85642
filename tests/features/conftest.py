"""Shared by the tests of features."""

import jaxtyping
import pytest

# The laws live outside test files, so their asserts would otherwise fail without the values.
pytest.register_assert_rewrite("conformance.adapter")


@pytest.fixture
def as_users_run_it(monkeypatch):
    """Shape annotations are only checked in tests; our own messages come after them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
