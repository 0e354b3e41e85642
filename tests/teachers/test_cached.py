"""A label store as teacher."""

import numpy as np
import pytest
import torch

from conformance.teacher import COLUMNS, ROWS, TeacherCase, TeacherLaws
from understudy.contracts import Batch, Knowledge
from understudy.errors import StoreError
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record
from understudy.labels.store import LabelStore
from understudy.teachers.cached import CachedTeacher


class Fixed:
    """Answers by id: NumPy stands in for a network here."""

    offers = frozenset({"logits", "hidden"})

    def __call__(self, batch):
        ids = batch.ids.double()
        logits = torch.stack([ids.sin(), ids.cos(), ids / 100], dim=1).float()
        return Knowledge(fields={"logits": logits, "hidden": logits[:, :2].neg()})


@pytest.fixture
def teacher(tmp_path):
    ids = torch.arange(100, 100 + ROWS)
    dense = codecs.make("dense", {}, {})
    portions = cut(
        lambda start, stop: [Batch(inputs=torch.zeros(stop - start, 1), ids=ids[start:stop])],
        rows=ROWS, batch_size=2, shard_rows=4,
    )  # fmt: skip
    record(
        engine=Serial(Fixed(), portions),
        rows=portions.rows,
        keep={name: Keep(codec=dense, reads=name) for name in ("logits", "hidden")},
        place=LocalPlace(tmp_path),
        fingerprints={"teacher": "a"},
    )
    return CachedTeacher(LabelStore(tmp_path))


class TestCachedTeacher(TeacherLaws):
    @pytest.fixture
    def case(self, teacher):
        return TeacherCase(teacher=teacher, width=3)


def test_it_says_exactly_what_the_teacher_said(teacher):
    batch = Batch(inputs=torch.zeros(3, COLUMNS), ids=torch.tensor([104, 100, 108]))
    said = Fixed()(batch)
    found = teacher(batch)
    assert all(torch.equal(found[name], said[name]) for name in ("logits", "hidden"))


def test_ids_of_another_integer_type_are_the_same_ids(teacher):
    for dtype in (torch.int32, torch.int16, torch.uint8):
        ids = torch.tensor([104, 100], dtype=dtype)
        found = teacher(Batch(inputs=torch.zeros(2, 1), ids=ids))["logits"]
        expected = Fixed()(Batch(inputs=torch.zeros(2, 1), ids=ids))["logits"]
        np.testing.assert_array_equal(found, expected)


def test_rows_without_ids_are_refused(teacher):
    with pytest.raises(StoreError, match="read by example id, but these rows have none"):
        teacher(Batch(inputs=torch.zeros(2, 1)))


def test_view_0_is_known_and_other_views_are_refused(teacher):
    ids = torch.tensor([101, 102])
    still = Batch(inputs=torch.zeros(2, 1), ids=ids, views=torch.zeros(2, dtype=torch.int64))
    assert len(teacher(still)["logits"]) == 2
    moved = Batch(inputs=torch.zeros(2, 1), ids=ids, views=torch.tensor([0, 3]))
    with pytest.raises(StoreError, match=r"another view was asked for.*labels: \{use: live\}"):
        teacher(moved)


def test_rows_that_were_never_labelled_are_named(teacher):
    with pytest.raises(StoreError, match="ids 99, 109"):
        teacher(Batch(inputs=torch.zeros(3, 1), ids=torch.tensor([99, 100, 109])))


def test_rows_as_they_are_are_not_told_by_a_view(tmp_path):
    ids = torch.arange(6)
    portions = cut(
        lambda start, stop: [
            Batch(inputs=torch.zeros(3, 1), ids=ids[start % 6 : start % 6 + 3],
                  views=torch.full((3,), 1 + start // 6))
        ],
        rows=12, batch_size=3, shard_rows=3,
    )  # fmt: skip
    record(
        engine=Serial(Fixed(), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")},
        place=LocalPlace(tmp_path),
        fingerprints={},
    )
    teacher = CachedTeacher(LabelStore(tmp_path))
    assert teacher(Batch(inputs=torch.zeros(6, 1), ids=ids, views=torch.ones(6)))["logits"].any()
    with pytest.raises(StoreError, match="another view was asked for"):
        teacher(Batch(inputs=torch.zeros(6, 1), ids=ids))
