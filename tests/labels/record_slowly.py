"""Run by test_kills.py: records stores in processes of their own, which are to be killed.

The teacher is NumPy alone, a function of the id: what is tested is what a killed process leaves.

Every line of its input is a recording, `folder|seconds per batch|moment`. The moment may be empty;
`after:0.1`, when the recording is killed after so many seconds; or `rename:3`, when it kills itself
at its third call of that name. Nothing is tidied up either way.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from understudy import folders
from understudy.contracts import Batch, Knowledge
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record

ROWS, BATCH, SHARD = 240, 8, 16


class FakeTeacher:
    """Takes its time."""

    offers = frozenset({"logits"})

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: Batch) -> Knowledge:
        time.sleep(self.seconds)
        ids = batch.ids.numpy().astype(np.float64)
        return Knowledge(fields={"logits": torch.tensor(np.stack([np.sin(ids), ids], axis=1))})


def batches(start: int, stop: int):
    for first in range(start, stop, BATCH):
        ids = torch.arange(first, min(first + BATCH, stop))
        yield Batch(inputs=torch.zeros(len(ids), 1), ids=ids)


def die_at(moment: str) -> None:
    """Kill this process half-way through a write, or before an fsync, a rename, a folder's sync."""
    name, _, count = moment.partition(":")
    left = int(count)

    def dying(original):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    if name == "half":
        # In the middle of a write: the first half of the bytes are on their way to the disk.
        original = folders._write_synced

        def half(path: Path, pieces: list) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                content = b"".join(pieces)
                original(path, [content[: len(content) // 2]])
                os.kill(os.getpid(), signal.SIGKILL)
            original(path, pieces)

        folders._write_synced = half
    elif name == "fsync":
        os.fsync = dying(os.fsync)
    elif name == "rename":
        Path.replace = dying(Path.replace)
    elif name == "folder":
        folders._sync_folder = dying(folders._sync_folder)
    else:
        raise SystemExit(f"no such moment: {moment}")


def main(folder: str, seconds: str, moment: str) -> None:
    if moment and not moment.startswith("after:"):
        die_at(moment)
    portions = cut(batches, rows=ROWS, batch_size=BATCH, shard_rows=SHARD)
    record(
        engine=Serial(FakeTeacher(float(seconds)), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")},
        place=LocalPlace(Path(folder)),
        fingerprints={"teacher": "fake"},
    )


def nurse() -> None:
    """Record in a fork for every line of arguments, and say how each ended."""
    for line in sys.stdin:
        arguments = line.strip("\n").split("|")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                main(*arguments)
                code = 0
            finally:
                os._exit(code)
        name, _, seconds = arguments[2].partition(":")
        if name == "after":
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    nurse()
