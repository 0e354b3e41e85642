"""Ratios, table and record of `teach_once.py`."""

import statistics
from pathlib import Path

from cifar_loops import BATCH
from harness import mode, paste, record
from rich.console import Console
from rich.table import Table

ROWS = 20_000 if mode() == "full" else 8_000
ROUNDS, EPOCHS, VIEWS = 5, 30, 4


def report(
    console: Console,
    labelling: dict[str, float],
    seconds: dict[str, list[float]],
    passes: dict[str, dict[str, float]],
    precision: str,
    divergence: float | None,
) -> None:
    """Ratios, the table, the record."""
    median = {name: statistics.median(found) for name, found in seconds.items()}
    labelled = {
        name: labelling[
            ("ensemble" if "ensemble" in name else "single")
            + (", float32" if name.endswith("float32") else "")
        ]
        for name in seconds
        if name.startswith("ours, stored")
    }
    whole = {
        name: labelled.get(name, 0.0) + EPOCHS * found
        for name, found in median.items()
        if "cross-entropy" not in name
    }

    # An epoch costs the same from either store: the number of teachers is not in it any more.
    stored = zip(seconds["ours, stored ensemble"], seconds["ours, stored ResNet-32"], strict=True)
    either = [(one + other) / 2 for one, other in stored]

    def ratio(below: str) -> float:
        return statistics.median(a / b for a, b in zip(either, seconds[below], strict=True))

    figures = {
        "speedup_ensemble": whole["tutorial loop, ensemble"] / whole["ours, stored ensemble"],
        "speedup_single": whole["tutorial loop, ResNet-32"] / whole["ours, stored ResNet-32"],
        "epoch_over_cross_entropy": ratio("ours, cross-entropy"),
        "epoch_over_plain_cross_entropy": ratio("tutorial loop, cross-entropy"),
        **{f"teacher_pass_speedup{n}": p["teacher_pass_speedup"] for n, p in passes.items()},
        **{
            f"labelling_{name.replace(', ', '_')}_seconds": spent
            for name, spent in labelling.items()
        },
        "rows": float(ROWS),
    }
    if divergence is not None:  # bfloat16 was picked: the same in float32 beside it
        figures |= {
            "speedup_ensemble_float32": (
                whole["tutorial loop, ensemble"] / whole["ours, stored ensemble, float32"]
            ),
            "speedup_single_float32": (
                whole["tutorial loop, ResNet-32"] / whole["ours, stored ResNet-32, float32"]
            ),
            "speedup_ensemble_both_bfloat16": (
                whole["tutorial loop, ensemble, bfloat16"] / whole["ours, stored ensemble"]
            ),
            "divergence_nats": divergence,
        }
    kept = whole.get("tutorial loop, ensemble, freed memory kept")
    if kept is not None:
        figures["speedup_ensemble_both_kept"] = kept / whole["ours, stored ensemble"]
    table = Table(title=f"{ROWS:,} rows; whole run = labelling + {EPOCHS} epochs, extrapolated")
    heads = ("arm", "median epoch, s", "images/s", "labelling, s", f"{EPOCHS} epochs, s")
    for head in heads:
        table.add_column(head, justify="left" if head == "arm" else "right")
    lines = ["| " + " | ".join(heads) + " |", "|---|---:|---:|---:|---:|"]
    for name, found in median.items():
        cells = [
            name,
            f"{found:.2f}",
            f"{ROWS / found:,.0f}",
            f"{labelled[name]:.1f}" if name in labelled else "",
            f"{whole[name]:,.0f}" if name in whole else "",
        ]
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
        figures[f"{name.replace(', ', ' ').replace(' ', '_').replace('-', '_')}_seconds"] = found
    console.print(table)
    plain = figures["epoch_over_plain_cross_entropy"]
    sentence = (
        f"From stored labels a whole run is {figures['speedup_ensemble']:.2f} times faster with "
        f"the ensemble and {figures['speedup_single']:.2f} times with ResNet-32 alone, learning in "
        f"{precision}. An epoch takes {figures['epoch_over_cross_entropy']:.3f} times that of "
        f"cross-entropy in our engine and {plain:.3f} times that of cross-entropy in the tutorial "
        "loop, which is in float32. The teacher pass of ResNet-32 is "
        f"{figures['teacher_pass_speedup']:.2f} times faster than eager NCHW."
    )
    if divergence is not None:
        sentence += (
            f" In float32 the whole runs are {figures['speedup_ensemble_float32']:.2f} and "
            f"{figures['speedup_single_float32']:.2f} times faster and the teacher pass "
            f"{figures['teacher_pass_speedup_float32']:.2f} times; labels of all "
            f"rows and views diverge from those in float32 by {divergence:.1g} nats on average."
        )
    console.print(sentence)
    record("teach_once", figures, seeds=[0], mode=mode())
    note = f"{ROWS:,} rows, {VIEWS} views, batch {BATCH}, {ROUNDS} rounds, {mode()}."
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste("\n".join([*lines, "", sentence, note]), name="teach_once", page=page)
