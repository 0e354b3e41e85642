"""What must hold of every source's rows; every violation is told at once."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import Rows
from understudy.data.wording import count_rows, examples, quoted, raise_problems
from understudy.errors import DataError

_CHUNK = 8192
_DTYPES = {"image": ("uint8", "float32"), "text": ("uint8", "int32")}


def check_rows(rows: Rows) -> None:
    """Refuse rows that no run could use, with counts, examples and remedies.

    Raises:
        DataError: no rows, entries missing or doubled, values that are not finite, labels that
            are out of range or all the same.
    """
    if not len(rows):
        raise DataError("a source must give at least one row, but this one gave none")
    problems = list(_shapes(rows))
    if not problems:
        problems = [*_ids(rows), *_finite(rows), *_codes(rows), *_labels(rows)]
    raise_problems("the rows cannot be used as they are", problems)


def _shapes(rows: Rows) -> Iterable[str]:
    inputs, count = rows.inputs, len(rows)
    axes = {"image": 4, "table": 2, "text": 2}.get(rows.form)
    if axes is None:
        yield f"`form` must be `image`, `table` or `text`, but got {rows.form!r}"
    elif inputs.ndim != axes:
        wanted = {"image": "[rows, height, width, channels]", "text": "[rows, longest]"}.get(
            rows.form, "[rows, columns]"
        )
        yield f"inputs of form `{rows.form}` must be {wanted}, but got {list(inputs.shape)}"
    elif 0 in inputs.shape[1:]:
        yield f"every row must hold at least one number, but got inputs {list(inputs.shape)}"
    dtypes = _DTYPES.get(rows.form, ("float32",))
    if inputs.dtype.name not in dtypes:
        wanted = " or ".join(dtypes)
        yield f"inputs must be {wanted}, but got {inputs.dtype}: convert them in the source"
    if rows.ids.dtype != np.int64:
        yield f"ids must be int64, but got {rows.ids.dtype}: convert them in the source"
    parts = {
        "labels": rows.labels,
        "ids": rows.ids,
        "names": rows.names,
        "texts": rows.texts,
        "test_rows": rows.test_rows,
    }
    for name, part in parts.items():
        if part is not None and len(part) != count:
            yield f"{name} must have one entry per row, but got {len(part)} for {count} rows"
    described = rows.columns and rows.form != "text"
    if described and rows.columns and inputs.shape[-1] != len(rows.columns):
        yield f"every column must be described, but got {len(rows.columns)} for {inputs.shape[-1]}"
    if rows.form == "text" and rows.texts is None:
        yield "rows of form `text` must have their `texts`, but have none: make them `from_texts`"
    yield from _label_shape(rows)


def _label_shape(rows: Rows) -> Iterable[str]:
    if rows.labels is None:
        return
    dtype, axes = ("int64", 1) if rows.classes is not None else ("float32", 2)
    if rows.form == "text" and rows.classes is not None:
        axes = rows.labels.ndim if rows.labels.ndim in (1, 2) else 1
    if rows.labels.dtype.name != dtype or rows.labels.ndim != axes:
        wanted = "[rows]" if axes == 1 else "[rows, targets]"
        yield (
            f"labels of a {rows.task} must be {dtype} {wanted}, but got {rows.labels.dtype} "
            f"{list(rows.labels.shape)}"
            + ("; a classification also names its `classes`" if rows.classes is None else "")
        )


def _ids(rows: Rows) -> Iterable[str]:
    known, counts = np.unique(rows.ids, return_counts=True)
    doubled = known[counts > 1]
    if len(doubled):
        yield (
            f"ids must be unique, but {len(doubled)} stand for several rows "
            f"({examples(doubled.tolist())}): number the rows anew, or remove the copies"
        )
    if known[0] < 0:
        yield f"ids must be 0 or more, but {int((rows.ids < 0).sum())} are below: {known[0]}"


def _finite(rows: Rows) -> Iterable[str]:
    if rows.inputs.dtype.kind != "f":
        return
    bad_rows: list[int] = []
    bad_columns = np.zeros(rows.inputs.shape[-1], np.bool_)
    for start in range(0, len(rows), _CHUNK):
        bad = ~np.isfinite(rows.inputs[start : start + _CHUNK])
        bad_rows += (start + np.flatnonzero(bad.any(axis=tuple(range(1, bad.ndim))))).tolist()
        bad_columns |= bad.any(axis=tuple(range(bad.ndim - 1)))
    if not bad_rows:
        return
    where = f"ids {examples(rows.ids[bad_rows[:6]].tolist())}"
    if rows.columns:
        names = (rows.columns[number].name for number in np.flatnonzero(bad_columns))
        where += f"; columns {quoted(names)}"
    yield (
        f"inputs must be finite, but {count_rows(len(bad_rows))} hold NaN or infinity ({where}): "
        "fill them in or leave these rows out"
    )


def _codes(rows: Rows) -> Iterable[str]:
    for number, column in enumerate(rows.columns or ()):
        if column.categories is None:
            continue
        codes = rows.inputs[:, number]
        bad = np.isfinite(codes) & ~np.isin(codes, np.arange(len(column.categories)))
        if bad.any():
            yield (
                f"column `{column.name}` must hold the codes 0 to {len(column.categories) - 1} of "
                f"its categories, but {count_rows(int(bad.sum()))} hold others "
                f"(ids {examples(rows.ids[bad][:6].tolist())})"
            )


def _labels(rows: Rows) -> Iterable[str]:
    if rows.labels is None:
        return
    if rows.classes is not None:
        yield from _classes(rows, rows.labels, rows.classes)
        return
    infinite = np.isinf(rows.labels).any(axis=1)
    if infinite.any():
        yield (
            f"targets must be finite, but {count_rows(int(infinite.sum()))} hold infinity "
            f"(ids {examples(rows.ids[infinite][:6].tolist())}): correct them, or leave the "
            "target empty for an unlabelled row"
        )
    known = rows.labels[rows.labelled]
    for number in range(rows.labels.shape[1]):
        if len(known) and np.all(known[:, number] == known[0, number]):
            name = rows.targets[number] if rows.targets else f"number {number}"
            yield (
                f"every target must vary, but target {name} is {known[0, number]} in each of "
                f"{count_rows(len(known))}: leave this target out"
            )


def _classes(rows: Rows, labels: NDArray[Any], classes: tuple[str, ...]) -> Iterable[str]:
    if len(set(classes)) < len(classes):
        yield f"class names must differ, but got {quoted(classes)}"
    outside = (labels < -1) | (labels >= len(classes))
    if outside.any():
        yield (
            f"labels must be 0 to {len(classes) - 1}, or -1 for an unlabelled row, but "
            f"{count_rows(int(_any(outside).sum()))} hold others "
            f"({examples(np.unique(labels[outside]).tolist())}; "
            f"ids {examples(rows.ids[_any(outside)][:6].tolist())}): correct the labels or the "
            "`classes`"
        )
    known = np.unique(labels[(labels >= 0) & ~outside])
    if len(known) == 1:
        yield (
            f"labels must be of at least two classes, but every labelled row is of "
            f"`{classes[int(known[0])]}`: add rows of another class"
        )


def _any(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows in which something was found, where a row has labels of several words."""
    return np.asarray(found.any(axis=tuple(range(1, found.ndim))))
