"""Teach once: a whole distillation from stored labels against the loop that everybody writes.

The real ensemble ResNet-20 + 26 + 32, and ResNet-32 alone, into our 16-channel ResNet-8; CIFAR-100
with crop and flip, 30 epochs, 4 stored views. The *tutorial loop* (DataLoader with 2 workers,
per-image transforms, NCHW, eager) calls its teachers under no_grad at every step.

A whole run is labelling (the choice of the backend included) plus 30 times the median of an
epoch: labelling is measured whole, epochs take turns in `ROUNDS` rounds and are extrapolated. An
epoch of ours is a whole `fit` of one epoch: what a training takes to begin is counted 30 times.

Reduced: 10,000 rows. FULL=1: 20,000 rows. What the stored views cost in accuracy is measured by
stored_views.py.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from cifar_loops import (
    BATCH,
    SOFT,
    TASK,
    TEMPERATURE,
    TutorialLoop,
    deployable,
    images,
    student_network,
    teacher_network,
    training,
    views,
)
from harness import mode, paste, record
from rich.console import Console
from rich.table import Table
from teacher_pass import measure as measure_pass

from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial
from understudy.labels.record import record as write_labels
from understudy.labels.store import LabelStore
from understudy.losses import HardLabel, SoftTargetKL
from understudy.objective import Objective, Term, control_objective
from understudy.teachers.backends import choose
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.ensemble import EnsembleTeacher

ROWS = 20_000 if mode() == "full" else 10_000
ROUNDS, EPOCHS, VIEWS = 5, 30, 4
ENSEMBLE, SINGLE = (20, 26, 32), (32,)


def loader(inputs: np.ndarray, labels: np.ndarray, *, cycle: int | None) -> MemoryLoader:
    """Shuffled batches with crop and flip."""
    return MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(labels),
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=BATCH,
        views=views(),
        seed=0,
        cycle=cycle,
    )


def label(inputs: np.ndarray, depths: tuple[int, ...], folder: Path) -> float:
    """Seconds of storing what the teachers say of every row in every view."""
    size = 128
    source = MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=None,
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=size,
        views=views(),
    )

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for first in range(start, stop, size):
            rows = np.arange(first, min(first + size, stop))
            yield source.batch(rows % len(inputs), 1 + rows // len(inputs))

    started = time.perf_counter()
    portions = cut(batches, rows=len(inputs) * VIEWS, batch_size=size, shard_rows=8192)
    sample = Batch(inputs=torch.from_numpy(inputs[:size]), ids=torch.arange(size))
    members = []
    for depth in depths:
        module = deployable(teacher_network(depth), channels_last=False)
        chosen = choose(module, output="logits", batch=sample, rows=len(inputs) * VIEWS)
        print(f"ResNet-{depth}: {chosen.line()}")
        members.append(chosen.teacher)
    write_labels(
        engine=Serial(EnsembleTeacher(members), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")},
        place=LocalPlace(folder),
        fingerprints={"teacher": str(depths)},
    )
    return time.perf_counter() - started


class Ours:
    """Training in our engine, epoch by epoch."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray, store: LabelStore | None) -> None:
        """A training that is ready to begin; from a store, or with cross-entropy alone."""
        self._source = loader(inputs, labels, cycle=None if store is None else VIEWS)
        if store is None:
            self._objective, self._teacher = control_objective([], task=TASK), None
        else:
            terms = [
                Term(name="hard", loss=HardLabel(), reads="logits", labels=True, weight=1 - SOFT),
                Term(
                    name="soft",
                    loss=SoftTargetKL(temperature=TEMPERATURE),
                    reads="logits",
                    needs=("logits",),
                    weight=SOFT,
                ),
            ]
            self._objective = Objective(terms, task=TASK, offers=store.offers)
            self._teacher = CachedTeacher(store)
        self._model = deployable(student_network())

    def epoch(self) -> None:
        """One epoch by itself, with what beginning a training takes."""
        fit(
            student=self._model,
            objective=self._objective,
            teacher=self._teacher,
            training=training(1),
            loader=self._source,
            validation=None,
            validate=None,
        )


