"""Teach once: a whole distillation from stored labels against the loop that everybody writes.

The real ensemble ResNet-20 + 26 + 32, and ResNet-32 alone, into our 16-channel ResNet-8; CIFAR-100
with crop and flip, 30 epochs, 4 stored views. The *tutorial loop* (DataLoader with 2 workers,
per-image transforms, NCHW, eager) calls its teachers under no_grad at every step.

A whole run is labelling (the choice of the backend included) plus 30 times the median of an
epoch: labelling is measured whole, epochs take turns in `ROUNDS` rounds and are extrapolated. An
epoch of ours is a whole `fit` of one epoch: what a training takes to begin is counted 30 times.

Ours learns in the precision that `precision: auto` picks here, from labels of the fastest backend
whose log-probabilities are within `TOLERANCE`: on processors with bfloat16 instructions both are
bfloat16. The tutorial loop has no such choice, so there whole runs of ours in float32 with labels
within 0.001 stand beside it, and so does that loop in bfloat16. On other processors everything is
float32, and these arms, which would be the same or ten times slower, are left out.

The tutorial loop runs in a process of its own, as it would: our engine tells the allocator of its
process to keep freed memory, which that loop does not do. With FULL=1 one arm of it does, in
another process, and shows how much of a difference that is.

Reduced: 8,000 rows. FULL=1: 20,000 rows. What stored views and bfloat16 cost in accuracy is
measured by stored_views.py.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch
from apart import Apart
from cifar_loops import (
    BATCH,
    SOFT,
    TASK,
    TEMPERATURE,
    Precision,
    TutorialLoop,
    deployable,
    images,
    student_network,
    teacher_network,
    training,
    views,
)
from harness import mode
from rich.console import Console
from teach_once_table import ROUNDS, ROWS, VIEWS, report
from teacher_pass import measure as measure_pass

from understudy.allocator import keep_freed_memory
from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit, pick
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

ENSEMBLE, SINGLE = (20, 26, 32), (32,)
# In nats of the log-probability of any class, likely or not; the mean divergence is measured.
TOLERANCE, EXACT = 1.0, 0.001
KEPT = "tutorial loop, ensemble, freed memory kept"


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


def label(
    inputs: np.ndarray, depths: tuple[int, ...], folder: Path, *, tolerance: float = TOLERANCE
) -> float:
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
    members, chosen = {}, None
    for depth in sorted(depths, reverse=True):  # the largest first, as a run does it
        module = deployable(teacher_network(depth), channels_last=False)
        chosen = choose(
            module,
            output="logits",
            batch=sample,
            rows=len(inputs) * VIEWS,
            tolerance=tolerance,
            like=chosen,
        )
        print(f"ResNet-{depth}: {chosen.line()}")
        members[depth] = chosen.teacher
    write_labels(
        engine=Serial(EnsembleTeacher([members[depth] for depth in depths]), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")},
        place=LocalPlace(folder),
        fingerprints={"teacher": str(depths)},
    )
    return time.perf_counter() - started


class Ours:
    """Training in our engine, epoch by epoch."""

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        store: LabelStore | None,
        precision: Precision,
    ) -> None:
        """A training that is ready to begin; from a store, or with cross-entropy alone."""
        self._precision = precision
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
            training=training(1, precision=self._precision),
            loader=self._source,
            validation=None,
            validate=None,
        )


def divergence(one: LabelStore, other: LabelStore, rows: int) -> float:
    """The mean KL of the second store's answers from the first's, over all rows and views."""
    found, size = 0.0, 500
    for view in range(1, VIEWS + 1):
        for start in range(0, rows, size):
            ids = torch.arange(start, min(start + size, rows))
            views = torch.full((len(ids),), view)
            a, b = (
                store.read(ids, views).tensor("logits").double().log_softmax(dim=1)
                for store in (one, other)
            )
            found += float((a.exp() * (a - b)).sum())
    return found / (VIEWS * rows)


def timed(work: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tutorials(rows: int, half: bool) -> dict[str, Callable[[], None]]:
    """The arms of the tutorial loop, each with its own student."""
    torch.set_num_threads(2)
    inputs, labels = images(rows)

    def loop(depths: Sequence[int] = (), *, half: bool = False) -> Callable[[], None]:
        teachers = [teacher_network(depth) for depth in depths]
        return TutorialLoop(inputs, labels, teachers, half=half).epoch

    arms = {
        "tutorial loop, ensemble": loop(ENSEMBLE),
        "tutorial loop, ResNet-32": loop(SINGLE),
        "tutorial loop, cross-entropy": loop(),
    }
    if half:
        arms["tutorial loop, ensemble, bfloat16"] = loop(ENSEMBLE, half=True)
    return arms


def kept_tutorial(rows: int) -> dict[str, Callable[[], None]]:
    """The tutorial loop with freed memory kept, which is no tutorial's."""
    keep_freed_memory()
    arms = tutorials(rows, False)
    return {KEPT: arms["tutorial loop, ensemble"]}


