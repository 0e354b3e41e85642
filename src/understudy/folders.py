"""A folder that is written atomically, locked, fingerprinted and resumed.

Every stage of a run and the label store stand on this room. A stage is built in
`RUN/.work/NAME` and moved to `RUN/NAME` when it is whole, so that a run that fails or is killed
never harms what an earlier one had finished.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from types import TracebackType
from typing import Any

from understudy.errors import RunError

STAGE_FILE = "stage.json"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def fingerprint(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str | Sequence[bytes | memoryview]) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Pieces are written one after the other.

    Raises:
        RunError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    whole = data.encode() if isinstance(data, str) else data
    pieces = [whole] if isinstance(whole, bytes) else whole
    write_with(path, lambda part: _write_synced(part, pieces))


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """As `write_atomic`, for writers that want a path: `write` gets a temporary one beside it."""
    # Processes of two machines that share a folder may have the same number.
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        write(part)
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(_explain(error, path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what writers left in a folder when they were killed; nobody may be writing there."""
    for part in folder.rglob(".*.part"):
        with suppress(OSError):
            part.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        RunError: it is missing or not whole.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({error}): delete it, and run the stage that writes it again"
        ) from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        RunError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(_explain(error, path)) from error
    return path


def _write_synced(path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()


def _sync_folder(path: Path) -> None:
    # Without this a rename can be lost with the power although the file itself is on the disk.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, path: Path) -> str:
    if error.errno in (ENOSPC, EDQUOT, EFBIG):
        return (
            f"the disk is full: {path} was not written, and what was written before is whole; "
            "free some space and run the same command again, it goes on from there"
        )
    return (
        f"{path} cannot be written ({error.strerror or error}): choose another place with --out "
        "(of a shared store, with `labels.store`)"
    )


class Lock:
    """One process at a time in a folder; the next one is told who holds it.

    The lock is the operating system's (flock), so it goes with its process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self._path = make_folder(folder) / ".lock"
        self._descriptor: int | None = None

    def __enter__(self) -> "Lock":
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(_explain(error, self._path)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise RunError(
                f"one process at a time may work in a run folder, but {self._path.parent} is held "
                f"by {holder}: wait for it, stop it, or choose another folder with --out"
            ) from error
        self._descriptor = descriptor
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        # A courtesy to the next one: on a full disk it is locked all the same.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder.encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage's folder in a run.

    Attributes:
        run: the run's folder.
        name: the stage's name, and its folder's.
        depends: everything its result is a function of; its fingerprint decides whether a
            finished stage is still good and an unfinished one may go on.
    """

    run: Path
    name: str
    depends: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Where the finished stage lies."""
        return self.run / self.name

    @property
    def work(self) -> Path:
        """Where it is built."""
        return self.run / ".work" / self.name

    @property
    def fingerprint(self) -> str:
        """The fingerprint of what it depends on."""
        return fingerprint(self.depends)

    def done(self) -> bool:
        """Whether it is finished, for these very inputs, with all its files still there."""
        self._recover()
        state = _state(self.path)
        files = state.get("files")
        return (
            state.get("finished") is True
            and state.get("fingerprint") == self.fingerprint
            and isinstance(files, dict)
            and all(_size(self.path / name) == size for name, size in files.items())
        )

    def why_not(self) -> str | None:
        """Why an earlier result is not good any more; None where there is none."""
        state = _state(self.path)
        if not self.path.exists():
            return None
        if state.get("fingerprint") != self.fingerprint:
            return "what it depends on has changed"
        for name, size in state.get("files", {}).items():
            found = _size(self.path / name)
            if found != size:
                is_now = "is missing" if found < 0 else f"has {found} bytes instead of {size}"
                return f"{name} {is_now}"
        return "it is not whole"

    def summary(self) -> Any:
        """What the finished stage said of itself."""
        return read_json(self.path / STAGE_FILE)["summary"]

    def begin(self) -> Path:
        """The folder to build in: an interrupted one if its inputs are the same, else empty."""
        if _state(self.work).get("fingerprint") != self.fingerprint:
            shutil.rmtree(self.work, ignore_errors=True)
            make_folder(self.work)
            write_json(self.work / STAGE_FILE, self._record(finished=False))
        remove_parts(self.work)
        return self.work

    def finish(self, summary: Any, *, seconds: float) -> None:
        """Move the whole stage to its place; the one it replaces goes only then."""
        files = {
            str(path.relative_to(self.work)): path.stat().st_size
            for path in sorted(self.work.rglob("*"))
            if path.is_file() and path.name != STAGE_FILE
        }
        record = self._record(finished=True) | {
            "summary": summary, "files": files, "seconds": round(seconds, 3)
        }  # fmt: skip
        write_json(self.work / STAGE_FILE, record)
        self._swap()

    def _record(self, *, finished: bool) -> dict[str, Any]:
        return {
            "stage": self.name,
            "finished": finished,
            "fingerprint": self.fingerprint,
            "depends": dict(self.depends),
        }

    def _swap(self) -> None:
        old = self._old()
        shutil.rmtree(old, ignore_errors=True)
        make_folder(self.path.parent)
        if self.path.exists():
            self.path.rename(old)
        self.work.rename(self.path)
        _sync_folder(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _recover(self) -> None:
        # Killed between the two renames of `_swap`: the new folder is whole, or the old one is.
        if self.path.exists():
            shutil.rmtree(self._old(), ignore_errors=True)
        elif _state(self.work).get("finished") is True:
            self.work.rename(self.path)
        elif self._old().exists():
            self._old().rename(self.path)

    def _old(self) -> Path:
        return self.run / ".work" / f"{self.name}.old"


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / STAGE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
