"""Shared by the tests of integrations: one thread, and a library that keeps quiet."""

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads wait for each other longer than these models work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
