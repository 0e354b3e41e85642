"""Rows that cannot be used are refused, with every reason at once."""

import dataclasses

import numpy as np
import pytest

from understudy.data.checks import check_rows
from understudy.data.rows import Column, Rows
from understudy.errors import DataError


def table(**changes):
    rows = Rows(
        inputs=np.array([[1, 0], [2, 1], [3, 2], [4, 0]], np.float32),
        labels=np.array([0, 1, 1, -1]),
        ids=np.array([10, 11, 12, 13]),
        form="table",
        classes=("no", "yes"),
        columns=(Column(name="age"), Column(name="town", categories=("a", "b", "c"))),
    )
    return dataclasses.replace(rows, **changes)


def values(**changes):
    return table(labels=np.array([[1], [2], [np.nan], [4]], np.float32), classes=None, **changes)


def problems(rows):
    with pytest.raises(DataError) as caught:
        check_rows(rows)
    return str(caught.value)


def test_good_rows_pass():
    check_rows(table())
    check_rows(table(labels=None))
    check_rows(values())
    check_rows(table(form="image", inputs=np.ones((4, 2, 2, 3), np.uint8), columns=None))


def test_no_rows_are_refused():
    empty = table(inputs=np.empty((0, 2), np.float32), labels=None, ids=np.empty(0, np.int64))
    assert "at least one row" in problems(empty)


def test_every_problem_is_told_at_once():
    inputs = table().inputs.copy()
    inputs[1, 0], inputs[3, 0], inputs[2, 1] = np.nan, np.inf, 7
    text = problems(
        table(inputs=inputs, labels=np.array([0, 5, -2, 0]), ids=np.array([10, 11, 11, 12]))
    )
    assert text.splitlines()[0] == "the rows cannot be used as they are: 5 problems"
    assert "ids must be unique, but 1 stand for several rows (11)" in text
    assert "2 rows hold NaN or infinity (ids 11, 12; columns `age`)" in text
    assert "column `town` must hold the codes 0 to 2 of its categories, but 1 row hold" in text
    assert "labels must be 0 to 1, or -1 for an unlabelled row, but 2 rows hold others" in text
    assert "at least two classes, but every labelled row is of `no`" in text


def test_examples_end_after_five():
    inputs = np.full((9, 2), np.nan, np.float32)
    text = problems(table(inputs=inputs, labels=None, ids=np.arange(9), columns=None))
    assert "9 rows hold NaN or infinity (ids 0, 1, 2, 3, 4, ...)" in text


def test_what_is_not_finite_is_found_in_every_piece(monkeypatch):
    monkeypatch.setattr("understudy.data.checks._CHUNK", 3)
    inputs = np.zeros((7, 2, 2, 1), np.float32)
    inputs[6, 1, 0, 0] = -np.inf
    text = problems(
        Rows(inputs=inputs, labels=None, ids=np.arange(7) + 5, form="image", classes=("a", "b"))
    )
    assert "1 row hold NaN or infinity (ids 11)" in text


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"labels": np.array([0, 1])}, "labels must have one entry per row, but got 2 for 4 rows"),
        ({"ids": np.arange(5)}, "ids must have one entry per row, but got 5 for 4"),
        ({"names": ("a",)}, "names must have one entry per row, but got 1"),
        ({"test_rows": np.ones(3, np.bool_)}, "test_rows must have one entry per row, but got 3"),
        ({"columns": (Column(name="age"),)}, "every column must be described, but got 1 for 2"),
        ({"inputs": np.ones((4, 2))}, "inputs must be float32, but got float64"),
        ({"inputs": np.ones((4, 2), np.uint8)}, "inputs must be float32, but got uint8"),
        ({"inputs": np.ones((4, 2, 2), np.float32)}, "must be [rows, columns], but got [4, 2, 2]"),
        ({"form": "image"}, "must be [rows, height, width, channels], but got [4, 2]"),
        ({"labels": np.zeros((4, 1), np.float32)}, "classification must be int64 [rows], but got"),
        ({"labels": np.array([0, 1, 1, 0]), "classes": None}, "also names its `classes`"),
        ({"ids": np.array([-1, 0, 1, 2])}, "ids must be 0 or more, but 1 are below: -1"),
        ({"classes": ("yes", "yes")}, "class names must differ, but got `yes`, `yes`"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(change, law):
    assert law in problems(table(**change))


def test_targets_must_be_finite_and_vary():
    assert "1 row hold infinity (ids 11)" in problems(
        dataclasses.replace(values(), labels=np.array([[1], [np.inf], [2], [3]], np.float32))
    )
    constant = dataclasses.replace(values(), labels=np.full((4, 1), 2, np.float32))
    assert "target number 0 is 2.0 in each of 4 rows" in problems(constant)
    assert "target price is" in problems(dataclasses.replace(constant, targets=("price",)))
