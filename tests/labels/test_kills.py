"""A recording that is killed at any moment is right or unfinished, and goes on to the same bytes.

The processes are real and are killed with SIGKILL. They are forked from one that has loaded torch
already, or two hundred of them would spend the test loading it.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from understudy.errors import StoreError
from understudy.labels.store import LabelStore

SCRIPT = Path(__file__).with_name("record_slowly.py")
ROWS = 240
# What `write`s there are in a whole recording: the manifest twice, 15 shards, the index.
WRITES = 18


class Nursery:
    """Starts recordings, and waits for them."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def record(self, folder, seconds=0.0, moment=""):
        """How a recording ended: 0, or minus the signal."""
        self.process.stdin.write(f"{folder}|{seconds}|{moment}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def nursery():
    started = Nursery()
    yield started
    started.close()


@pytest.fixture(scope="module")
def expected(nursery, tmp_path_factory):
    """The bytes of a recording that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    assert nursery.record(folder) == 0
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def is_right_or_unfinished(folder, expected):
    """Whether the store is finished. What it has is right, and no other reader is let in."""
    try:
        store = LabelStore(folder)
    except StoreError as error:
        assert "not finished" in str(error) or "no label store" in str(error)  # noqa: PT017
        return False
    store.verify()
    ids = torch.arange(ROWS)
    assert torch.equal(store.read(ids)["logits"][:, 1], ids.float())
    whole = {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}
    assert whole == expected
    return True


def goes_on_to_the_same_bytes(nursery, folder, expected):
    assert nursery.record(folder) == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"} == expected


def kill_in_time(nursery, folder, expected, *, kills, seed):
    """Kill recordings at moments that are uniform over a whole one; how many were unfinished."""
    draw, seconds = random.Random(seed), 0.004
    whole = ROWS / 8 * seconds * 1.5
    unfinished = 0
    for number in range(kills):
        store = folder / str(number)
        moment = f"after:{draw.uniform(0, whole)}"
        assert nursery.record(store, seconds, moment) in (0, -signal.SIGKILL)
        unfinished += not is_right_or_unfinished(store, expected)
        goes_on_to_the_same_bytes(nursery, store, expected)
    return unfinished


def kill_at(nursery, folder, expected, moments):
    for moment in moments:
        store = folder / moment.replace(":", "-")
        assert nursery.record(store, moment=moment) == -signal.SIGKILL
        is_right_or_unfinished(store, expected)
        goes_on_to_the_same_bytes(nursery, store, expected)


def test_killed_at_random_moments(nursery, tmp_path, expected):
    assert kill_in_time(nursery, tmp_path, expected, kills=6, seed=1) >= 1


def test_killed_between_write_fsync_and_rename(nursery, tmp_path, expected):
    """The first, one in the middle, and the last of each kind."""
    moments = ["half:1", "half:8", f"half:{WRITES}", "fsync:1", "fsync:12", "rename:1",
               "rename:12", f"rename:{WRITES}", "folder:2", f"folder:{WRITES}"]  # fmt: skip
    kill_at(nursery, tmp_path, expected, moments)


def test_killed_again_and_again_it_arrives(nursery, tmp_path, expected):
    store = tmp_path / "store"
    for _ in range(6):  # two shards further each time, of 15: the manifest is written first
        assert nursery.record(store, moment="rename:4") == -signal.SIGKILL
        assert not is_right_or_unfinished(store, expected)
    goes_on_to_the_same_bytes(nursery, store, expected)


@pytest.mark.slow
def test_killed_two_hundred_times_at_random_moments(nursery, tmp_path, expected):
    assert kill_in_time(nursery, tmp_path, expected, kills=200, seed=2) >= 100


@pytest.mark.slow
def test_killed_at_every_moment_there_is(nursery, tmp_path, expected):
    """Half-way through, before and after every write of a whole recording."""
    moments = [f"{name}:{n}" for name in ("half", "rename", "folder") for n in range(1, WRITES + 1)]
    moments += [f"fsync:{n}" for n in range(1, 2 * WRITES + 1)]
    kill_at(nursery, tmp_path, expected, moments)
