"""What a store says of itself, in `manifest.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from understudy.errors import StoreError
from understudy.folders import fingerprint, read_json

FORMAT, VERSION = "understudy-labels", 2
MANIFEST = "manifest.json"
INDEX = "index.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One file of a store.

    Attributes:
        file: its name in the folder.
        rows: how many (id, view) pairs it holds.
        bytes: its size.
        sha256: of its header, which holds the checksum of everything behind it.
    """

    file: str
    rows: int
    bytes: int
    sha256: str

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return {n: getattr(self, n) for n in ("file", "rows", "bytes", "sha256")}


COLUMNS = ("file", "rows", "bytes", "sha256")


class Shards(Sequence[Shard]):
    """The files of a store in order, held column by column.

    A store of ten million rows has more than a thousand of them: as columns they are read in a
    moment, as objects they would wake the garbage collector.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Columns `file`, `rows`, `bytes` and `sha256`, all of one length.

        Raises:
            ValueError: they are not.
        """
        if len({len(columns[name]) for name in COLUMNS}) != 1:
            raise ValueError(f"{', '.join(COLUMNS)} must be equally long")
        self.columns = {name: columns[name] for name in COLUMNS}

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> "Shards":
        """From objects."""
        return cls({name: [getattr(shard, name) for shard in shards] for name in COLUMNS})

    @overload
    def __getitem__(self, number: int) -> Shard: ...
    @overload
    def __getitem__(self, number: slice) -> "Shards": ...
    def __getitem__(self, number: int | slice) -> "Shard | Shards":
        picked: dict[str, Any] = {name: column[number] for name, column in self.columns.items()}
        return Shards(picked) if isinstance(number, slice) else Shard(**picked)

    def __len__(self) -> int:
        return len(self.columns["file"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shards) and self.columns == other.columns

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One name of knowledge in a store.

    Attributes:
        codec: its `kind`.
        parameters: the codec's own.
        shape: of one position as it was encoded; empty until the store is complete.
        ragged: whether a row is a sequence of positions.
        constants: the file of arrays that all shards share, or None.
    """

    codec: str
    parameters: Mapping[str, Any]
    shape: tuple[int, ...] = ()
    ragged: bool = False
    constants: Shard | None = None

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "codec": self.codec,
            "parameters": dict(self.parameters),
            "shape": list(self.shape),
            "ragged": self.ragged,
            "constants": None if self.constants is None else self.constants.to_data(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a store says of itself.

    Attributes:
        fields: per name of knowledge how it is written.
        fingerprints: of whatever the labels are a function of: teacher, data, views, tokenizer...
        made: how they were made, which may move last digits: backend, batch size.
        plan: fingerprint of the above and of how the rows are cut into shards; every shard has it.
        shards: in order; all of them when `complete`, else none.
        views: first view number and how many there are per row.
        skipped: rows that were left out because the teacher's answer was not finite.
        index: the file that finds rows by id.
    """

    fields: Mapping[str, Field]
    fingerprints: Mapping[str, str]
    made: Mapping[str, Any] = field(default_factory=dict)
    plan: str = ""
    shards: Shards = field(default_factory=lambda: Shards.of(()))
    views: tuple[int, int] = (0, 1)
    skipped: int = 0
    index: Shard | None = None
    complete: bool = False

    @property
    def rows(self) -> int:
        """How many (id, view) pairs are stored."""
        return int(sum(self.shards.columns["rows"]))

    @property
    def bytes(self) -> int:
        """Size of all shards and constants, without index and manifest."""
        heads = [f.constants.bytes for f in self.fields.values() if f.constants is not None]
        return int(sum(self.shards.columns["bytes"])) + sum(heads)

    def to_data(self) -> dict[str, Any]:
        """Plain data, as it stands in `manifest.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "complete": self.complete,
            "temperature": 1,
            "fields": {name: entry.to_data() for name, entry in self.fields.items()},
            "fingerprints": dict(self.fingerprints),
            "made": dict(self.made),
            "plan": self.plan,
            "rows": self.rows,
            "views": {"first": self.views[0], "count": self.views[1]},
            "skipped": self.skipped,
            "index": None if self.index is None else self.index.to_data(),
            "shards": {name: list(column) for name, column in self.shards.columns.items()},
        }


def plan_of(
    fields: Mapping[str, Field],
    fingerprints: Mapping[str, str],
    made: Mapping[str, Any],
    cut: Mapping[str, Any],
) -> str:
    """The fingerprint that every shard of one store carries: whoever has it belongs to it."""
    how = {name: [f.codec, dict(f.parameters)] for name, f in fields.items()}
    return fingerprint([how, dict(fingerprints), dict(made), dict(cut)])


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        StoreError: there is none, it is of another format, or of a version we do not know.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(f"{folder} is no label store: it has no {MANIFEST}. Label again")
    return parse(read_json(path), path=str(path))


def parse(data: Any, *, path: str) -> Manifest:
    """What `manifest.json` holds, as a manifest.

    Raises:
        StoreError: it is of another format, or of a version that we do not know.
    """
    found = data.get("format") if isinstance(data, dict) else data
    if found != FORMAT:
        raise StoreError(
            f"{path} must say format {FORMAT!r}, but says {found!r}: name a label store"
        )
    if data.get("version") != VERSION:
        raise StoreError(
            f"{path} has version {data.get('version')}, but this Understudy reads version "
            f"{VERSION}: use the Understudy that wrote it, or delete the store to label again"
        )
    if data.get("temperature") != 1:
        raise StoreError(
            f"{path} must hold answers at temperature 1, but says {data.get('temperature')!r}: a "
            "loss has its own temperature, so store what the teacher says as it is"
        )
    try:
        return Manifest(
            fields={name: _field(entry) for name, entry in data["fields"].items()},
            fingerprints=data["fingerprints"],
            made=data["made"],
            plan=data["plan"],
            shards=Shards(data["shards"]),
            views=(data["views"]["first"], data["views"]["count"]),
            skipped=data["skipped"],
            index=None if data["index"] is None else Shard(**data["index"]),
            complete=data["complete"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            f"{path} is not as it was written ({error}): delete it and label again, which uses "
            "the shards that are whole"
        ) from error


def entries(manifest: Manifest) -> dict[str, Shard]:
    """Every file of a store but its manifest, by name.

    Raises:
        StoreError: the manifest names a file that is not beside it.
    """
    found = [field.constants for field in manifest.fields.values()]
    found += [manifest.index, *manifest.shards]
    named = {entry.file: entry for entry in found if entry is not None}
    for file in named:
        if Path(file).name != file:
            raise StoreError(f"a store's files lie side by side, but the manifest names {file!r}")
    return named


def same_plan(name: str, found: Manifest, wanted: Manifest) -> None:
    """Refuse to go on with a store that was begun for something else, finished or not.

    Raises:
        StoreError: everything that differs, on both sides.
    """
    if found.plan == wanted.plan:
        return
    compare(name, found.fingerprints, wanted.fingerprints)
    told = [f"plan: the store has {found.plan}, this run {wanted.plan}"]
    for what, there, here in (
        ("codecs", _codecs(found), _codecs(wanted)),
        ("made", dict(found.made), dict(wanted.made)),
    ):
        if there != here:
            told.append(f"{what}: the store has {there}, this run {here}")
    if len(told) == 1:
        told.append("`labels.shard_rows`, `labels.on_bad_rows` or `data.seed` is another one")
    raise StoreError(
        f"{name} was begun for something else ({'; '.join(told)}): run the command that began it, "
        "it goes on; or name another `labels.store`; or delete the store to label again"
    )


def _codecs(manifest: Manifest) -> dict[str, Any]:
    return {name: [f.codec, dict(f.parameters)] for name, f in manifest.fields.items()}


def _field(entry: Mapping[str, Any]) -> Field:
    return Field(
        codec=entry["codec"],
        parameters=entry["parameters"],
        shape=tuple(entry["shape"]),
        ragged=entry["ragged"],
        constants=None if entry["constants"] is None else Shard(**entry["constants"]),
    )


def compare(folder: str, found: Mapping[str, str], expect: Mapping[str, str]) -> None:
    """Refuse a store that was made from something else.

    Raises:
        StoreError: every fingerprint that differs, on both sides.
    """
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
