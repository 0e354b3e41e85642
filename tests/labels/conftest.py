"""Shared by the tests of label stores: a fake teacher, and one call that records it.

The teacher here is NumPy alone, a function of the id: what is tested is how its words are kept.
"""

import numpy as np
import pytest
import torch

from understudy.contracts import Batch, Knowledge
from understudy.labels.record import record

# The laws live outside test files, so their asserts would otherwise fail without the values.
pytest.register_assert_rewrite("conformance.store")

FINGERPRINTS = {"teacher": "aaaa", "data": "bbbb", "views": "none"}


class FakeTeacher:
    """Says what a table of answers by id says; counts how often it is asked."""

    def __init__(self, answers=None):
        self.answers, self.asked = answers, []

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"logits", "hidden"})

    def __call__(self, batch: Batch) -> Knowledge:
        self.asked.append(len(batch))
        ids = batch.ids.numpy().astype(np.float64)
        logits = np.stack([np.sin(ids), np.cos(ids), ids], axis=1)
        hidden = np.stack([logits, -logits], axis=1)
        return Knowledge(fields={"logits": torch.tensor(logits), "hidden": torch.tensor(hidden)})


def batches_of(ids, size):
    """Batches from a row on, as a loader gives them; rows are read by nobody here."""

    def batches(start):
        for first in range(start, len(ids), size):
            some = torch.as_tensor(ids[first : first + size])
            yield Batch(inputs=torch.zeros(len(some), 1), ids=some)

    return batches


@pytest.fixture
def fake_teacher():
    """A new fake teacher."""
    return FakeTeacher()


@pytest.fixture
def write(tmp_path):
    """Record ids into a store; every part can be changed."""

    def start(folder=None, *, ids=None, size=4, needs=("logits",), **changes):
        options = {
            "teacher": FakeTeacher(),
            "batches": batches_of(np.arange(30) if ids is None else ids, size),
            "needs": frozenset(needs),
            "folder": folder or tmp_path / "store",
            "fingerprints": FINGERPRINTS,
            "shard_rows": 8,
        }
        return record(**(options | changes))

    return start


@pytest.fixture
def content():
    """Every file of a folder with its bytes."""

    def read(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read
