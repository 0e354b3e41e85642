"""The small sources: two data sets that scikit-learn carries, and functions of the user's own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.array_files import from_arrays
from understudy.data.checks import check_rows
from understudy.data.rows import Column, Rows
from understudy.data.text_sources import from_texts
from understudy.errors import DataError, MissingExtraError


def digits() -> Rows:
    """1,797 handwritten digits, uint8 `[1797, 8, 8, 1]` with values 0 to 16, ten classes.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    data = load_digits()
    return Rows(
        inputs=data.images.astype(np.uint8)[..., None],
        labels=data.target.astype(np.int64),
        ids=np.arange(len(data.target)),
        form="image",
        classes=tuple(str(name) for name in data.target_names),
    )


def diabetes() -> Rows:
    """442 patients, ten raw measurements each, and how far the disease has gone after a year.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    data = load_diabetes(scaled=False)
    return Rows(
        inputs=data.data.astype(np.float32),
        labels=data.target.astype(np.float32)[:, None],
        ids=np.arange(len(data.target)),
        form="table",
        columns=tuple(Column(name=name) for name in data.feature_names),
        targets=("progression",),
    )


def from_custom(result: object) -> Rows:
    """What a custom source returned, checked: `Rows`, or a pair (inputs, labels).

    Inputs are an array, or a list of texts or of pairs of texts.

    Raises:
        DataError: it is neither, or its rows cannot be used.
    """
    if isinstance(result, Rows):
        rows = result
    elif isinstance(result, (tuple, list)) and len(result) == 2:
        rows = _pair(*result)
    else:
        what = type(result).__name__
        size = f" of {len(result)}" if isinstance(result, (tuple, list)) else ""
        raise DataError(
            "a custom source must return `understudy.data.Rows` or a pair (inputs, labels), "
            f"but got {what}{size}: labels may be None"
        )
    check_rows(rows)
    return rows


def _pair(inputs: Any, labels: Any) -> Rows:
    first = inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) else None
    texts = isinstance(first, (list, tuple)) and len(first) == 2 and isinstance(first[0], str)
    if isinstance(first, str) or texts:
        return from_texts(inputs, labels)
    return from_arrays(
        _as_array(inputs, "inputs"), None if labels is None else _as_array(labels, "labels")
    )


def _as_array(part: object, what: str) -> NDArray[Any]:
    try:
        return np.asarray(part)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"the {what} of a custom source must be an array, but {type(part).__name__} cannot be "
            f"turned into one ({error})"
        ) from error
