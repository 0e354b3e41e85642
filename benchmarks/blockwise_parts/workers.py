"""How much faster two workers teach the same pairs than one, with one thread each.

Transformer layers with random weights on random rows, as only time is asked for; every pair is the
same amount of work. The time is that of `distil_all` as a whole: the start of the processes, which
import PyTorch anew, is in it. The three arms run in turns, each with folders of its own, and the
medians are compared. It needs a machine with two cores and nothing else to do.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from understudy.blockwise.assembling import Rows, offer, pairs
from understudy.blockwise.learning import Learning
from understudy.blockwise.partition import partition
from understudy.blockwise.sources import record
from understudy.blockwise.workers import distil_all
from understudy.models import VisionTransformer

# By title: workers, and threads of each.
ARMS = {
    "one worker, one thread": (1, 1),
    "two workers, one thread each": (2, 1),
    "one worker, two threads": (1, 2),
}
SHARES = {"reduced": (0.5,), "full": (0.5, 0.25)}
DEPTH, DIM, HELD_OUT, TURNS = 8, 128, 64, 3
# About as long as a small real pass: of a short one the start of the processes is a fifth.
ROWS, EPOCHS = 512, 15


def measure(mode: str, out: Path, *, rows: int = ROWS, turns: int = TURNS) -> dict[str, Any]:
    """All arms in turns; fewer rows only show that it works."""
    del out
    torch.manual_seed(0)
    network = VisionTransformer(
        channels=1, height=8, image_width=8, width=10, patch=1, dim=DIM, depth=DEPTH, heads=4
    ).eval()
    data = torch.randn(rows + HELD_OUT, 1, 8, 8)
    split = Rows(
        learn=np.arange(rows),
        validation=np.arange(rows, rows + HELD_OUT),
        calibration=np.arange(8),
    )
    learning = Learning(epochs=EPOCHS, batch_size=32)
    seconds: dict[str, list[float]] = {title: [] for title in ARMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = partition(network, data[:2], measure=False)
        sources = record(network, parts, data, folder / "recorded")
        libraries = offer(
            network, parts, sources, split.calibration, kinds=("narrower",),
            shares={"narrower": SHARES[mode]}, measure=None,
        )  # fmt: skip
        offered = {block: library.candidates for block, library in libraries.items()}
        count = 0
        for turn in range(turns):
            for number, (title, (workers, threads)) in enumerate(ARMS.items()):
                own = folder / f"{turn}-{number}"
                work = pairs(network, parts, offered, sources, split, folder=own, learning=learning)
                began = time.monotonic()
                told = distil_all(work, workers=workers, threads=threads, engine="process")
                seconds[title].append(time.monotonic() - began)
                failed = [one for one in told.values() if "failed" in one]
                if failed:
                    raise RuntimeError(f"a pair failed: {failed[0]}")
                count = len(work)
    return report(seconds, count)


def report(seconds: dict[str, list[float]], count: int) -> dict[str, Any]:
    """Figures and the table of the arms' times."""
    medians = {title: statistics.median(times) for title, times in seconds.items()}
    alone, together, threaded = medians.values()
    lines = [
        f"| {count} pairs of transformer layers | seconds, median (all) | times as fast |",
        "|---|---:|---:|",
    ]
    for title, times in seconds.items():
        every = ", ".join(f"{one:.1f}" for one in sorted(times))
        lines.append(f"| {title} | {medians[title]:.1f} ({every}) | {alone / medians[title]:.2f} |")
    return {
        "figures": {
            "two_worker_speedup": alone / together,
            "two_thread_speedup": alone / threaded,
        },
        "lines": lines,
        "facts": {
            "seconds": seconds,
            "pairs": count,
            # What else ran meanwhile: above the two that work here, the times say nothing.
            "load": os.getloadavg()[1],
        },
    }
