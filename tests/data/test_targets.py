"""Labels: what is certain is found out, what is not is asked for."""

import numpy as np
import pytest

from understudy.data.targets import Labels, encode_labels, encode_more
from understudy.errors import DataError


def encoded(values, **options):
    return encode_labels(np.array(values), **options)


def test_texts_are_class_names_in_sorted_order_and_empty_ones_unlabelled():
    labels = encoded(["dog", " cat", "", "dog"])
    assert labels.classes == ("cat", "dog")
    assert labels.values.tolist() == [1, 0, -1, 1]
    assert labels.values.dtype == np.int64


def test_texts_of_whole_numbers_are_sorted_as_numbers():
    assert encoded(["10", "9", "2"]).classes == ("2", "9", "10")


def test_bytes_are_texts():
    assert encoded([b"b", b"a"]).classes == ("a", "b")


def test_whole_numbers_from_0_on_are_classes():
    labels = encoded([2, 0, -1, 1])
    assert labels.classes == ("0", "1", "2")
    assert labels.values.tolist() == [2, 0, -1, 1]


def test_truth_values_are_two_classes():
    assert encoded([True, False]).values.tolist() == [1, 0]


def test_one_column_is_one_label():
    assert encoded([[1], [0]]).values.tolist() == [1, 0]


def test_real_numbers_are_targets():
    labels = encoded([1.5, np.nan, 2.0])
    assert labels.classes is None
    assert labels.values.dtype == np.float32
    assert labels.values.shape == (3, 1)
    assert np.isnan(labels.values[1, 0])
    assert encoded([[1, 2], [3, 4]]).values.shape == (2, 2)


@pytest.mark.parametrize("values", [[3, 5, 7], [0, 0, 0], [-1, 1], [0.0, 1.0, 2.0]], ids=str)
def test_what_may_be_classes_or_quantities_is_asked_for(values):
    with pytest.raises(DataError, match="say `task: classification` or `task: regression`"):
        encoded(values)


def test_the_answer_is_followed():
    assert encoded([3, 5, 7], task="regression").values.tolist() == [[3], [5], [7]]
    assert encoded([0.0, np.nan, 1.0], task="classification").values.tolist() == [0, -1, 1]


def test_class_numbers_with_a_gap_need_names():
    with pytest.raises(DataError, match=r"got 3 different ones: 3, 5, 7; .*classes: \['3', '5'"):
        encoded([3, 5, 7, 5], task="classification")
    named = encoded([3, 7], classes=["3", "5", "7"])
    assert named.values.tolist() == [0, 2]
    assert named.classes == ("3", "5", "7")


def test_numbers_that_are_no_names_are_positions():
    assert encoded([2, 0, -1], classes=["x", "y", "z"]).values.tolist() == [2, 0, -1]
    assert encoded([-1, -1], classes=["x", "y", "z"]).values.tolist() == [-1, -1]
    with pytest.raises(
        DataError, match=r"must be 0 to 1, .* `x`, `y`, but 2 rows hold others: 2 \(rows 1, 3\)"
    ):
        encoded([2, 0, 2], classes=["x", "y"])


@pytest.mark.parametrize(
    ("values", "options", "law"),
    [
        ([[1, 0], [0, 1]], {"task": "classification"}, "argmax"),
        ([0, 1, -2, -2], {"task": "classification"}, "2 rows hold others: -2 (rows 3, 4)"),
        (
            [0.0, 0.5],
            {"task": "classification"},
            "whole numbers, but 1 row hold others: 0.5 (row 2)",
        ),
        (["a", "b"], {"task": "regression"}, "must be numbers, but got `a`, `b`"),
        (
            ["a", "c"],
            {"classes": ["a", "b"]},
            "2 classes (`a`, `b`), but 1 row hold others: `c` (row 2): ",
        ),
        (
            ["c", "a"] * 4 + ["d"] * 3,
            {"classes": ["a", "b"]},
            "7 rows hold others: `c`, `d` (rows 1, 3, 5, 7, 9, ...): correct them, or name all",
        ),
        ([1j, 2j], {}, "must be numbers or texts, but got an array of complex128"),
        ([1j, 2j], {"task": "classification"}, "whole numbers or texts, but got complex128"),
        ([[[1.5]]], {"task": "regression"}, "[rows] or [rows, targets], but got shape [1, 1, 1]"),
    ],
    ids=str,
)
def test_what_fits_no_task_is_refused(values, options, law):
    with pytest.raises(DataError) as caught:
        encoded(values, **options)
    assert law in str(caught.value)


def test_test_labels_take_the_classes_of_the_training_rows():
    train = encoded(["cat", "dog"])
    assert encode_more(np.array(["dog", ""]), train, what="test labels").tolist() == [1, -1]
    with pytest.raises(DataError, match=r"test labels must be among .* 1 row hold others: `Dog`"):
        encode_more(np.array(["dog", "Dog"]), train, what="test labels")
    targets = Labels(values=np.ones((1, 1), np.float32), classes=None)
    assert encode_more(np.array([0, 1]), targets, what="test labels").dtype == np.float32