def main() -> None:
    """Label, let the arms take turns, work out whole runs, record."""
    torch.set_num_threads(2)
    inputs, labels = images(ROWS)
    console = Console()
    goal = control_objective([], task=TASK)
    started = time.perf_counter()
    rows = torch.from_numpy(inputs[:BATCH])
    picked = pick(deployable(student_network()), goal, rows, training(1))
    picking = time.perf_counter() - started
    print(picked.line())
    half = picked.precision == "bfloat16"
    passes = {
        name: measure_pass(depth=32, batch=128, rounds=3 * ROUNDS, tolerance=tolerance)
        for name, tolerance in (("", TOLERANCE), ("_float32", EXACT))[: 2 if half else 1]
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Apart(tutorials, ROWS, half) as apart_loops,
        Apart(kept_tutorial, ROWS) if mode() == "full" else nullcontext() as keeping,
    ):
        stores = {name: Path(folder) / name for name in ("ensemble", "single")}
        exact = {name: Path(folder) / f"{name}-exact" for name in stores}
        depths = {"ensemble": ENSEMBLE, "single": SINGLE}
        labelling = {name: picking + label(inputs, depths[name], stores[name]) for name in stores}
        apart = None
        if half:
            labelling |= {
                f"{name}, float32": label(inputs, depths[name], exact[name], tolerance=EXACT)
                for name in stores
            }
            apart = divergence(LabelStore(exact["ensemble"]), LabelStore(stores["ensemble"]), ROWS)

        def ours(path: Path | None, precision: str) -> Callable[[], None]:
            store = None if path is None else LabelStore(path)
            return Ours(inputs, labels, store, cast(Precision, precision)).epoch

        plain = ["ensemble", "ResNet-32", "cross-entropy"]
        loops = [f"tutorial loop, {name}" for name in plain]
        arms: dict[str, Callable[[], None]] = {
            **{name: apart_loops.function(name) for name in loops},
            **({} if keeping is None else {KEPT: keeping.function(KEPT)}),
            # Cross-entropy between the two, so that a machine that slows down meets both sides.
            "ours, stored ensemble": ours(stores["ensemble"], picked.precision),
            "ours, cross-entropy": ours(None, picked.precision),
            "ours, stored ResNet-32": ours(stores["single"], picked.precision),
        }
        if half:
            loop = "tutorial loop, ensemble, bfloat16"
            arms |= {
                loop: apart_loops.function(loop),
                "ours, stored ensemble, float32": ours(exact["ensemble"], "float32"),
                "ours, stored ResNet-32, float32": ours(exact["single"], "float32"),
            }
        for name, arm in arms.items():
            if name.startswith("ours"):
                arm()  # the first one loads Lightning and verifies the store
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(ROUNDS):
            for name, arm in arms.items():
                seconds[name].append(timed(arm))
            console.print(f"round {number + 1} of {ROUNDS}")
    report(console, labelling, seconds, passes, picked.precision, apart)


if __name__ == "__main__":
    main()
