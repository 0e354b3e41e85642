"""What earlier sessions of a teacher pass left: their seconds, and shards that are still whole."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from understudy.errors import RunError
from understudy.folders import STAGE_FILE, read_json, write_atomic, write_json
from understudy.labels.manifest import MANIFEST
from understudy.pipeline.work import Work

SPENT = "teacher-pass.json"
# A note is a file that is brought to the disk: shards may be smaller than that is worth.
EVERY = 1.0


class Spent:
    """Seconds in a file of the run.

    They do not stand in the store: its bytes must be the same whoever was interrupted, and another
    run that shares it has spent nothing.
    """

    def __init__(self, file: Path, mark: str) -> None:
        """Name the file.

        Args:
            file: in the run's folder.
            mark: what the time is spent on; a file with another mark counts nothing.
        """
        self._file, self._mark = file, mark
        self._here: float | None = None

    @property
    def seconds(self) -> float:
        """Of all sessions so far, as far as they were noted."""
        if self._here is not None:
            return self._here
        try:
            found = read_json(self._file)
            return float(found["seconds"]) if found["mark"] == self._mark else 0.0
        except (RunError, KeyError, TypeError, ValueError):
            return 0.0

    def note(self, seconds: float) -> None:
        """Write down the seconds of all sessions."""
        self._here = seconds
        # A number for the report is no reason to lose a pass, or to hide why one has failed.
        with suppress(RunError):
            write_json(self._file, {"mark": self._mark, "seconds": seconds})

    @contextmanager
    def session(self, *, anew: bool) -> Iterator[Callable[[], None]]:
        """Count while a block runs; it calls what it is given now and then, in case it is killed.

        Args:
            anew: whether earlier sessions left nothing to go on with, and count no more.
        """
        before = 0.0 if anew else self.seconds
        started = noted = time.monotonic()

        def now() -> None:
            nonlocal noted
            if time.monotonic() - noted >= EVERY:
                noted = time.monotonic()
                self.note(before + noted - started)

        try:
            yield now
        finally:
            self.note(before + time.monotonic() - started)


def take_over(work: Work, folder: Path, spent: Spent) -> None:
    """Begin with what is left of a finished stage that has lost a file: the rest is not remade.

    Args:
        work: the run.
        folder: where its stage `labels` is built.
        spent: gets the seconds of the finished stage.
    """
    old = work.folder / "labels"
    if (folder / MANIFEST).is_file() or not (old / MANIFEST).is_file():
        return
    try:
        state = read_json(old / STAGE_FILE)
        if state["fingerprint"] != work.stages["labels"]:
            return
        seconds = float(state["summary"]["seconds"])
    except (RunError, KeyError, TypeError):
        return
    work.progress.say("labels: what is whole of them is kept")
    for path in sorted(old.glob("*.safetensors")):
        # What a session that was killed here had linked or half copied.
        (folder / path.name).unlink(missing_ok=True)
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)
    spent.note(seconds)
    # Last: without it, whoever comes after a kill begins here again.
    write_atomic(folder / MANIFEST, (old / MANIFEST).read_bytes())
