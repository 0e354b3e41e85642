"""Where the files of a store are written: a local folder, or any place that fsspec knows."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from understudy.errors import StoreError
from understudy.folders import Lock, make_folder, write_atomic
from understudy.labels.files import Header, read_header, verify
from understudy.labels.manifest import MANIFEST, Manifest, parse


@runtime_checkable
class Place(Protocol):
    """A folder of whole files. The recorder calls it, and every worker of one."""

    @property
    def name(self) -> str:
        """What errors call it."""

    def write(self, file: str, pieces: Sequence[bytes | memoryview]) -> None:
        """Write a file so that a reader finds none, or the old one, or the whole new one."""

    def files(self) -> list[str]:
        """The names of the files in it."""

    def size(self, file: str) -> int:
        """Bytes of a file."""

    def open(self, file: str) -> BinaryIO:
        """A file to read from, at any position."""

    def remove(self, file: str) -> None:
        """Remove a file that may be there."""


class LocalPlace:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        """Create it where it is missing."""
        self.folder = make_folder(folder)

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.folder)

    def write(self, file: str, pieces: Sequence[bytes | memoryview]) -> None:
        """Atomically."""
        write_atomic(self.folder / file, pieces)

    def files(self) -> list[str]:
        """Names, sorted."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def size(self, file: str) -> int:
        """Bytes."""
        return (self.folder / file).stat().st_size

    def open(self, file: str) -> BinaryIO:
        """For reading."""
        return (self.folder / file).open("rb")

    def remove(self, file: str) -> None:
        """Where it is there."""
        (self.folder / file).unlink(missing_ok=True)

    def lock(self) -> Lock:
        """One writer at a time, any number of readers."""
        return Lock(self.folder)

    def sweep(self) -> None:
        """Remove what writers left when they were killed."""
        # Nobody else's: the folder may be one that somebody chose.
        for name in (".*.safetensors.*.part", ".manifest.json.*.part"):
            for part in self.folder.glob(name):
                with suppress(OSError):
                    part.unlink()

    def whole(self, file: str, header: Header) -> bool:
        """Whether everything behind a header is what was written."""
        return verify(self.folder / file, header)


def header_at(place: Place, file: str) -> Header:
    """The header of a shard in any place.

    Raises:
        StoreError: it is not whole.
    """
    with place.open(file) as opened:
        return read_header(opened, f"{place.name}/{file}", place.size(file))


def manifest_at(place: Place) -> Manifest | None:
    """The manifest of a store in any place, finished or not; None where there is none.

    Raises:
        StoreError: it is of another format, or of a version that we do not know.
    """
    if MANIFEST not in place.files():
        return None
    path = f"{place.name}/{MANIFEST}"
    with place.open(MANIFEST) as file:
        try:
            data = json.loads(file.read())
        except ValueError as error:
            raise StoreError(
                f"{path} cannot be read ({error}): delete it and label again, which uses the "
                "shards that are whole"
            ) from error
    return parse(data, path=path)
