"""More rows without labels, behind those of a run."""

from dataclasses import replace

import numpy as np
import pytest

from understudy.data import from_texts
from understudy.data.rows import Column, Rows
from understudy.data.splits import split
from understudy.data.unlabelled import with_unlabelled
from understudy.errors import DataError

FEW = from_texts([f"text number {at}" for at in range(40)], ["a", "b"] * 20)


def more(count=30, labels=None):
    return lambda: from_texts([f"other text {at}" for at in range(count)], labels)


def test_they_come_behind_without_their_labels_and_with_ids_of_their_own():
    rows = with_unlabelled(FEW, [more(), more(10, ["b", "a"] * 5)])
    assert len(rows) == 80
    assert rows.labelled.tolist() == [True] * 40 + [False] * 40
    assert len(np.unique(rows.ids)) == 80
    assert rows.texts[40] == ("other text 0",)
    assert rows.classes == ("a", "b")
    assert rows.labels.dtype == np.int64
    assert len(FEW) == 40, "what was given is as it was"
    splits = split(rows, seed=0, test=0.25, validation=0.1)
    assert (splits.test < 40).all(), "test rows are labelled ones"
    assert (splits.validation < 40).all()


def test_copies_of_test_rows_leave_training_however_many_there_are():
    same = from_texts([row[0] for row in FEW.texts], None)
    rows = with_unlabelled(FEW, [lambda: same])
    splits = split(rows, seed=0, test=0.25, validation=0.1)
    assert splits.dropped == 10
    held = {rows.texts[at] for at in splits.test}
    assert not held & {rows.texts[at] for at in splits.train}
    # Where labelled rows are copies, equal rows may be the nature of the data.
    doubled = from_texts([row[0] for row in FEW.texts] * 2, ["a", "b"] * 40)
    with pytest.raises(DataError, match="too many to drop unasked"):
        split(doubled, seed=0, test=0.25, validation=0.1)


def test_where_no_row_has_a_label_they_are_still_for_training_alone():
    bare = with_unlabelled(replace(FEW, labels=None), [more(200)])
    for seed in range(3):
        splits = split(bare, seed=seed, test=0.25, validation=0.1)
        assert (len(splits.test), len(splits.validation)) == (10, 3)
        assert (splits.test < 40).all()
        assert (splits.validation < 40).all()
        assert len(splits.train) == 227


def test_no_label_is_kept_where_none_is_asked_for():
    splits = split(FEW, seed=0, test=0.25, validation=0.1, labelled=0)
    assert not splits.labelled.any()
    assert len(splits.train_labelled) == 0
    bare = replace(FEW, labels=None)
    assert len(split(bare, seed=0, test=0.25, validation=0.1).test) == 10
    given = replace(
        FEW,
        labels=np.where(np.arange(40) < 30, -1, FEW.labels),
        test_rows=np.arange(40) >= 30,
    )
    splits = split(given, seed=0, test="given", validation=0.1)
    assert len(splits.validation) == 3, "of rows without labels, where training has none"


def table(columns, categories=None, test=False):
    return Rows(
        inputs=np.zeros((4, columns), np.float32),
        labels=None,
        ids=np.arange(4),
        form="table",
        columns=tuple(Column(name=f"c{at}", categories=categories) for at in range(columns)),
        test_rows=np.ones(4, np.bool_) if test else None,
    )


@pytest.mark.parametrize(
    ("rows", "other", "law"),
    [
        (FEW, table(2), "must be rows of the same form"),
        (FEW, from_texts([("a", "b")] * 3, None), "must be rows of the same form"),
        (table(2), table(3), "must be rows of the same form"),
        (table(2, ("x", "y")), table(2, ("x", "z")), "the same categories"),
        (table(2), table(2, test=True), "declares test rows"),
    ],
)
def test_other_rows_are_refused(rows, other, law):
    with pytest.raises(DataError, match=law):
        with_unlabelled(rows, [lambda: other])
