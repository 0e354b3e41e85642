"""Blockwise distillation: students recombined under a budget against trained whole ones, and more.

Each part is in `blockwise_parts`: the real ResNet-32 and a real sentence encoder against uniformly
scaled and pruned students at equal latency and equal training time; peak memory by depth; two
workers; a recurrent network; one network into a family. A part is a process of its own with one
thread; the first two, whose times are those of the processor, run side by side.

    python benchmarks/blockwise.py             all parts that are not finished, then the table
    python benchmarks/blockwise.py encoder     one of them, in this process
    python benchmarks/blockwise.py report      the table of what is finished

FULL=1: all sizes in full. Goes on where it was stopped; finished parts are in `results/blockwise`.
"""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import Progress, mode, paste, record

from understudy.blockwise.front import latency_error

# Those of a line run at the same time.
TURNS = (("resnet", "encoder"), ("memory",), ("workers",), ("recurrent", "family"))
PARTS = tuple(part for turn in TURNS for part in turn)
RACES = ("resnet", "encoder")
TITLES = {
    "resnet": "An image network",
    "encoder": "A sentence encoder",
    "memory": "Memory",
    "workers": "Workers",
    "recurrent": "A recurrent network",
    "family": "One network into a family",
}
ROOT = Path(__file__).parent.parent


def measured(part: str) -> None:
    """Measure one part in this process, and keep what it says."""
    torch.set_num_threads(1)
    out = ROOT / "runs" / "benchmarks" / "blockwise" / mode() / part
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found = importlib.import_module(f"blockwise_parts.{part}").measure(mode(), out)
    Progress("blockwise").keep(part, {**found, "seconds": time.monotonic() - began})
    print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def children(parts: Sequence[str]) -> list[str]:
    """Measure parts side by side, a process each; those that failed."""
    usual = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = {part: subprocess.Popen([sys.executable, __file__, part], env=usual) for part in parts}
    return [part for part, process in begun.items() if process.wait() != 0]


def joined(done: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Every part's figures, and those of both networks together: the worse one counts."""
    figures = {name: value for part in done.values() for name, value in part["figures"].items()}
    races = [name for name in RACES if name in done]
    if races:
        timed = [pair for name in races for pair in done[name]["facts"]["timed"]]
        figures["latency_error"] = latency_error([a for a, _ in timed], [b for _, b in timed])
        figures["rank_correlation"] = min(figures[f"{name}_rank_correlation"] for name in races)
    ratios = [figures.get(f"{name}_accuracy_loss_ratio") for name in races]
    known = [ratio for ratio in ratios if ratio is not None]
    if known:
        figures["accuracy_loss_ratio"] = max(known)
    return figures


def report() -> None:
    """The figures and the page, from the finished parts."""
    kept = Progress("blockwise").finished()
    done = {part: kept[part] for part in PARTS if part in kept}
    figures = joined(done)
    record("blockwise", figures, seeds=[0, 1, 2], mode=mode())
    text = []
    for part, found in done.items():
        text += [f"### {TITLES[part]}", "", *found["lines"], ""]
    wanted = (
        "accuracy_loss_ratio", "latency_error", "rank_correlation", "memory_slope_ratio",
        "two_worker_speedup",
    )  # fmt: skip
    told = ", ".join(f"`{name}` {figures[name]:.3g}" for name in wanted if name in figures)
    missing = [part for part in PARTS if part not in done]
    text.append(f"{told}; {mode()}{', without ' + ', '.join(missing) if missing else ''}.")
    page = "\n".join(text)
    print(page)
    paste(page, name="blockwise", page=ROOT / "docs" / "benchmarks.md")


def main(asked: Sequence[str]) -> None:
    """All that is not finished, or the parts that are named."""
    unknown = [name for name in asked if name not in (*PARTS, "report")]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]}: {', '.join(PARTS)} or report")
    for part in asked:
        if part != "report":
            measured(part)
    if asked:
        if "report" in asked:
            report()
        return
    failed: list[str] = []
    for turn in TURNS:
        failed += children([part for part in turn if Progress("blockwise").get(part) is None])
    report()
    if failed:
        raise SystemExit(f"these parts failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
