"""From an Arrow table to rows: which columns are numbers, which are categories, what is missing.

Everything is settled on the training table; a test table must fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.data.columns import Kind, Values, ids_of, read_column, settle
from understudy.data.rows import Column, Rows, TaskKind, with_test
from understudy.data.targets import Labels, encode_labels, encode_more
from understudy.data.wording import count_rows, examples, quoted, raise_problems
from understudy.errors import DataError, did_you_mean

Missing = Literal["error", "drop", "median"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a recipe says of a table.

    Attributes:
        target: the columns of the labels.
        columns: the columns of the inputs; None: all others.
        categorical: columns that are categories although they look like numbers.
        task: what the labels are for, where they could be for both.
        classes: the names of all classes in order.
        missing: what an empty cell of the inputs means.
        id_column: the column of the ids.
    """

    target: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    task: TaskKind | None = None
    classes: tuple[str, ...] | None = None
    missing: Missing = "error"
    id_column: str | None = None

    def inputs(self, there: Sequence[str]) -> tuple[str, ...]:
        """The input columns among those that there are.

        Raises:
            DataError: a column is named that is not there, or twice, or is also a target.
        """
        named = [*self.target, *(self.columns or ()), *self.categorical]
        named += [] if self.id_column is None else [self.id_column]
        problems = [
            f"column `{name}` is not there: {did_you_mean(name, there)}"
            for name in dict.fromkeys(named)
            if name not in there
        ]
        double = sorted({name for name in there if there.count(name) > 1})
        if double:
            problems.append(f"column names must differ, but these do not: {quoted(double)}")
        taken = {*self.target, self.id_column}
        inputs = self.columns if self.columns is not None else there
        shared = taken & set(self.columns or ())
        if shared:
            problems.append(f"{quoted(sorted(map(str, shared)))} cannot be input and target or id")
        inputs = tuple(name for name in inputs if name not in taken)
        if not inputs:
            problems.append("at least one column besides the target must be there as input")
        raise_problems("the table does not fit what the recipe says of it", problems)
        return inputs


def table_rows(train: Any, test: Any | None, wanted: Wanted) -> Rows:
    """Rows of `pyarrow.Table`s: numbers as they are, categories as codes of their sorted texts.

    Raises:
        DataError: columns are absent, of no usable type, or have cells that are missing or that
            the training table does not know.
    """
    names = wanted.inputs(list(train.column_names))
    read = [read_column(train, name) for name in names]
    kinds, problems = [], []
    for name, values in zip(names, read, strict=True):
        try:
            kinds.append(settle(values, categorical=name in wanted.categorical))
        except DataError as error:
            problems.append(str(error))
    raise_problems("the table cannot be used as it is", problems)
    cells = _encode(read, kinds, "")
    fill = _fill_values(cells, kinds) if wanted.missing == "median" else None
    rows, labels = _finish(train, cells, kinds, wanted, fill=fill, like=None, first_id=0)
    if test is None:
        return rows
    _check_test_names(test, names, wanted)
    cells = _encode([read_column(test, name) for name in names], kinds, "test ")
    behind = max(train.num_rows, int(rows.ids.max(initial=-1)) + 1)
    more, _ = _finish(test, cells, kinds, wanted, fill=fill, like=labels, first_id=behind)
    return with_test(rows, more)


def _check_test_names(test: Any, names: Sequence[str], wanted: Wanted) -> None:
    absent = [name for name in names if name not in test.column_names]
    if absent:
        raise DataError(
            f"the test file must have the columns of the training file, but lacks {quoted(absent)}"
        )
    used = {*names, *wanted.target, wanted.id_column}
    double = sorted(name for name in used if name and test.column_names.count(name) > 1)
    if double:
        raise DataError(f"column names must differ, but the test file has {quoted(double)} twice")


def _encode(read: Sequence[Values], kinds: Sequence[Kind], where: str) -> NDArray[np.float64]:
    columns, problems = [], []
    for values, kind in zip(read, kinds, strict=True):
        try:
            columns.append(kind.encode(values))
        except DataError as error:
            problems.append(f"{where}{error}")
    raise_problems("the table cannot be used as it is", problems)
    return np.stack(columns, axis=1)


