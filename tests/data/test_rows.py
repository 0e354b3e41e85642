"""Rows: what is the same has one fingerprint, and what differs does not."""

import dataclasses

import numpy as np
import pytest

from understudy.data.rows import Column, Rows, with_test
from understudy.errors import DataError


def made(**changes):
    rows = Rows(
        inputs=np.arange(48, dtype=np.uint8).reshape(6, 2, 4, 1),
        labels=np.array([0, 1, 0, 1, -1, 0]),
        ids=np.arange(6),
        form="image",
        classes=("cat", "dog"),
    )
    return dataclasses.replace(rows, **changes)


def test_equal_content_has_one_fingerprint_however_it_lies_in_memory():
    rows = made()
    other = made(inputs=np.asfortranarray(rows.inputs), labels=np.repeat(rows.labels, 2)[::2])
    assert rows.fingerprint() == other.fingerprint()
    assert rows.fingerprint() == made(labels=rows.labels.astype(">i8")).fingerprint()
    assert len(rows.fingerprint()) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": np.zeros((6, 2, 4, 1), np.uint8)},
        {"inputs": np.arange(48, dtype=np.uint8).reshape(6, 4, 2, 1)},
        {"inputs": np.arange(48, dtype=np.float32).reshape(6, 2, 4, 1)},
        {"labels": None},
        {"labels": np.array([0, 1, 0, 1, -1, 1])},
        {"ids": np.arange(1, 7)},
        {"classes": ("dog", "cat")},
        {"classes": None},
        {"columns": (Column(name="x", categories=("a",)),)},
    ],
    ids=str,
)
def test_other_content_has_another_fingerprint(change):
    assert made().fingerprint() != made(**change).fingerprint()


def test_the_fingerprint_is_that_of_the_bytes_whatever_the_piece_size(monkeypatch):
    whole = made().fingerprint()
    monkeypatch.setattr("understudy.data.rows._CHUNK_BYTES", 16)
    assert made().fingerprint() == whole


def test_rows_know_their_number_their_task_and_which_of_them_are_labelled():
    assert len(made()) == 6
    assert made().task == "classification"
    assert made().labelled.tolist() == [True, True, True, True, False, True]
    assert not made(labels=None).labelled.any()
    values = made(labels=np.array([[1.0, 2], [np.nan, 1]] * 3, np.float32), classes=None)
    assert values.task == "regression"
    assert values.labelled.tolist() == [True, False] * 3


def test_rows_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().labels = None


def test_test_rows_stand_behind_the_training_rows_and_are_marked():
    train, test = (
        made(names=tuple("abcdef"), skipped=1),
        made(names=tuple("ghijkl"), ids=np.arange(6, 12), skipped=2),
    )
    rows = with_test(train, test)
    assert rows.ids.tolist() == list(range(12))
    assert rows.test_rows.tolist() == [False] * 6 + [True] * 6
    assert "".join(rows.names) == "abcdefghijkl"
    assert rows.skipped == 3
    np.testing.assert_array_equal(rows.inputs[6:], test.inputs)


def test_a_part_without_labels_is_unlabelled():
    rows = with_test(made(), made(labels=None))
    assert rows.labels.dtype == np.int64
    assert rows.labels[6:].tolist() == [-1] * 6
    values = made(labels=np.ones((6, 2), np.float32), classes=None)
    rows = with_test(dataclasses.replace(values, labels=None), values)
    assert rows.labels.dtype == np.float32
    assert np.isnan(rows.labels[:6]).all()
    assert with_test(made(labels=None), made(labels=None)).labels is None


def test_test_rows_of_another_shape_type_or_number_of_targets_are_refused():
    with pytest.raises(DataError, match=r"got \[2, 4, 1\] uint8 and \[2, 4, 1\] float32"):
        with_test(made(), made(inputs=made().inputs.astype(np.float32)))
    one, two = (made(labels=np.ones((6, n), np.float32), classes=None) for n in (1, 2))
    with pytest.raises(DataError, match=r"same targets, but got labels of shape \[6, 1\] and"):
        with_test(one, two)
