"""A store outside the run (`labels.store`): used where it fits, gone on with, never replaced."""

from collections.abc import Callable, Mapping
from pathlib import Path

from understudy.errors import RunError, StoreError
from understudy.labels.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    compare,
    entries,
    read_manifest,
)
from understudy.labels.place import Place, header_at
from understudy.labels.portions import Keep
from understudy.labels.record import claimed
from understudy.labels.remote_place import fetch, open_place
from understudy.pipeline.work import Work


def shared_store(
    work: Work,
    keep: Mapping[str, Keep],
    marks: Mapping[str, str],
    write: Callable[[Place], None],
) -> Path:
    """The folder of the store that `labels.store` names; where it is not whole, it is gone on with.

    One behind a URL is copied into the run, where it can be mapped.

    Args:
        work: the run.
        keep: what must be in it, and how.
        marks: what it must have been made from.
        write: makes it in its place, or goes on with it.

    Raises:
        StoreError: it was made for something else; it is never replaced.
    """
    address = str(work.recipe.labels.store)
    remote = "://" in address
    folder = work.folder / "labels" if remote else work.place.resolve(address)
    if work.crew.leads:
        place = open_place(address if remote else str(folder))
        found = claimed(place)
        if found is not None:
            compare(place.name, found.fingerprints, marks)
            _same_codecs(place.name, found, keep)
        if found is None or not (remote and _is_copy(folder, found)):
            if found is None or not found.complete or not _there(place, found):
                write(place)
            if remote:
                fetch(address, folder)
    work.crew.wait()
    return folder


def _same_codecs(name: str, found: Manifest, keep: Mapping[str, Keep]) -> None:
    """Refuse a store that is written otherwise than this recipe says.

    Raises:
        StoreError: a field that is not there, or in another codec.
    """
    for field, kept in keep.items():
        there = found.fields.get(field)
        wanted = (kept.codec.kind, dict(kept.codec.parameters))
        has = None if there is None else (there.codec, dict(there.parameters))
        if has is None and found.complete:
            raise StoreError(
                f"{name} holds the teacher's {', '.join(sorted(found.fields))}, but not {field}: "
                "name another `labels.store`, or take the term out that reads it"
            )
        if has != wanted:
            told = "none" if has is None else f"codec {has[0]} {has[1]}"
            raise StoreError(
                f"{name} was made for something else ({field}: the store has {told}, this run "
                f"codec {wanted[0]} {wanted[1]}): set `labels.codec` to what it has, or name "
                "another `labels.store`"
            )


def _there(place: Place, found: Manifest) -> bool:
    """Whether all files are the manifest's, by size and header; those that are not are remade."""
    files = set(place.files())
    return all(
        name in files and place.size(name) == entry.bytes and _begins(place, name, entry)
        for name, entry in entries(found).items()
    )


def _begins(place: Place, name: str, entry: Shard) -> bool:
    """Whether a file's header, which holds the checksum of what is behind it, is the manifest's.

    One that was made again may be whole and another one: in its last digits, elsewhere.
    """
    try:
        return header_at(place, name).sha256 == entry.sha256
    except StoreError:
        return False


def _is_copy(folder: Path, found: Manifest) -> bool:
    """Whether a finished store lies here already, by its manifest and the sizes of its files."""
    if not found.complete or not (folder / MANIFEST).is_file():
        return False
    try:
        same = read_manifest(folder) == found
    except (StoreError, RunError):
        return False  # whatever it is, it is fetched again
    paths = {folder / name: entry.bytes for name, entry in entries(found).items()}
    return same and all(p.is_file() and p.stat().st_size == size for p, size in paths.items())
