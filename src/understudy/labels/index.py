"""Finding rows: sorted ids, and per id where each of its views lies. Mapped, never loaded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import StoreError
from understudy.labels.files import Tensors, map_tensors, open_header
from understudy.labels.manifest import Shard

ABSENT = -1
Ids = NDArray[np.int64]


def build_index(
    named: Callable[[], Iterator[tuple[Ids, Ids]]],
) -> tuple[Tensors, tuple[int, int]]:
    """The index of rows in their order in the store, and its first view and number of views.

    Args:
        named: ids and views of all rows, piece by piece, as often as it is called.

    Raises:
        StoreError: a pair of id and view that stands twice.
    """
    plain = _plain(named)
    if plain is not None:
        return plain
    pieces = list(named())
    ids = np.concatenate([piece for piece, _ in pieces])
    views = np.concatenate([piece for _, piece in pieces])
    first = int(views.min())
    count = int(views.max()) - first + 1
    known, which = np.unique(ids, return_inverse=True)
    cells = which * count + (views - first)
    rows = np.full(len(known) * count, ABSENT, np.int64)
    rows[cells] = np.arange(len(ids))
    if int((rows != ABSENT).sum()) < len(ids):
        cell, times = np.unique(cells, return_counts=True)
        twice = np.unique(known[cell[times > 1] // count])
        raise StoreError(
            f"an id stands for one row, but {len(twice)} ids came more than once (ids "
            f"{_some(twice)}): give every row an id of its own"
        )
    return {"ids": known, "rows": rows.reshape(len(known), count)}, (first, count)


def _plain(
    named: Callable[[], Iterator[tuple[Ids, Ids]]],
) -> tuple[Tensors, tuple[int, int]] | None:
    """The index of rows that came view by view and sorted by id: their ids say it all.

    This is the usual case, and the one that must stay small for many millions of rows: only the
    ids of one view are ever in memory, once.
    """
    views = next((int(found[0]) for _, found in named() if len(found)), None)
    if views is None:
        return None
    first, size = views, sum(int((found == views).sum()) for _, found in named())
    known, row = np.empty(size, np.int64), 0
    for ids, shown in named():
        place = np.arange(row, row + len(ids))
        row += len(ids)
        if not np.array_equal(shown, first + place // size):
            return None
        known[place[place < size]] = ids[place < size]
        if not np.array_equal(ids, known[place % size]):
            return None
    if row % size or bool((known[1:] <= known[:-1]).any()):
        return None
    return {"ids": known}, (first, row // size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """An index that is open.

    Attributes:
        ids: sorted, each once.
        rows: `[ids, views]`, the row of each view, or `ABSENT`; None where rows lie view by view
            in the order of their ids.
        first: the first view.
        count: how many views there are.
        folder: what errors name.
    """

    ids: Ids
    rows: NDArray[np.int64] | None
    first: int
    count: int
    folder: Path

    @classmethod
    def open(cls, folder: Path, entry: Shard, *, views: tuple[int, int]) -> "Index":
        """Map the index of a store.

        Raises:
            StoreError: it is not the file that the manifest names.
        """
        path = folder / entry.file
        if not path.is_file() or path.stat().st_size != entry.bytes:
            raise StoreError(
                f"{path} is not whole: run the command that labels again, it remakes this file "
                "alone"
            )
        header = open_header(path)
        if header.sha256 != entry.sha256:
            raise StoreError(
                f"{path} is damaged: its checksum is not the manifest's. Delete this file and run "
                "the command that labels again, only what is missing is remade"
            )
        tensors = map_tensors(path, header)
        first, count = views
        return cls(
            ids=tensors["ids"], rows=tensors.get("rows"), first=first, count=count, folder=folder
        )

    def find(self, ids: Ids, views: Ids | None) -> NDArray[np.int64]:
        """The rows of these ids in these views (None: the first), `[batch]`.

        Raises:
            StoreError: some were never labelled; they are named.
        """
        at = np.minimum(np.searchsorted(self.ids, ids), max(len(self.ids) - 1, 0))
        unknown = ids[self.ids[at] != ids]
        if len(unknown):
            raise StoreError(
                f"{len(unknown)} rows were never labelled in {self.folder} (ids "
                f"{_some(unknown)}): label again with these rows"
            )
        column: Any = 0 if views is None else views - self.first
        if views is not None and bool(((column < 0) | (column >= self.count)).any()):
            last = self.first + self.count - 1
            raise StoreError(
                f"{self.folder} holds {_range(self.first, last)} of each row, but another view was "
                f"asked for ({_some(np.unique(views))}): set `labels.views`, or "
                "`labels: {use: live}` to ask the teacher at every step"
            )
        if self.rows is None:
            plain: NDArray[np.int64] = at + column * len(self.ids)
            return plain
        rows: NDArray[np.int64] = self.rows[at, column]
        absent = ids[rows == ABSENT]
        if len(absent):
            raise StoreError(
                f"{len(absent)} rows were left out of {self.folder} in the view that was asked for "
                f"(ids {_some(absent)}), since the teacher's answer was not finite: leave them out"
            )
        return rows

    def whole(self) -> Ids:
        """The ids that are there in every view, sorted."""
        if self.rows is None:
            return self.ids
        found: Ids = self.ids[(self.rows != ABSENT).all(axis=1)]
        return found


def _some(ids: Ids) -> str:
    return ", ".join(map(str, ids[:5]))


def _range(first: int, last: int) -> str:
    return f"view {first}" if first == last else f"views {first} to {last}"
