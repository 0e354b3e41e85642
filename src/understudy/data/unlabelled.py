"""More rows to learn from, without labels: behind the rows of a run, for training alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from understudy.data.rows import Rows
from understudy.errors import DataError


def with_unlabelled(rows: Rows, more: Sequence[Callable[[], Rows]]) -> Rows:
    """The rows with others behind them, whose labels, where they have any, are left out.

    Their ids count on from the highest there is. A copy of a test row among them is no different
    from any other: `splits` leaves it out.

    Args:
        rows: of the run.
        more: what loads the others; each in the form of `rows`.

    Raises:
        DataError: they have another form, or test rows of their own.
    """
    for load in more:
        rows = _joined(rows, load())
    return rows


def _joined(rows: Rows, other: Rows) -> Rows:
    kinds = [(r.form, len(r.columns or ()), r.inputs.shape[1:], r.inputs.dtype.name) for r in
             (rows, other)]  # fmt: skip
    if kinds[0] != kinds[1]:
        told = " and ".join(f"{form} {list(shape)} {dtype}" for form, _, shape, dtype in kinds)
        raise DataError(
            f"`data.unlabelled` must be rows of the same form as `data.source`, but got {told}: "
            "give both the same columns, or the same size"
        )
    if rows.form == "table" and rows.columns != other.columns:
        raise DataError(
            "`data.unlabelled` must have the columns of `data.source`, with the same categories in "
            "the same order, but its own differ: give both the same `columns`"
        )
    if other.test_rows is not None and other.test_rows.any():
        raise DataError(
            "`data.unlabelled` is for training alone, but declares test rows: leave its test file "
            "out"
        )
    count, labels = len(other), rows.labels
    if labels is not None:
        blank = np.full((count, *labels.shape[1:]), -1 if labels.dtype.kind == "i" else np.nan)
        labels = np.concatenate([labels, blank.astype(labels.dtype)])
    first = int(rows.ids.max(initial=-1)) + 1
    named = rows.names is not None and other.names is not None
    texts = None
    if rows.texts is not None and other.texts is not None:
        texts = rows.texts + other.texts
    declared = None
    if rows.test_rows is not None:
        declared = np.concatenate([rows.test_rows, np.zeros(count, np.bool_)])
    spare = np.zeros(len(rows), np.bool_) if rows.spare is None else rows.spare
    return replace(
        rows,
        spare=np.concatenate([spare, np.ones(count, np.bool_)]),
        inputs=np.concatenate([rows.inputs, other.inputs]),
        labels=labels,
        ids=np.concatenate([rows.ids, np.arange(first, first + count)]),
        names=(rows.names or ()) + (other.names or ()) if named else None,
        texts=texts,
        test_rows=declared,
        skipped=rows.skipped + other.skipped,
    )
