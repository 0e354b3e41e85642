"""A label store: `manifest.json` beside safetensors shards, addressed by (example id, view).

The manifest carries the fingerprints of what the labels were made from. A store that was made
for something else is an error that names both sides, never a silent use of stale labels.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import STATES, Knowledge, Outcomes, Ragged, Told
from understudy.errors import StoreError
from understudy.labels import codecs
from understudy.labels.codecs.form import Codec, Parts
from understudy.labels.codecs.hidden import state_codec
from understudy.labels.files import Header, Tensors, map_tensors, open_header, verify
from understudy.labels.index import Index
from understudy.labels.layout import Places, expand, gather, group
from understudy.labels.manifest import Field, Manifest, Shard, compare, read_manifest

__all__ = ["LabelStore", "Manifest", "Shard", "read_manifest"]


class LabelStore:
    """A finished store, read by id in any order.

    Opening reads the manifest and nothing else. A shard's checksum is verified when it is first
    read, so that a flipped byte is found before it teaches anything. Any number of processes may
    read at once; one that is forked or sent to a worker maps the files for itself.
    """

    def __init__(
        self, folder: Path | str, *, expect: Mapping[str, str] | None = None, states: bool = False
    ) -> None:
        """Open a store.

        Args:
            folder: with its `manifest.json`.
            expect: fingerprints that it must have.
            states: tell the `states` of a field of codec `hidden`, whose head is at hand, instead
                of the logits that its own head makes of them.

        Raises:
            StoreError: unfinished, of another version, or made for something else than `expect`
                says.
        """
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if not self.manifest.complete:
            raise StoreError(f"{folder} is not finished: run the same command again, it goes on")
        compare(str(folder), self.manifest.fingerprints, expect or {})
        self._states = states
        self._maps: dict[int, Tensors] = {}

    def __getstate__(self) -> dict[str, object]:
        # Maps and open codecs do not travel to another process; they are made there again.
        kept = {"folder": self.folder, "manifest": self.manifest, "_states": self._states}
        return {**kept, "_maps": {}}

    @property
    def offers(self) -> frozenset[str]:
        """The names of the knowledge in it."""
        return frozenset(self._stored)

    @property
    def listed(self) -> frozenset[str]:
        """The names that are told by some of their outcomes instead of in full."""
        return frozenset(name for name, (codec, _) in self._codecs.items() if codec.listed)

    @property
    def views(self) -> range:
        """The views of each row."""
        first, count = self.manifest.views
        return range(first, first + count)

    def __len__(self) -> int:
        return self.manifest.rows

    def ids(self) -> NDArray[np.int64]:
        """The ids that can be read in every view, sorted."""
        return self._index.whole()

    def verify(self) -> None:
        """Read everything once and compare checksums.

        Raises:
            StoreError: something is not what was written.
        """
        entries = [f.constants for f in self.manifest.fields.values() if f.constants is not None]
        if self.manifest.index is not None:
            entries.append(self.manifest.index)
        for entry in entries:
            self._checked(entry)
        for number in range(len(self.manifest.shards)):
            self._shard(number)

    def read(
        self, ids: Int64[Tensor, " *ids"], views: Int64[Tensor, " *views"] | None = None
    ) -> Knowledge:
        """The stored knowledge of these rows, in their order.

        Args:
            ids: which examples, `[batch]`.
            views: which view of each, `[batch]`; None means the first that is stored.

        Returns:
            Per field `[batch, ...]` float32, `Outcomes` where its codec lists some only, or
            `Ragged` where rows are sequences.

        Raises:
            StoreError: a row was never labelled, or not in this view, a file is damaged, or there
                are other ids than views.
        """
        if ids.ndim != 1 or (views is not None and views.shape != ids.shape):
            told = "none" if views is None else str(tuple(views.shape))
            raise StoreError(
                "a store is read by ids `[batch]` and as many views, but got ids "
                f"{tuple(ids.shape)} and views {told}: give one view for each id, or none"
            )
        wanted = ids.numpy()
        rows = self._index.find(wanted, None if views is None else views.numpy())
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        places = group(shards, rows - self._starts[shards])
        maps = {number: self._shard(number) for number, _, _ in places.groups}
        shown = np.full(len(rows), self.views[0]) if views is None else views.numpy()
        for number, asked, at in places.groups:
            # The index is mapped and not summed up: what it leads to must be what was asked for.
            right = np.array_equal(maps[number]["ids"][at], wanted[asked])
            if not right or not np.array_equal(maps[number]["views"][at], shown[asked]):
                assert self.manifest.index is not None  # or there were no index
                damaged = self.folder / self.manifest.index.file
                raise StoreError(
                    f"the index of {self.folder} is damaged: delete {damaged} and label again, "
                    "which makes no new labels where these are whole"
                )
        return Knowledge(fields={n: self._field(n, maps, places) for n in sorted(self.offers)})

    def _field(self, name: str, maps: Mapping[int, Tensors], places: Places) -> Told:
        stored = self._stored[name]
        entry = self.manifest.fields[stored]
        codec, names = self._codecs[name]
        if not entry.ragged:
            return codec.decode(gather(stored, maps, places, names), shape=entry.shape)
        places, lengths = expand(stored, maps, places)
        values: Tensor | Outcomes = codec.decode(
            gather(stored, maps, places, names), shape=entry.shape
        )
        return Ragged(values=values, lengths=torch.from_numpy(lengths))

    @cached_property
    def _index(self) -> Index:
        if self.manifest.index is None:
            raise StoreError(f"{self.folder} has no index: label again")
        return Index.open(self.folder, self.manifest.index, views=self.manifest.views)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first row of every shard."""
        rows = np.array(self.manifest.shards.columns["rows"], np.int64)
        return np.cumsum(rows) - rows

    @cached_property
    def _stored(self) -> dict[str, str]:
        """Per name of knowledge the field that it is read from."""
        fields = self.manifest.fields
        bare = {name for name in fields if self._states and fields[name].codec == "hidden"}
        return {STATES if name in bare else name: name for name in fields}

    @cached_property
    def _codecs(self) -> dict[str, tuple[Codec, Parts]]:
        """Per name its codec, and what its parts are called and typed."""
        made: dict[str, tuple[Codec, Parts]] = {}
        for name, stored in self._stored.items():
            entry = self.manifest.fields[stored]
            if name != stored:  # the state alone: a large head need not be read for it
                codec = state_codec(precision=entry.parameters["precision"])
            else:
                codec = codecs.make(entry.codec, entry.parameters, self._constants(entry))
            made[name] = (codec, codec.encode(np.zeros((0, *entry.shape), np.float32)))
        return made

    def _constants(self, entry: Field) -> Tensors:
        if entry.constants is None:
            return {}
        header = self._checked(entry.constants)
        return map_tensors(self.folder / entry.constants.file, header)

    def _shard(self, number: int) -> Tensors:
        if number not in self._maps:
            entry = self.manifest.shards[number]
            header = self._checked(entry)
            self._maps[number] = map_tensors(self.folder / entry.file, header)
        return self._maps[number]

    def _checked(self, entry: Shard) -> Header:
        path = self.folder / entry.file
        size = path.stat().st_size if path.is_file() else None
        if size != entry.bytes:
            state = "is missing" if size is None else f"has {size} bytes instead of {entry.bytes}"
            raise StoreError(
                f"{path} {state}: run the command that labels again, it remakes this file alone"
            )
        try:
            header = open_header(path)
            whole = header.sha256 == entry.sha256 and verify(path, header)
        except StoreError:
            whole = False
        if not whole:
            raise StoreError(
                f"{path} is damaged: its checksum is not the manifest's. Delete this file and run "
                "the command that labels again, only what is missing is remade"
            )
        return header
