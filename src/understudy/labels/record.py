"""Ask a teacher once for every row and store what it says; go on where a killed run stopped."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from understudy.allocator import keep_freed_memory
from understudy.contracts import Teacher
from understudy.errors import StoreError
from understudy.folders import canonical
from understudy.labels.files import Header, read_tensor, to_pieces
from understudy.labels.index import Ids, build_index
from understudy.labels.manifest import (
    INDEX,
    MANIFEST,
    Field,
    Manifest,
    Shard,
    Shards,
    plan_of,
    same_plan,
)
from understudy.labels.place import LocalPlace, Place, header_at, manifest_at
from understudy.labels.portions import (
    Keep,
    OnBadRows,
    Order,
    Portions,
    shard_name,
    shard_pieces,
)

SHARD = re.compile(r"shard-\d{5,}\.safetensors")
OURS = re.compile(rf"{SHARD.pattern}|(?:constants-.*|index)\.safetensors")


@runtime_checkable
class Engine(Protocol):
    """Who writes shards. The recorder calls it once, with those that are missing."""

    def __call__(
        self, numbers: list[int], *, order: Order, place: Place, done: Callable[[int], None]
    ) -> None:
        """Write these shards into the place, in any order, and tell of each."""


class Serial:
    """One shard after the other, in this process."""

    def __init__(self, teacher: Teacher, portions: Portions) -> None:
        """Ask `teacher` for the batches of `portions`."""
        self._teacher, self._portions = teacher, portions

    def __call__(
        self, numbers: list[int], *, order: Order, place: Place, done: Callable[[int], None]
    ) -> None:
        """Write these shards."""
        for number in numbers:
            batches = self._portions.batches(number)
            content = shard_pieces(number, order=order, teacher=self._teacher, batches=batches)
            place.write(shard_name(number), content)
            done(number)


def record(
    *,
    engine: Engine,
    rows: tuple[int, ...],
    keep: Mapping[str, Keep],
    place: Place,
    fingerprints: Mapping[str, str],
    made: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_bad_rows: OnBadRows = "error",
    on_rows: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write what a teacher knows into a label store.

    Args:
        engine: who asks the teacher and writes the shards.
        rows: how many rows each shard has.
        keep: per field of the store, what of the teacher's knowledge and how.
        place: the store; one of the same plan goes on, one of another is refused and stays.
        fingerprints: what the labels are a function of.
        made: how they are made, where that may move last digits.
        seed: of codecs that draw.
        on_bad_rows: rows whose answer is not finite are an error, or left out.
        on_rows: called with the number of rows done, those of an earlier run included.

    Raises:
        StoreError: no rows, rows without ids, an id that stands twice, bad rows, or a place with
            shards that were made for something else.
        RunError: the disk is full, the place cannot be written, or somebody else is writing.
    """
    if not sum(rows):
        raise StoreError("there is no row to label: give the teacher at least one")
    keep_freed_memory()
    with place.lock() if isinstance(place, LocalPlace) else nullcontext():
        if isinstance(place, LocalPlace):
            place.sweep()
        cut: dict[str, Any] = {"rows": list(rows), "seed": seed, "on_bad_rows": on_bad_rows}
        shared = {name: _marks(kept.codec.constants) for name, kept in keep.items()}
        if any(shared.values()):
            cut["constants"] = {name: marks for name, marks in shared.items() if marks}
        fields = {
            name: Field(codec=kept.codec.kind, parameters=kept.codec.parameters)
            for name, kept in keep.items()
        }
        plan = plan_of(fields, fingerprints, made or {}, cut)
        order = Order(keep=keep, plan=plan, seed=seed, on_bad_rows=on_bad_rows)
        begun = Manifest(fields=fields, fingerprints=fingerprints, made=made or {}, plan=plan)
        # Whoever called looked before the lock was held: another one may have begun since.
        found = claimed(place)
        if found is not None:
            same_plan(place.name, found, begun)
        elif manifest_at(place) is None:
            _refuse_nameless(place, plan)
        begun = replace(begun, fields=_with_constants(place, keep, fields))
        missing = _missing(place, plan, len(rows))
        if missing and not (found is not None and found.complete):
            # A finished store stays one while a lost shard is made again, for whoever opens it:
            # its checksums still say what every file must be.
            _write_manifest(place, begun)
        left = set(missing)
        on_rows(_done(rows, left))

        def done(number: int) -> None:
            left.discard(number)
            on_rows(_done(rows, left))

        engine(missing, order=order, place=place, done=done)
        return _finish(place, begun, len(rows))


def claimed(place: Place) -> Manifest | None:
    """The manifest of a store in which something lies; None where there is none, or no shard yet.

    Raises:
        StoreError: it is of another format, or of a version that we do not know.
    """
    found = manifest_at(place)
    empty = found is None or not (found.complete or any(map(SHARD.fullmatch, place.files())))
    return None if empty else found


