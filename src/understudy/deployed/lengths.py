"""How long rows of token ids are, and how they are filled up. NumPy only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows are as long as their longest text, rounded up: few shapes, and little padding.
STEP = 8
# Below three tokens an exporter takes a length for a constant.
LEAST = 4


def padded(
    ids: Sequence[NDArray[np.int32]], *, pad: int, length: int | None = None
) -> NDArray[np.int32]:
    """Sequences as rows, filled up at the end to the longest one, rounded up but not past `length`.

    A sequence may be empty; its row is all padding.
    """
    longest = rounded(max((len(row) for row in ids), default=0), length)
    rows = np.full((len(ids), longest), pad, np.int32)
    for row, one in zip(rows, ids, strict=True):
        row[: len(one)] = one
    return rows


def rounded(longest: int, length: int | None = None) -> int:
    """A row's length rounded up to a multiple of 8, up to `length` and never below 4."""
    up = -(-longest // STEP) * STEP
    return max(LEAST, up if length is None else min(up, length))


def lengths(rows: NDArray[np.integer[Any]], pad: int) -> NDArray[np.int64]:
    """How long each row is without the padding at its end, int64 `[rows]`."""
    real = rows != pad
    last = rows.shape[1] - real[:, ::-1].argmax(axis=1)
    return np.where(real.any(axis=1), last, 0).astype(np.int64)
