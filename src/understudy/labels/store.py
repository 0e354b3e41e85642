"""A label store: `manifest.json` beside safetensors shards, addressed by (example id, view).

The manifest carries the fingerprints of what the labels were made from. A store that was made
for something else is an error that names both sides, never a silent use of stale labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import Knowledge
from understudy.errors import StoreError
from understudy.folders import file_checksum, read_json
from understudy.labels.codec import map_tensors

FORMAT, VERSION = "understudy-labels", 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One file of a store, as the manifest has it."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a store says of itself.

    Attributes:
        fields: per name of knowledge its `codec` and the `shape` of one row.
        fingerprints: of teacher, data and whatever else the labels are a function of.
        shards: in order of writing; `complete` only when all are there.
    """

    fields: Mapping[str, Mapping[str, Any]]
    fingerprints: Mapping[str, str]
    shards: tuple[Shard, ...]
    complete: bool

    def to_data(self) -> dict[str, Any]:
        """Plain data, as it stands in `manifest.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "complete": self.complete,
            "temperature": 1,
            "fields": {name: dict(entry) for name, entry in self.fields.items()},
            "fingerprints": dict(self.fingerprints),
            "rows": sum(shard.rows for shard in self.shards),
            "shards": [
                {"file": s.file, "rows": s.rows, "bytes": s.bytes, "sha256": s.sha256}
                for s in self.shards
            ],
        }


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        StoreError: there is none, it is of another format, or of a version we do not know.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(f"{folder} is no label store: it has no {MANIFEST}. Label again")
    data = read_json(path)
    found = data.get("format") if isinstance(data, dict) else data
    if found != FORMAT:
        raise StoreError(
            f"{path} must say format {FORMAT!r}, but says {found!r}: name a label store"
        )
    if data.get("version") != VERSION:
        raise StoreError(
            f"{path} has version {data.get('version')}, but this Understudy reads version "
            f"{VERSION}: upgrade Understudy, or label again"
        )
    try:
        return Manifest(
            fields=data["fields"],
            fingerprints=data["fingerprints"],
            shards=tuple(Shard(**shard) for shard in data["shards"]),
            complete=data["complete"],
        )
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path} is not as it was written ({error}): label again") from error


class LabelStore:
    """A finished store, read by id in any order.

    Opening compares fingerprints and file sizes; a shard's checksum is verified when it is first
    read, so that a flipped byte is found before it teaches anything.
    """

    def __init__(self, folder: Path, *, expect: Mapping[str, str] | None = None) -> None:
        """Open a store.

        Raises:
            StoreError: unfinished, damaged, or made for something else than `expect` says.
        """
        self.folder = folder
        self.manifest = read_manifest(folder)
        if not self.manifest.complete:
            raise StoreError(f"{folder} is not finished: run the same command again, it goes on")
        _compare(folder, self.manifest.fingerprints, expect or {})
        for shard in self.manifest.shards:
            _check_size(folder, shard)
        self._maps: dict[int, dict[str, NDArray[Any]]] = {}
        self._index: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def offers(self) -> frozenset[str]:
        """The names of the knowledge in it."""
        return frozenset(self.manifest.fields)

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.manifest.shards)

    def verify(self) -> None:
        """Read everything once and compare checksums.

        Raises:
            StoreError: a shard is not what was written.
        """
        for number in range(len(self.manifest.shards)):
            self._shard(number)

    def read(
        self, ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"] | None = None
    ) -> Knowledge:
        """The stored knowledge of these rows, `[batch, ...]` per field, in their order.

        Raises:
            StoreError: a row was never labelled, or not in this view.
        """
        wanted = ids.numpy()
        if views is not None and bool((views != 0).any()):
            raise StoreError(
                f"{self.folder} holds view 0 of each row, but another view was asked for: "
                "random views need `labels: {use: live}`"
            )
        known, shards, rows = self._positions()
        at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        absent = wanted[known[at] != wanted] if len(known) else wanted
        if len(absent):
            raise StoreError(
                f"{len(absent)} rows were never labelled in {self.folder} (ids "
                f"{', '.join(map(str, absent[:5]))}): label again with these rows"
            )
        return Knowledge(
            fields={n: self._gather(n, shards[at], rows[at]) for n in sorted(self.offers)}
        )

    def _gather(self, name: str, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
        shape = tuple(self.manifest.fields[name]["shape"])
        result = np.empty((len(rows), *shape), dtype=np.float32)
        for number in np.unique(shards):
            here = shards == number
            result[here] = self._shard(int(number))[name][rows[here]]
        return torch.from_numpy(result)

    def _positions(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        if self._index is None:
            ids = [self._shard(n)["ids"] for n in range(len(self.manifest.shards))]
            every = np.concatenate([*ids, np.empty(0, np.int64)])
            order = np.argsort(every, kind="stable")
            shard = np.repeat(np.arange(len(ids)), [len(i) for i in ids])
            row = np.concatenate([*(np.arange(len(i)) for i in ids), np.empty(0, np.int64)])
            self._index = (every[order], shard[order].astype(np.int64), row[order].astype(np.int64))
        return self._index

    def _shard(self, number: int) -> dict[str, NDArray[Any]]:
        if number not in self._maps:
            shard = self.manifest.shards[number]
            path = self.folder / shard.file
            _check_size(self.folder, shard)
            if file_checksum(path) != shard.sha256:
                raise StoreError(
                    f"{path} is damaged: its checksum is not the manifest's. Delete the folder "
                    f"{self.folder} and run the same command again, only the labels are remade"
                )
            self._maps[number] = map_tensors(path)
        return self._maps[number]


def _check_size(folder: Path, shard: Shard) -> None:
    path = folder / shard.file
    size = path.stat().st_size if path.is_file() else None
    if size == shard.bytes:
        return
    state = "is missing" if size is None else f"has {size} bytes instead of {shard.bytes}"
    raise StoreError(
        f"{path} {state}: delete the folder {folder} and run the same command again, "
        "only the labels are remade"
    )


def _compare(folder: Path, found: Mapping[str, str], expect: Mapping[str, str]) -> None:
    other = [
        f"{name}: the store has {found.get(name, 'none')}, this run {expect[name]}"
        for name in sorted(expect)
        if found.get(name) != expect[name]
    ]
    if other:
        raise StoreError(
            f"{folder} was made for something else ({'; '.join(other)}): "
            f"delete the folder {folder} to label again, or use what it was made with"
        )