def _refuse_nameless(place: Place, plan: str) -> None:
    """Refuse a place whose manifest is gone, if a shard in it is of another store."""
    for file in filter(SHARD.fullmatch, place.files()):
        try:
            there = header_at(place, file).says.get("plan")
        except StoreError:
            continue  # nobody can read it any more
        if there != plan:
            raise StoreError(
                f"{place.name} has no {MANIFEST}, and its {file} was made for something else (plan "
                f"{there}, this run {plan}): run the command that made it, or name another place, "
                "or delete its shards to label again"
            )


def _marks(constants: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of what the rows of a field share."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()
        for name, part in sorted(constants.items())
    }


def _done(rows: tuple[int, ...], missing: set[int]) -> int:
    return sum(count for number, count in enumerate(rows) if number not in missing)


def _with_constants(
    place: Place, keep: Mapping[str, Keep], fields: Mapping[str, Field]
) -> dict[str, Field]:
    """The fields of the store, with what their codecs share written beside the shards."""
    found = dict(fields)
    for name, kept in keep.items():
        if kept.codec.constants:
            file = f"constants-{name}.safetensors"
            place.write(file, to_pieces(dict(kept.codec.constants), {"field": name}))
            constants = _entry(place, file, header_at(place, file), 0)
            found[name] = replace(fields[name], constants=constants)
    return found


def _missing(place: Place, plan: str, count: int) -> list[int]:
    """The shards that are not there, not of this plan, or not whole."""
    there = set(place.files())
    return [n for n in range(count) if not _is_whole(place, shard_name(n), plan, there)]


def _is_whole(place: Place, file: str, plan: str, there: set[str]) -> bool:
    if file not in there:
        return False
    try:
        header = header_at(place, file)
    except StoreError:
        return False
    if header.says.get("plan") != plan:
        return False
    return place.whole(file, header) if isinstance(place, LocalPlace) else True


def _finish(place: Place, begun: Manifest, count: int) -> Manifest:
    """Index and manifest of shards that are all there; other files of a store go."""
    headers = [header_at(place, shard_name(number)) for number in range(count)]
    foreign = [n for n, header in enumerate(headers) if header.says.get("plan") != begun.plan]
    if foreign:
        raise StoreError(
            f"somebody else wrote to {place.name} while it was made ({len(foreign)} shards are of "
            f"another plan, {shard_name(foreign[0])} first): one writer at a time, label again"
        )
    counts = [int(header.tensors["ids"]["shape"][0]) for header in headers]
    if not sum(counts):
        raise StoreError("no row is left: the teacher's answer was finite for none of them")
    tensors, span = build_index(lambda: _named(place, headers))
    place.write(INDEX, to_pieces(tensors, {"first_view": span[0]}))
    shards = [_entry(place, shard_name(n), header, counts[n]) for n, header in enumerate(headers)]
    said = [header.says for header in headers]
    known = {name for says in said for name in says["ragged"]}
    fields = {
        name: Field(
            codec=field.codec,
            parameters=field.parameters,
            shape=_shape(name, said),
            ragged=name in known,
            constants=field.constants,
        )
        for name, field in begun.fields.items()
    }
    manifest = Manifest(
        fields=fields,
        fingerprints=begun.fingerprints,
        made=begun.made,
        plan=begun.plan,
        shards=Shards.of(shards),
        views=span,
        skipped=sum(len(says["skipped"]) for says in said),
        index=_entry(place, INDEX, header_at(place, INDEX), 0),
        complete=True,
    )
    _remove_others(place, manifest)
    _write_manifest(place, manifest)
    return manifest


def _named(place: Place, headers: list[Header]) -> Iterator[tuple[Ids, Ids]]:
    """Ids and views, shard by shard; nothing else of them is read."""
    for number, header in enumerate(headers):
        with place.open(shard_name(number)) as file:
            yield read_tensor(file, header, "ids"), read_tensor(file, header, "views")


def _shape(name: str, said: list[Mapping[str, Any]]) -> tuple[int, ...]:
    shapes = {canonical(says["shapes"][name]): says["shapes"][name] for says in said}
    if len(shapes) > 1:
        raise StoreError(
            f"a teacher's {name} must have one shape, but it has {' and '.join(sorted(shapes))}: "
            "give sequences of different lengths as `Ragged`"
        )
    (shape,) = shapes.values()
    return tuple(shape)


def _entry(place: Place, file: str, header: Header, rows: int) -> Shard:
    return Shard(file=file, rows=rows, bytes=place.size(file), sha256=header.sha256)


def _write_manifest(place: Place, manifest: Manifest) -> None:
    place.write(MANIFEST, [(json.dumps(manifest.to_data(), indent=1) + "\n").encode()])


def _remove_others(place: Place, manifest: Manifest) -> None:
    """Remove what an earlier store left in this place."""
    known = {shard.file for shard in manifest.shards} | {INDEX, MANIFEST}
    known |= {f.constants.file for f in manifest.fields.values() if f.constants is not None}
    for file in place.files():
        # Only what a store itself writes: the folder may hold files of somebody else.
        if OURS.fullmatch(file) and file not in known:
            place.remove(file)
