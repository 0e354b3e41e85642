"""The catalogue of sources, the embedded ones, and what a custom one may return."""

import inspect
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
import torch

from understudy import data
from understudy.data import CATALOGUE, Rows, check_rows, diabetes, digits, from_custom
from understudy.errors import DataError, MissingExtraError


def test_these_are_the_kinds():
    tables = ["arrays", "csv", "diabetes", "digits", "idx", "images", "parquet"]
    texts = ["completions", "conll", "documents", "lines", "restoring", "rewriting", "text"]
    assert sorted(CATALOGUE) == sorted([*tables, *texts, "teacher_text"])


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        CATALOGUE["mine"] = digits


@pytest.mark.parametrize("kind", sorted(CATALOGUE))
def test_every_source_takes_typed_keywords_and_gives_rows(kind):
    source = CATALOGUE[kind]
    hints = get_type_hints(source)
    assert hints.pop("return") is Rows
    for parameter in inspect.signature(source).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.name in hints
    assert source.__name__ == kind
    assert source.__doc__


def test_everything_listed_for_export_is_there():
    assert all(hasattr(data, name) for name in data.__all__)


def test_the_room_loads_no_heavy_library():
    heavy = "torch", "sklearn", "pyarrow", "PIL", "safetensors"
    code = f"import sys, understudy.data; print([n for n in {heavy} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_digits_are_small_grey_images():
    rows = digits()
    check_rows(rows)
    assert rows.inputs.shape == (1797, 8, 8, 1)
    assert rows.inputs.dtype == np.uint8
    assert rows.inputs.max() == 16
    assert rows.classes == tuple("0123456789")
    assert np.bincount(rows.labels).min() == 174


def test_diabetes_is_a_raw_table():
    rows = diabetes()
    check_rows(rows)
    assert rows.inputs.shape == (442, 10)
    assert rows.inputs[0, 0] == 59  # years, not standard deviations
    assert rows.columns[0].name == "age"
    assert rows.labels.shape == (442, 1)
    assert rows.classes is None
    assert rows.targets == ("progression",)


@pytest.mark.parametrize("source", [digits, diabetes])
def test_without_scikit_learn_the_extra_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*understudy\[train\]"):
        source()


def test_a_custom_source_returns_rows_or_a_pair():
    rows = digits()
    assert from_custom(rows) is rows
    pair = from_custom((np.ones((3, 2)), ["b", "a", "b"]))
    assert pair.form == "table"
    assert pair.labels.tolist() == [1, 0, 1]
    tensors = from_custom([torch.zeros(3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0])])
    assert tensors.inputs.shape == (3, 8, 8, 1)
    assert from_custom((np.ones((3, 2)), None)).labels is None


@pytest.mark.parametrize(
    ("result", "law"),
    [
        (None, "must return `understudy.data.Rows` or a pair (inputs, labels), but got NoneType"),
        ((1, 2, 3), "but got tuple of 3"),
        (([[1, 2], [3]], [0, 1]), "the inputs of a custom source must be an array, but list"),
        ((None, [0, 1]), "must be numbers"),
        ((torch.ones(2, 2, requires_grad=True), [0, 1]), "but Tensor cannot be turned into one"),
        ((np.ones((2, 2)), [0, 1, 0]), "`inputs` and `labels` must have one entry per row"),
        ((np.array([[1, np.nan], [1, 2]]), [0, 1]), "inputs must be finite, but 1 row"),
        ((np.ones((2, 2)), ["a", "a"]), "labels must be of at least two classes"),
    ],
    ids=["none", "three", "ragged", "no inputs", "gradient", "lengths", "NaN", "one class"],
)
def test_a_custom_source_that_returns_something_else_is_told_what(result, law):
    with pytest.raises(DataError) as caught:
        from_custom(result)
    assert law in str(caught.value)
