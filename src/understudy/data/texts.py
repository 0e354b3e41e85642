"""Rows that are texts, single ones or pairs, with class names or targets.

Until a tokenizer has made numbers of them, the inputs of such rows are digests of their texts. So
they can be split, compared and fingerprinted before there is a tokenizer, which may have to be
trained on the training rows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.data.columns import arrow, ids_of
from understudy.data.rows import Column, Rows, TaskKind, with_test
from understudy.data.table import Wanted, labels_of
from understudy.data.targets import Labels
from understudy.data.text_files import Columns
from understudy.data.wording import count_rows, examples, quoted, rows_at
from understudy.deployed.lengths import lengths, padded
from understudy.deployed.texts import Tokenizer, refuse_surrogates
from understudy.errors import DataError, did_you_mean

Empty = Literal["error", "drop"]
_DIGEST = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which columns hold what.

    Attributes:
        texts: the column of the texts, or of both texts of a pair.
        target: the column of the labels, or several of real targets; empty: no row has one.
        task: what the labels are for, where they could be for both.
        classes: the names of the classes in the order of their numbers.
        empty: what a row without a text means.
        id_column: the column of the ids.
        numbers: whether a column of texts may hold nothing but numbers.
    """

    texts: tuple[str, ...]
    target: tuple[str, ...] = ()
    task: TaskKind | None = None
    classes: tuple[str, ...] | None = None
    empty: Empty = "error"
    id_column: str | None = None
    numbers: bool = False


def text_rows(train: Columns, test: Columns | None, asked: Asked) -> Rows:
    """Rows of columns; classes are settled on the training rows.

    Raises:
        DataError: a column is absent or holds no texts, texts are empty, or labels are spelled in
            two ways.
    """
    first = asked
    if test is not None and asked.classes is not None and not set(asked.target) & set(train):
        # Only test rows are labelled, with classes that are named: nobody learns from these labels.
        first = replace(asked, target=()) if set(asked.target) <= set(test) else asked
    rows, like = _rows(train, first, like=None, first_id=0)
    if test is None:
        return rows
    behind = max(_count(train), int(rows.ids.max(initial=-1)) + 1)
    more, _ = _rows(test, asked, like=like, first_id=behind)
    return with_test(rows, more)


def tokenized(rows: Rows, tokenizer: Tokenizer) -> Rows:
    """The rows with token ids for inputs, int32 `[rows, longest]`, filled up at the end."""
    ids = tokenizer.encode(*_sides(rows))
    return replace(rows, inputs=padded(ids, pad=tokenizer.pad, length=tokenizer.length))


def cut_texts(rows: Rows, tokenizer: Tokenizer) -> int:
    """How many of tokenized rows have lost their end."""
    full = lengths(rows.inputs, tokenizer.pad) >= tokenizer.length
    assert rows.texts is not None
    some = replace(rows, texts=tuple(rows.texts[at] for at in np.flatnonzero(full)))
    return tokenizer.cut(*_sides(some)) if full.any() else 0


def _sides(rows: Rows) -> tuple[list[str], list[str] | None]:
    assert rows.texts is not None
    first = [row[0] for row in rows.texts]
    paired = len(rows.columns or ()) > 1
    return first, [row[1] for row in rows.texts] if paired else None


