"""Run by test_kills.py as a process of its own, to be killed: records a store.

The teacher is NumPy alone, a function of the id: what is tested is what a killed process leaves.

Arguments: the store's folder, seconds per batch, and optionally a moment as `name:count`; the
process then kills itself at that call of that name, as a power cut would: nothing is tidied up.
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
from understudy.labels.record import record

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


def batches(start: int):
    for first in range(start, ROWS, BATCH):
        ids = torch.arange(first, min(first + BATCH, ROWS))
        yield Batch(inputs=torch.zeros(len(ids), 1), ids=ids)


def die_at(moment: str) -> None:
    """Kill this process before the given call: of `write`, `fsync`, `rename` or `folder`."""
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

        def half(path: Path, content: bytes) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                original(path, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            original(path, content)

        folders._write_synced = half
    elif name == "fsync":
        os.fsync = dying(os.fsync)
    elif name == "rename":
        Path.replace = dying(Path.replace)
    elif name == "folder":
        folders._sync_folder = dying(folders._sync_folder)
    else:
        raise SystemExit(f"no such moment: {moment}")


def main(folder: str, seconds: str, moment: str = "") -> None:
    if moment:
        die_at(moment)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    record(
        teacher=FakeTeacher(float(seconds)),
        batches=batches,
        needs=frozenset({"logits"}),
        folder=Path(folder),
        fingerprints={"teacher": "fake"},
        shard_rows=SHARD,
    )


if __name__ == "__main__":
    # A parent that loads torch once and forks may call `main` itself.
    main(*sys.argv[1:])
