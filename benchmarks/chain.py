"""Cut, distil, prune, int8 in one recipe: how small, how fast, and what is lost on the way.

`recipes/chain.yaml` on CIFAR-100, all 10,000 test images. The size and the latency (one row, one
thread) are those of the teacher's own float ONNX file over the int8 student's, timed in turns.

FULL=1: three seeds with their controls, 120 epochs, 24 stored views; with FIRST=n beside it the
first n seeds alone, without controls: in the same folder, so that the others can follow. Reduced:
one seed without a control, 36 epochs, four stored views.
"""

import os
import sys
from pathlib import Path

import numpy as np
from harness import RESULTS, mode, paste, record

from understudy.cli.show import Bars
from understudy.export.forms import speed_ratio
from understudy.pipeline import run

ROOT = Path(__file__).parent.parent
ALONE = [f"steps.{n}.control=false" for n in (0, 1, 2)]
REDUCED = [
    "seeds=[0]",
    *ALONE,
    "labels.views=4",
    *(f"steps.{n}.training.epochs={epochs}" for n, epochs in ((0, 4), (1, 8), (2, 24))),
]


def main() -> None:
    """Run, time the two files, write down every step."""
    out = ROOT / "runs" / "benchmarks" / "chain" / mode()
    settings = _whole() if mode() == "full" else REDUCED
    result = run(
        ROOT / "recipes" / "chain.yaml", out=out, settings=settings, progress=Bars(quiet=False)
    ).data
    steps = result["steps"]
    first, last = steps[0], steps[-1]
    rows = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    teacher, student = (out / "export" / name for name in ("teacher.onnx", "student.int8.onnx"))
    figures = {
        "chain_size_ratio": first["bytes"] / last["bytes"],
        "chain_latency_ratio": speed_ratio(teacher, student, rows, seconds=5),
        "chain_latency_ratio_batch32": speed_ratio(teacher, student, rows, batch=32, seconds=5),
        "chain_points_lost": 100 * (_accuracy(first) - _accuracy(last)),
        "epochs": _epochs(result["recipe"]["steps"]),
        "teacher_accuracy": _accuracy(first),
        "student_accuracy": _accuracy(last),
    }
    lines = [
        "| after | accuracy (95 %) | parameters | bytes | ms, 1 row | ms, 32 rows |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for step in steps:
        score, latency = step["scores"]["accuracy"], step["latency_ms"]
        lines.append(
            f"| {step['name']} | {100 * score['value']:.1f} % ({100 * score['low']:.1f} to "
            f"{100 * score['high']:.1f}) | {step['parameters']:,} | {step['bytes']:,} "
            f"| {latency['batch1']:.3f} | {latency['batch32']:.2f} |"
        )
    lines += [
        "",
        f"{figures['chain_size_ratio']:.1f} times smaller, {figures['chain_latency_ratio']:.1f} "
        f"times faster for one row ({figures['chain_latency_ratio_batch32']:.1f} for 32), "
        f"{figures['chain_points_lost']:.1f} points lost; seeds {result['seeds']}, {mode()}.",
    ]
    record("chain", figures, seeds=result["seeds"], mode=mode())
    text = "\n".join(lines)
    sys.stdout.write(text + "\n")
    paste(text, name="chain", page=RESULTS.parent.parent / "docs" / "benchmarks.md")


def _whole() -> list[str]:
    first = int(os.environ.get("FIRST", "0"))
    return [f"seeds={list(range(first))}", *ALONE] if first else []


def _epochs(steps: list[dict]) -> int:
    return sum(step["training"]["epochs"] for step in steps if step["kind"] in ("distil", "prune"))


def _accuracy(step: dict) -> float:
    return float(step["scores"]["accuracy"]["value"])


if __name__ == "__main__":
    main()
