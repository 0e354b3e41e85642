"""Rows: what every source gives, before any split, view or preprocessing."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError
from understudy.folders import canonical

Form = Literal["image", "table", "text"]
TaskKind = Literal["classification", "regression", "token_classification"]

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: as the source calls it.
        categories: their texts in the order of their codes 0, 1, ...; None for a number.
    """

    name: str
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """The raw rows of a source, all of them, in memory or mapped from a file.

    Attributes:
        inputs: raw rows: images uint8 or float32 `[rows, height, width, channels]`, tables float32
            `[rows, columns]` with the codes of categories as whole numbers, texts int32
            `[rows, longest]` token ids, or uint8 `[rows, 16]` digests while they have none.
        labels: classification int64 `[rows]` (-1: unlabelled), regression float32
            `[rows, targets]` (NaN: unlabelled), of the words of texts int64 `[rows, words]`, -1
            behind a text's last word; None where no row has one.
        ids: int64 `[rows]`, unique: the position in the source, which stays when others are left
            out. Rows of a source's own test file count on from its training rows.
        form: `image`, `table` or `text`.
        classes: the names of the classes in the order of their numbers; None is a regression.
        columns: of a table, one per column of `inputs`; of texts, where they come from.
        names: one per row, such as file names.
        test_rows: bool `[rows]`, which rows the source itself declares as test.
        spare: bool `[rows]`, rows for training alone: none of them is drawn to choose or judge by.
        targets: the names of a regression's targets, where the source knows them.
        skipped: how many rows the source left out because it was told to.
        texts: of the form `text`, the one text or the two texts of each row.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any] | None
    ids: NDArray[np.int64]
    form: Form
    classes: tuple[str, ...] | None = None
    columns: tuple[Column, ...] | None = None
    names: tuple[str, ...] | None = None
    test_rows: NDArray[np.bool_] | None = None
    spare: NDArray[np.bool_] | None = None
    targets: tuple[str, ...] | None = None
    skipped: int = 0
    texts: tuple[tuple[str, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def task(self) -> TaskKind:
        """What the labels are for."""
        if self.classes is None:
            return "regression"
        words = self.labels is not None and self.labels.ndim == 2
        return "token_classification" if words else "classification"

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label, bool `[rows]`."""
        return labelled_rows(self.labels, len(self))

    def fingerprint(self) -> str:
        """SHA-256 over inputs, labels, ids, classes and columns, in hex."""
        digest = hashlib.sha256()
        meaning = [self.form, self.classes, [(c.name, c.categories) for c in self.columns or ()]]
        digest.update(canonical(meaning).encode())
        for array in (self.inputs, self.labels, self.ids):
            for part in _pieces(array):
                digest.update(part)
        return digest.hexdigest()


def labelled_rows(labels: NDArray[Any] | None, count: int) -> NDArray[np.bool_]:
    """Which of `count` rows have a label: not -1 (a word that is not), and no target NaN."""
    if labels is None:
        return np.zeros(count, np.bool_)
    if labels.dtype.kind == "f":
        return np.asarray(~np.isnan(labels.reshape(len(labels), -1)).any(axis=1))
    return np.asarray((labels >= 0).any(axis=tuple(range(1, labels.ndim))))


def with_test(train: Rows, test: Rows) -> Rows:
    """One `Rows` of a source's training rows and its own test rows behind them.

    Raises:
        DataError: rows of the two differ in shape or type, or a regression in its targets.
    """
    kinds = [(part.inputs.shape[1:], part.inputs.dtype.name) for part in (train, test)]
    if kinds[0] != kinds[1]:
        raise DataError(
            "training and test rows must have one shape and type, but got "
            + " and ".join(f"{list(shape)} {dtype}" for shape, dtype in kinds)
            + ": make both the same way (for images, `size` gives them one size)"
        )
    names = None
    if train.names is not None and test.names is not None:
        names = train.names + test.names
    texts = None
    if train.texts is not None and test.texts is not None:
        texts = train.texts + test.texts
    declared = [np.zeros(len(train), np.bool_), np.ones(len(test), np.bool_)]
    return replace(
        train,
        inputs=np.concatenate([train.inputs, test.inputs]),
        labels=_joined_labels(train, test),
        ids=np.concatenate([train.ids, test.ids]),
        names=names,
        texts=texts,
        test_rows=np.concatenate(declared),
        skipped=train.skipped + test.skipped,
    )


def _joined_labels(train: Rows, test: Rows) -> NDArray[Any] | None:
    given = [part.labels for part in (train, test) if part.labels is not None]
    if not given:
        return None
    parts = [
        np.full((len(part), *given[0].shape[1:]), -1 if given[0].dtype.kind == "i" else np.nan)
        if part.labels is None
        else part.labels
        for part in (train, test)
    ]
    if parts[0].shape[1:] != parts[1].shape[1:]:
        raise DataError(
            "training and test labels must have the same targets, but got labels of shape "
            f"{list(parts[0].shape)} and {list(parts[1].shape)}"
        )
    return np.concatenate(parts).astype(given[0].dtype, copy=False)


def _pieces(array: NDArray[Any] | None) -> Iterator[bytes | memoryview]:
    if array is None:
        yield b"none"
        return
    little = array.dtype.newbyteorder("<")
    yield f"{little.str}{array.shape}".encode()
    step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step], little).data