def timed(work: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Label, let the arms take turns, work out whole runs, record."""
    torch.set_num_threads(2)
    inputs, labels = images(ROWS)
    console = Console()
    passes = measure_pass(depth=32, batch=128, rounds=ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        labelling = {
            "ensemble": label(inputs, ENSEMBLE, Path(folder) / "ensemble"),
            "single": label(inputs, SINGLE, Path(folder) / "single"),
        }
        arms: dict[str, Callable[[], None]] = {
            "tutorial loop, ensemble": TutorialLoop(
                inputs, labels, [teacher_network(depth) for depth in ENSEMBLE]
            ).epoch,
            "tutorial loop, ResNet-32": TutorialLoop(
                inputs, labels, [teacher_network(depth) for depth in SINGLE]
            ).epoch,
            "tutorial loop, cross-entropy": TutorialLoop(inputs, labels).epoch,
            "ours, stored ensemble": Ours(
                inputs, labels, LabelStore(Path(folder) / "ensemble")
            ).epoch,
            "ours, stored ResNet-32": Ours(
                inputs, labels, LabelStore(Path(folder) / "single")
            ).epoch,
            "ours, cross-entropy": Ours(inputs, labels, None).epoch,
        }
        for name, arm in arms.items():
            if name.startswith("ours"):
                arm()  # the first one loads Lightning and verifies the store
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(ROUNDS):
            for name, arm in arms.items():
                seconds[name].append(timed(arm))
            console.print(f"round {number + 1} of {ROUNDS}")
    report(console, labelling, seconds, passes)


def report(
    console: Console,
    labelling: dict[str, float],
    seconds: dict[str, list[float]],
    passes: dict[str, float],
) -> None:
    """Ratios, the table, the record."""
    median = {name: statistics.median(found) for name, found in seconds.items()}
    whole = {
        "tutorial loop, ensemble": EPOCHS * median["tutorial loop, ensemble"],
        "tutorial loop, ResNet-32": EPOCHS * median["tutorial loop, ResNet-32"],
        "ours, stored ensemble": labelling["ensemble"] + EPOCHS * median["ours, stored ensemble"],
        "ours, stored ResNet-32": labelling["single"] + EPOCHS * median["ours, stored ResNet-32"],
    }

    def ratio(above: str, below: str) -> float:
        pairs = zip(seconds[above], seconds[below], strict=True)
        return statistics.median(a / b for a, b in pairs)

    figures = {
        "speedup_ensemble": whole["tutorial loop, ensemble"] / whole["ours, stored ensemble"],
        "speedup_single": whole["tutorial loop, ResNet-32"] / whole["ours, stored ResNet-32"],
        "epoch_over_cross_entropy": ratio("ours, stored ensemble", "ours, cross-entropy"),
        "epoch_over_plain_cross_entropy": ratio(
            "ours, stored ensemble", "tutorial loop, cross-entropy"
        ),
        "teacher_pass_speedup": passes["teacher_pass_speedup"],
        "labelling_ensemble_seconds": labelling["ensemble"],
        "labelling_single_seconds": labelling["single"],
        "rows": float(ROWS),
    }
    table = Table(title=f"{ROWS:,} rows; whole run = labelling + {EPOCHS} epochs, extrapolated")
    heads = ("arm", "median epoch, s", "images/s", "labelling, s", f"{EPOCHS} epochs, s")
    for head in heads:
        table.add_column(head, justify="left" if head == "arm" else "right")
    lines = ["| " + " | ".join(heads) + " |", "|---|---:|---:|---:|---:|"]
    for name, found in median.items():
        labelled = labelling["ensemble" if "ensemble" in name else "single"]
        cells = [
            name,
            f"{found:.2f}",
            f"{ROWS / found:,.0f}",
            f"{labelled:.1f}" if name.startswith("ours, stored") else "",
            f"{whole[name]:,.0f}" if name in whole else "",
        ]
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
        figures[f"{name.replace(', ', ' ').replace(' ', '_').replace('-', '_')}_seconds"] = found
    console.print(table)
    plain = figures["epoch_over_plain_cross_entropy"]
    sentence = (
        f"From stored labels a whole run is {figures['speedup_ensemble']:.2f} times faster with "
        f"the ensemble and {figures['speedup_single']:.2f} times with ResNet-32 alone. An epoch "
        f"takes {figures['epoch_over_cross_entropy']:.3f} times that of cross-entropy in our "
        f"engine and {plain:.3f} times that of cross-entropy in the tutorial loop. The teacher "
        f"pass of ResNet-32 is {figures['teacher_pass_speedup']:.2f} times faster than eager NCHW."
    )
    console.print(sentence)
    record("teach_once", figures, seeds=[0], mode=mode())
    note = f"{ROWS:,} rows, {VIEWS} views, batch {BATCH}, {ROUNDS} rounds, {mode()}."
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste("\n".join([*lines, "", sentence, note]), name="teach_once", page=page)


if __name__ == "__main__":
    main()
