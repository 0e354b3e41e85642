"""A recipe as a benchmark: seed after seed, each kept as it lands, then one verdict over all.

What is kept of an arm is small: its scores, and which test rows it got right, one bit each. The
verdict is taken from these bits, so a clone with the kept files needs no training to repeat it.
"""

import sys
from pathlib import Path

import numpy as np
from harness import Progress, mode, paste, record
from safetensors.numpy import load_file

from understudy.cli.show import Bars
from understudy.evaluate.quality import score_interval
from understudy.evaluate.verdict import gap_closed, judge
from understudy.pipeline import run

ROOT = Path(__file__).parent.parent
ARMS = ("teacher", "student", "control", "student_int8")


def measure(
    name: str,
    *,
    reduced: list[str],
    full: list[str],
    seeds: int,
    page: Path = ROOT / "docs" / "benchmarks.md",
) -> None:
    """Run `recipes/NAME.yaml` for every seed that is not kept yet, and write down what came out."""
    settings = full if mode() == "full" else reduced
    kept = Progress(name)
    for seed in range(seeds):
        if kept.get(f"student-{seed}") is None:
            _seed(name, seed, settings, kept)
    found = {arm: [kept.get(f"{arm}-{seed}") for seed in range(seeds)] for arm in ARMS}
    figures, lines = _figures(found)
    record(name, figures, seeds=list(range(seeds)), mode=mode())
    text = "\n".join(lines)
    sys.stdout.write(text + "\n")
    paste(text, name=name, page=page)


def _seed(name: str, seed: int, settings: list[str], kept: Progress) -> None:
    # One folder for all seeds: data, teacher and labels are made once.
    out = ROOT / "runs" / "benchmarks" / name / mode()
    change = [*settings, f"seeds=[{seed}]"]
    path = ROOT / "recipes" / f"{name}.yaml"
    result = run(path, out=out, settings=change, progress=Bars(quiet=False))
    answers = load_file(out / "evaluate" / "answers.safetensors")
    labels = _labels(out, path, change)[answers["positions"]]
    for arm in ARMS:
        model = result.data["models"][arm]
        hits = answers[arm][0].argmax(axis=1) == labels
        kept.keep(
            f"{arm}-{seed}",
            {
                "rows": len(labels),
                "hits": np.packbits(hits).tobytes().hex(),
                "parameters": model["parameters"],
                "bytes": model["bytes"],
                "batch1_ms": model["latency_ms"]["batch1"],
                "batch32_ms": model["latency_ms"]["batch32"],
                "seconds": model["seconds"]["training"],
                "teacher_pass": model["seconds"]["teacher_pass"],
            },
        )


def _labels(out: Path, path: Path, settings: list[str]) -> np.ndarray:
    from understudy import build

    recipe, place = build.checked(path, settings)
    del out
    labels = build.source(recipe.data.source, place)().labels
    assert labels is not None
    return labels


def _figures(found: dict[str, list[dict]]) -> tuple[dict[str, float], list[str]]:
    hits = {
        arm: np.stack(
            [
                np.unpackbits(np.frombuffer(bytes.fromhex(one["hits"]), np.uint8))[: one["rows"]]
                for one in every
            ]
        ).astype(float)
        for arm, every in found.items()
    }
    hits["teacher"] = hits["teacher"][:1]
    figures: dict[str, float] = {}
    lines = [
        "| model | accuracy (95 %) | parameters | bytes | ms, 1 row | ms, 32 rows |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for arm, values in hits.items():
        span = score_interval(values)
        every = found[arm]
        figures |= {
            f"{arm}_accuracy": span.value,
            f"{arm}_low": span.low,
            f"{arm}_high": span.high,
            f"{arm}_bytes": every[0]["bytes"],
            f"{arm}_parameters": every[0]["parameters"],
            f"{arm}_batch1_ms": float(np.median([one["batch1_ms"] for one in every])),
            f"{arm}_batch32_ms": float(np.median([one["batch32_ms"] for one in every])),
        }
        lines.append(
            f"| {arm.replace('_', ' ')} | {100 * span.value:.1f} % "
            f"({100 * span.low:.1f} to {100 * span.high:.1f}) | {every[0]['parameters']:,} "
            f"| {every[0]['bytes']:,} | {figures[f'{arm}_batch1_ms']:.3f} "
            f"| {figures[f'{arm}_batch32_ms']:.3f} |"
        )
    verdict = judge(
        hits["student"],
        hits["control"],
        higher_is_better=True,
        margin=0.01,
        name="accuracy",
        unit="share",
    )
    gap = gap_closed(hits["teacher"], hits["student"], hits["control"], higher_is_better=True)
    figures |= {"effect": verdict.effect or 0.0}
    if verdict.low is not None and verdict.high is not None:
        figures |= {"effect_low": verdict.low, "effect_high": verdict.high}
    if gap is not None:
        figures["gap_closed"] = gap
    lines += ["", f"**{verdict.word}** {verdict.sentence}"]
    return figures, lines
