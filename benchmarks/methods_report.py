"""The table of `make bench NAME=methods`, from the parts that are finished."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Progress, mode, paste, record
from methods_grounds import EPOCHS, ROWS, SPLIT
from methods_table import CONTROL, METHODS, VIT_CONTROL, Method

from understudy.evaluate.crossed import FEWEST_SEEDS
from understudy.evaluate.quality import score_interval
from understudy.evaluate.verdict import Verdict, judge

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
TITLES = {
    "cifar": "ResNet-32 into ResNet-8, CIFAR-100",
    "vit": "Vision transformer of 6 layers into one of 2, Fashion-MNIST",
}
MARGIN = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What is known of one method.

    Attributes:
        method: which.
        hits: per seed that did not fail, which test rows were right.
        failed: how many seeds broke down.
        ratio: an epoch's processor time over that of the control, the median over seeds.
    """

    method: Method
    hits: Mapping[int, np.ndarray]
    failed: int
    ratio: float

    @property
    def accuracy(self) -> float:
        """The mean over seeds and rows."""
        return float(np.mean([hits.mean() for hits in self.hits.values()]))


def report(progress: Progress, *, seeds: int) -> None:
    """Print the tables and record the figures; those of the full size go into the page."""
    figures: dict[str, float] = {}
    lines: list[str] = []
    for ground, control in (("cifar", CONTROL), ("vit", VIT_CONTROL)):
        every = [_measured(progress, m, seeds) for m in METHODS if m.ground == ground]
        found = {one.method.name: one for one in every if one is not None}
        teacher = progress.get(f"teacher_{ground}-0")
        if teacher is None or control.name not in found:
            continue
        share = float(_bits(teacher).mean())
        figures[f"accuracy_teacher_{ground}"] = share
        lines += [f"**{TITLES[ground]}** (teacher: {100 * share:.2f} %)", ""]
        lines += [*_table(found, found[control.name], figures), ""]
    lines.append(
        f"{ROWS:,} rows, epochs: {EPOCHS}, {' + '.join(map(str, SPLIT))} in two phases, {mode()}. "
        "Gain: over the control, hard labels alone, in points; **bold** where its interval is on "
        "one side of 0. Place: one more than there are methods that are better by more than the "
        "interval of the difference, so whoever cannot be told apart is not ranked. Bold and place "
        "take three seeds. Each interval is 95 % by itself, not corrected for their number. Time: "
        "an epoch's processor time over that of the control, which is measured before and after "
        "each part in the same process."
    )
    record("methods", figures, seeds=list(range(seeds)), mode=mode())
    text = "\n".join(lines)
    print(text)
    if mode() == "full":
        paste(text, name="methods", page=PAGE)


def _bits(part: Mapping) -> np.ndarray:
    return np.unpackbits(np.array(part["right"], np.uint8)).astype(np.float64)


def _measured(progress: Progress, method: Method, seeds: int) -> Measured | None:
    parts = {seed: progress.get(f"{method.name}-{seed}") for seed in range(seeds)}
    there = {seed: part for seed, part in parts.items() if part is not None}
    whole = {seed: part for seed, part in there.items() if "failed" not in part}
    if not there:
        return None
    ratios = [part["step"]["work"] / part["control_step"]["work"] for part in whole.values()]
    return Measured(
        method=method,
        hits={seed: _bits(part) for seed, part in whole.items()},
        failed=len(there) - len(whole),
        ratio=float(np.median(ratios)) if ratios else 0.0,
    )


def _compared(one: Measured, other: Measured) -> Verdict | None:
    """One less the other, over the seeds that both have."""
    both = sorted(set(one.hits) & set(other.hits))
    if not both:
        return None
    return judge(
        np.stack([one.hits[seed] for seed in both]),
        np.stack([other.hits[seed] for seed in both]),
        higher_is_better=True,
        margin=MARGIN,
        name="accuracy",
        unit="share",
    )


def _table(
    found: Mapping[str, Measured], control: Measured, figures: dict[str, float]
) -> list[str]:
    lines = [
        "| method | seeds | accuracy (95 %) | gain (95 %) | place | time | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    whole = [one for one in found.values() if one.hits]
    for one in sorted(whole, key=lambda m: m.accuracy, reverse=True):
        cells = [one.method.name, str(len(one.hits)), _accuracy(one, figures)]
        cells += [_gain(one, control, figures), _place(one, whole), f"{one.ratio:.2f}"]
        figures[f"time_{one.method.name}"] = one.ratio
        notes = [one.method.note] if one.method.note else []
        notes += [f"{one.failed} more broke down"] if one.failed else []
        lines.append("| " + " | ".join([*cells, "; ".join(notes)]) + " |")
    lost = [one for one in found.values() if not one.hits]
    lines += [f"| {one.method.name} | 0 | | | | | {one.failed} broke down |" for one in lost]
    return lines


def _accuracy(one: Measured, figures: dict[str, float]) -> str:
    name, seeds = one.method.name, len(one.hits)
    figures |= {f"accuracy_{name}": one.accuracy, f"seeds_{name}": float(seeds)}
    if seeds < 2:
        return f"{100 * one.accuracy:.2f} %"
    span = score_interval(np.stack(list(one.hits.values())))
    return f"{100 * one.accuracy:.2f} % ({100 * span.low:.2f} to {100 * span.high:.2f})"


def _gain(one: Measured, control: Measured, figures: dict[str, float]) -> str:
    verdict = None if one is control else _compared(one, control)
    if verdict is None or verdict.effect is None:
        return ""
    name = one.method.name
    figures[f"gain_{name}"] = 100 * verdict.effect
    text = f"{100 * verdict.effect:+.2f}"
    if verdict.low is None or verdict.high is None:
        return text
    low, high = 100 * verdict.low, 100 * verdict.high
    figures |= {f"gain_low_{name}": low, f"gain_high_{name}": high}
    text += f" ({low:+.2f} to {high:+.2f})"
    enough = len(one.hits) >= FEWEST_SEEDS
    return f"**{text}**" if enough and (low > 0 or high < 0) else text


def _place(one: Measured, every: list[Measured]) -> str:
    """How many are surely better, and one more; of those with seeds enough for a verdict."""
    if len(one.hits) < FEWEST_SEEDS:
        return ""
    others = [other for other in every if other is not one and len(other.hits) >= FEWEST_SEEDS]
    found = [_compared(other, one) for other in others]
    return str(1 + sum(v is not None and v.low is not None and v.low > 0 for v in found))
