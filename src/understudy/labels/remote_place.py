"""A store that is not on this machine: any folder that fsspec can name, and bringing it here."""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import fsspec

from understudy.errors import RunError, StoreError
from understudy.folders import write_with
from understudy.labels.files import open_header, verify
from understudy.labels.manifest import MANIFEST, Manifest, Shard, entries, read_manifest
from understudy.labels.place import LocalPlace, Place

# What is read from afar is headers, and tensors that are asked for whole. File systems read ahead
# for somebody who reads everything: fifty million bytes at a time, if it is Amazon's.
READ_AHEAD = 1 << 16


def open_place(address: str) -> Place:
    """The place of a path on this machine, or of a URL such as `s3://bucket/labels`.

    Raises:
        StoreError: no installed library knows this kind of URL.
        RunError: a folder on this machine cannot be made.
    """
    return RemotePlace(address) if "://" in address else LocalPlace(Path(address))


class RemotePlace:
    """A folder behind a URL that fsspec knows: `s3://`, `gs://`, `sftp://`, `file://`, `memory://`.

    It travels to workers. Nothing locks it: one `record` at a time is the caller's promise, though
    two of the same plan would only do the same work twice.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        """Name a folder; it is created with the first file.

        Args:
            url: of the folder, without `*`, `?` and `[`.
            options: of the file system, as fsspec calls its `storage_options`. Better leave keys
                to the environment.

        Raises:
            StoreError: no installed library knows this kind of URL.
        """
        if set(url) & set("*?["):
            raise StoreError(
                f"a store's URL names one folder, but {url} has `*`, `?` or `[`: rename the folder"
            )
        try:
            self._system, folder = fsspec.core.url_to_fs(url, **(options or {}))
        except (ImportError, ValueError) as error:
            raise StoreError(f"the store {url} cannot be opened: {error}") from error
        self._folder = str(folder).rstrip("/")
        self.url = str(self._system.unstrip_protocol(self._folder))
        self._made = False

    @property
    def name(self) -> str:
        """Its URL."""
        return self.url

    def write(self, file: str, pieces: Sequence[bytes | memoryview]) -> None:
        """Under another name, and then moved.

        Raises:
            RunError: it cannot be written; nothing is left behind.
        """
        part = self._path(f".{file}.{uuid4().hex}.part")
        with self._told("written", file):
            # A path that begins with a bucket needs no folder, and a misspelt bucket no making.
            if not self._made and self._folder.startswith("/"):
                self._system.makedirs(self._folder, exist_ok=True)
            self._made = True
            try:
                with self._system.open(part, "wb") as opened:
                    for piece in pieces:
                        opened.write(piece)
                self._system.mv(part, self._path(file))
            except BaseException:
                with suppress(OSError):
                    self._system.rm_file(part)
                raise

    def files(self) -> list[str]:
        """Names of whole files, sorted."""
        return sorted(name for name in self._names() if not _is_part(name))

    def size(self, file: str) -> int:
        """Bytes.

        Raises:
            StoreError: it is not there.
        """
        self._system.invalidate_cache()
        with self._told("read", file):
            return int(self._system.info(self._path(file))["size"])

    def open(self, file: str) -> BinaryIO:
        """For reading. Nothing is sent before the first byte is asked for.

        Raises:
            StoreError: at the first reading: it is not there.
        """
        return io.BufferedReader(_Far(self, file), READ_AHEAD)

    def part(self, file: str, start: int, stop: int) -> bytes:
        """Bytes of a file, and no other travel.

        Raises:
            StoreError: it is not there.
        """
        with self._told("read", file):
            return bytes(self._system.cat_file(self._path(file), start=start, end=stop))

    def copy(self, file: str, path: Path) -> None:
        """Bring a file here, piece by piece.

        Raises:
            StoreError: it is not there.
            OSError: the disk here is full.
        """
        with self._told("read", file):
            self._system.get_file(self._path(file), str(path))

    def remove(self, file: str) -> None:
        """Where it is there."""
        with self._told("removed", file), suppress(FileNotFoundError):
            self._system.rm_file(self._path(file))

    def sweep(self) -> None:
        """Remove what writers left when they were killed; nobody may be writing."""
        for name in filter(_is_part, self._names()):
            self.remove(name)

    def _names(self) -> list[str]:
        # Workers write too, so what was listed before is worth nothing.
        self._system.invalidate_cache()
        found: list[dict[str, Any]] = []
        # An object store has no empty folders.
        with self._told("read"), suppress(FileNotFoundError):
            found = self._system.ls(self._folder, detail=True)
        return [str(entry["name"]).rpartition("/")[2] for entry in found if entry["type"] == "file"]

    def _path(self, file: str) -> str:
        return f"{self._folder}/{file}"

    @contextmanager
    def _told(self, done: str, file: str = "") -> Iterator[None]:
        """What a file system raises, as an error that says what was to be done where."""
        where = f"{self.url}/{file}".rstrip("/")
        try:
            yield
        # Clouds raise what they like: some of it is no OSError.
        except Exception as error:
            if isinstance(error, OSError) and error.errno == ENOSPC and done == "read":
                raise
            if isinstance(error, FileNotFoundError) and done == "read":
                raise StoreError(f"{where} is missing: label again") from error
            raise RunError(
                f"{where} cannot be {done} ({error}): check the address, your rights and the "
                "connection, and run the same command again, it goes on"
            ) from error


class _Far(io.RawIOBase):
    """A file that is read range by range."""

    mode = "rb"

    def __init__(self, place: RemotePlace, file: str) -> None:
        self._place, self.name, self._at = place, file, 0

    def readable(self) -> bool:
        """Nothing else."""
        return True

    def seekable(self) -> bool:
        """To any byte."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Nothing is sent for it, unless it counts from the end."""
        known = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}
        self._at = offset + (known[whence] if whence in known else self._place.size(self.name))
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there are and as fit."""
        try:
            content = self._place.part(self.name, self._at, self._at + len(buffer))
        except RunError:
            # Behind a file's end some answer with nothing and some with an error. To know where it
            # ends costs a request, so it is asked for now only.
            if self._at < self._place.size(self.name):
                raise
            content = b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def fetch(
    url: str,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Copy a finished store into a local folder, where `LabelStore` maps it.

    Every file is verified as it comes. What is already there and whole is not copied again, so a
    copy that was stopped goes on. The manifest comes last: until then there is no store.

    Args:
        url: of the store.
        folder: where it goes; another store's shards in it are removed.
        options: of the file system, see `RemotePlace`.
        on_bytes: called with the number of bytes that are here.

    Raises:
        StoreError: there is no finished store, or a file of it is damaged.
        RunError: the store cannot be reached, the disk is full, or somebody is writing there.
    """
    place, here = RemotePlace(url, options=options), LocalPlace(folder)
    with here.lock():
        here.sweep()
        manifest = _remote_manifest(place)
        known = entries(manifest)
        for file in here.files():
            if file == MANIFEST or (file.endswith(".safetensors") and file not in known):
                here.remove(file)
        arrived = 0
        for file, entry in known.items():
            if not _is_whole(folder / file, entry):
                _copy(place, folder / file, entry)
            arrived += entry.bytes
            on_bytes(arrived)
        write_with(folder / MANIFEST, lambda part: place.copy(MANIFEST, part))
    return manifest


def _remote_manifest(place: RemotePlace) -> Manifest:
    """The manifest of a finished store; what is wrong with it is told of the URL."""
    with tempfile.TemporaryDirectory() as text:
        if MANIFEST in place.files():
            place.copy(MANIFEST, Path(text) / MANIFEST)
        try:
            manifest = read_manifest(Path(text))
        except (StoreError, RunError) as error:
            raise StoreError(str(error).replace(text, place.url)) from error
    if not manifest.complete:
        raise StoreError(
            f"{place.url} is not finished: run the command that labels again, it goes on"
        )
    return manifest


def _is_whole(path: Path, entry: Shard) -> bool:
    if not path.is_file() or path.stat().st_size != entry.bytes:
        return False
    try:
        header = open_header(path)
    except StoreError:
        return False
    return header.sha256 == entry.sha256 and verify(path, header)


def _copy(place: RemotePlace, path: Path, entry: Shard) -> None:
    def write(part: Path) -> None:
        place.copy(path.name, part)
        if not _is_whole(part, entry):
            raise StoreError(
                f"{place.url}/{path.name} is damaged: its checksum is not the manifest's. Delete "
                "this file and run the command that labels again, only what is missing is remade"
            )

    write_with(path, write)
