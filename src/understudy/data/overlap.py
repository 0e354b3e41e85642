"""Copies of test rows among the rows to train on."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import Rows
from understudy.data.wording import examples
from understudy.errors import DataError

Overlap = Literal["error", "drop", "allow"]

# Above this share, equal rows are the nature of the data or a mistake, not a few stray copies.
_DROP_LIMIT = 0.1
_CHUNK = 4096


def without_copies(
    rows: Rows,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    *,
    overlap: Overlap,
) -> NDArray[np.int64]:
    """The positions in `train` whose raw row, byte for byte, is not also in `test`.

    Raises:
        DataError: there are copies and `overlap` is `error`, or so many that dropping them would
            change the training set.
    """
    if overlap == "allow":
        return train
    first = dict(zip(_keys(rows.inputs, test), test, strict=True))
    twins = [first.get(key, -1) for key in _keys(rows.inputs, train)]
    copies = np.asarray(twins, np.int64) >= 0
    count = int(copies.sum())
    # Rows that were added without labels may well hold all test rows: nothing is lost with them.
    weighed = copies & rows.labelled[train] if rows.labelled.any() else copies
    if not count or (overlap == "drop" and int(weighed.sum()) <= _DROP_LIMIT * len(train)):
        return train[~copies]
    pairs = (
        f"{rows.ids[at]} = {rows.ids[twin]}"
        for at, twin in zip(train, twins, strict=True)
        if twin >= 0
    )
    raise DataError(
        f"no training row may be a copy of a test row, but {count} of {len(train)} are (training "
        f"id = test id: {examples(pairs)}): "
        + (
            "leave them out of training with `overlap: drop`, "
            if overlap == "error"
            else "that is too many to drop unasked; remove them from the source, "
        )
        + "or, where equal rows are ordinary in this data, say `overlap: allow`"
    )


def _keys(inputs: NDArray[Any], positions: NDArray[np.int64]) -> Iterator[bytes]:
    for start in range(0, len(positions), _CHUNK):
        for row in np.ascontiguousarray(inputs[positions[start : start + _CHUNK]]):
            yield blake2b(row.data, digest_size=16).digest()
