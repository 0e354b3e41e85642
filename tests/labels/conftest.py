"""Shared by the tests of label stores: a fake teacher, and one call that records it.

The teacher here is NumPy alone, a function of the id: what is tested is how its words are kept.
"""

import numpy as np
import pytest
import torch

from understudy.contracts import Batch, Knowledge
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record

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
        views = 0 if batch.views is None else batch.views.numpy()
        logits = np.stack([np.sin(ids), np.cos(ids) + views, ids], axis=1)
        hidden = np.stack([logits, -logits], axis=1)
        return Knowledge(fields={"logits": torch.tensor(logits), "hidden": torch.tensor(hidden)})


def batches_of(ids, size, views=1):
    """Batches from one row to another, as a loader gives them; rows are read by nobody here."""

    def batches(start, stop):
        for first in range(start, stop, size):
            rows = np.arange(first, min(first + size, stop))
            some = torch.as_tensor(ids[rows % len(ids)])
            shown = None if views == 1 else torch.as_tensor(1 + rows // len(ids))
            yield Batch(inputs=torch.zeros(len(some), 1), ids=some, views=shown)

    return batches


def record_ids(folder, *, teacher, ids, size=4, shard_rows=8, views=1, keep=None, batches=None,
               needs=("logits",), fingerprints=FINGERPRINTS, **options):  # fmt: skip
    """Record ids into a store in this process."""
    portions = cut(
        batches or batches_of(ids, size, views),
        rows=len(ids) * views, batch_size=size, shard_rows=shard_rows,
    )  # fmt: skip
    dense = codecs.make("dense", {}, {})
    return record(
        engine=Serial(teacher, portions),
        rows=portions.rows,
        keep=keep or {name: Keep(codec=dense, reads=name) for name in needs},
        place=LocalPlace(folder),
        fingerprints=fingerprints,
        **options,
    )


@pytest.fixture
def fake_teacher():
    """A new fake teacher."""
    return FakeTeacher()


@pytest.fixture
def write(tmp_path):
    """Record ids into a store; every part can be changed."""

    def start(folder=None, **changes):
        options = {"teacher": FakeTeacher(), "ids": np.arange(30)} | changes
        return record_ids(folder or tmp_path / "store", **options)

    return start


@pytest.fixture
def content():
    """Every file of a folder with its bytes, but for the lock."""

    def read(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    return read