def _rows(
    columns: Columns, asked: Asked, *, like: Labels | None, first_id: int
) -> tuple[Rows, Labels | None]:
    where = "the test rows: " if first_id else ""
    needed = [*asked.texts, *(asked.target if not first_id else ()), asked.id_column]
    absent = [name for name in needed if name is not None and name not in columns]
    if absent:
        raise DataError(
            f"{where}column `{absent[0]}` is not there: {did_you_mean(absent[0], columns)}"
        )
    texts = list(
        zip(*(_texts(columns[name], name, where, asked) for name in asked.texts), strict=True)
    )
    keep = np.array([all(part.strip() for part in row) for row in texts], np.bool_)
    table = _table(columns, asked)
    ids = ids_of(table, asked.id_column, first_id=first_id)
    if not asked.id_column:
        ids = np.arange(first_id, first_id + len(texts))
    if not keep.all() and asked.empty == "error":
        raise DataError(
            f"{where}every row must have a text, but {count_rows(int((~keep).sum()))} have none "
            f"(ids {examples(ids[~keep][:6].tolist())}): say `empty: drop` to leave them out"
        )
    if like is None and asked.classes is None:
        _one_spelling(columns, asked)
    wanted = Wanted(target=asked.target, task=asked.task, classes=asked.classes)
    labels = labels_of(table, wanted, like=like) if asked.target else None
    kept = [row for row, stays in zip(texts, keep, strict=True) if stays]
    rows = Rows(
        inputs=digests(kept),
        labels=None if labels is None else labels.values[keep],
        ids=ids[keep],
        form="text",
        classes=asked.classes if labels is None else labels.classes,
        columns=tuple(Column(name=name) for name in asked.texts),
        texts=tuple(kept),
        targets=asked.target if labels is not None and labels.classes is None else None,
        skipped=int((~keep).sum()),
    )
    return rows, labels


def _texts(values: Sequence[Any], name: str, where: str, asked: Asked) -> list[str]:
    odd = [value for value in values if value is not None and not isinstance(value, str)]
    if odd:
        raise DataError(
            f"{where}column `{name}` must hold texts, but {count_rows(len(odd))} hold "
            f"{type(odd[0]).__name__}s ({examples(odd[:6])}): name the column of the texts"
        )
    texts = [value or "" for value in values]
    there = [value for value in texts if value.strip()]
    if there and not asked.numbers and all(_number(value) for value in there):
        raise DataError(
            f"{where}column `{name}` must hold texts, but holds nothing but numbers "
            f"({examples(there[:6])}): name the column of the texts"
        )
    refuse_surrogates(texts, f"{where}column `{name}`, row")
    return texts


def _number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _one_spelling(columns: Columns, asked: Asked) -> None:
    """Refuse classes that differ in nothing but capitals or spaces."""
    if len(asked.target) != 1:
        return
    places: dict[str, list[int]] = {}
    for at, value in enumerate(columns[asked.target[0]]):
        if isinstance(value, str) and value.strip():
            places.setdefault(value.strip(), []).append(at)
    alike: dict[str, list[str]] = {}
    for name in places:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    doubled = [sorted(names) for names in alike.values() if len(names) > 1]
    if doubled:
        shown = " and ".join(
            f"`{name}` ({count_rows(len(places[name]))}: {rows_at(places[name])})"
            for name in doubled[0]
        )
        raise DataError(
            f"every class must be spelled one way, but column `{asked.target[0]}` has {shown}: "
            f"correct the file, or name all classes in `classes` if these are two"
        )


def _table(columns: Columns, asked: Asked) -> Any:
    """The columns beside the texts, as Arrow has them."""
    pa, _ = arrow()
    beside = [name for name in (*asked.target, asked.id_column) if name and name in columns]
    found = {}
    for name in beside:
        values = list(columns[name])
        if name in asked.target and asked.classes is not None:
            values = _counted(values, asked.classes)
        try:
            found[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeError) as error:
            kinds = sorted({type(value).__name__ for value in columns[name]})
            raise DataError(
                f"column `{name}` must hold values of one kind, but holds {quoted(kinds)}: "
                "write all of them as texts"
            ) from error
    return pa.table(found)


def _counted(values: list[Any], classes: Sequence[str]) -> list[Any]:
    """Cells that are nothing but the numbers of named classes, as numbers."""
    cells = [value.strip() if isinstance(value, str) else value for value in values]
    there = {cell for cell in cells if cell is not None and cell != ""}
    numbers = all(isinstance(cell, str) and cell.isdecimal() for cell in there)
    if not there or not numbers or there & set(classes):
        return values
    return [int(cell) if cell else None for cell in cells]


def _count(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))


def digests(texts: Sequence[tuple[str, ...]]) -> NDArray[np.uint8]:
    """What stands for texts until they are numbers, uint8 `[rows, 16]`."""
    marks = (
        blake2b(f"{len(row[0])} {' '.join(row)}".encode(), digest_size=_DIGEST).digest()
        for row in texts
    )
    return np.frombuffer(b"".join(marks), np.uint8).reshape(-1, _DIGEST).copy()