def _fill_values(cells: NDArray[np.float64], kinds: Sequence[Kind]) -> NDArray[np.float64]:
    fill = np.full(len(kinds), np.nan)
    for number, kind in enumerate(kinds):
        known = cells[~np.isnan(cells[:, number]), number]
        if len(known) and kind.categories is None:
            fill[number] = np.median(known)
        elif len(known):
            fill[number] = np.bincount(known.astype(np.int64)).argmax()
    return fill


def _finish(
    table: Any,
    cells: NDArray[np.float64],
    kinds: Sequence[Kind],
    wanted: Wanted,
    *,
    fill: NDArray[np.float64] | None,
    like: Labels | None,
    first_id: int,
) -> tuple[Rows, Labels | None]:
    ids = ids_of(table, wanted.id_column, first_id=first_id)
    empty = np.isnan(cells)
    if fill is not None:
        cells = np.where(empty, fill, cells)
        empty = np.isnan(cells)
    keep = ~empty.any(axis=1)
    if wanted.missing != "drop" and not keep.all():
        _report_missing(empty, ids, kinds, filled=fill is not None)
    labels = labels_of(table, wanted, like=like)
    with np.errstate(over="ignore"):  # what becomes infinite is reported by `check_rows`
        inputs = cells[keep].astype(np.float32)
    rows = Rows(
        inputs=inputs,
        labels=None if labels is None else labels.values[keep],
        ids=ids[keep],
        form="table",
        classes=wanted.classes if labels is None else labels.classes,
        columns=tuple(Column(name=kind.name, categories=kind.categories) for kind in kinds),
        skipped=int((~keep).sum()),
    )
    if labels is not None and labels.classes is None:
        rows = replace(rows, targets=wanted.target)
    return rows, labels


def _report_missing(
    empty: NDArray[np.bool_], ids: NDArray[np.int64], kinds: Sequence[Kind], *, filled: bool
) -> None:
    remedy = (
        "a column without any value has no median: leave it out with `columns`"
        if filled
        else "say `missing: median` to fill them in, or `missing: drop` to leave these rows out"
    )
    problems = [
        f"column `{kind.name}`: {count_rows(int(bad.sum()))} without a value "
        f"(ids {examples(ids[bad][:6].tolist())})"
        for kind, bad in zip(kinds, empty.T, strict=True)
        if bad.any()
    ]
    raise_problems(f"every cell of the inputs must have a value; {remedy}", problems)


def labels_of(table: Any, wanted: Wanted, *, like: Labels | None = None) -> Labels | None:
    """The labels in the target columns, None where there are no such columns.

    Args:
        table: with every target column, or none.
        wanted: what the recipe says.
        like: the labels of the training rows, where these are test rows.

    Raises:
        DataError: they fit no task, or not the training rows.
    """
    absent = [name for name in wanted.target if name not in table.column_names]
    if absent and len(absent) < len(wanted.target):
        raise DataError(f"the test file must have every target or none, but lacks {quoted(absent)}")
    if absent:
        return None
    what = "labels" if like is None else "test labels"
    read = [read_column(table, name) for name in wanted.target]
    if len(read) > 1:
        if wanted.task not in (None, "regression"):
            raise DataError(
                "a classification must have one target column, but got "
                f"{quoted(wanted.target)}: name one, or say `task: regression`"
            )
        numbers = np.stack([target.as_numbers() for target in read], axis=1)
        return encode_labels(numbers, task="regression", what=what)
    what = f"{what} (`{wanted.target[0]}`)"
    if like is None:
        values = read[0].as_labels(wanted.task, named=wanted.classes is not None, what=what)
        return encode_labels(values, task=wanted.task, classes=wanted.classes, what=what)
    task: TaskKind = "regression" if like.classes is None else "classification"
    values = read[0].as_labels(task, named=True, what=what)
    return Labels(values=encode_more(values, like, what=what), classes=like.classes)
