"""Every method of the catalogue beside hard labels alone, with one teacher, rows and epochs.

CIFAR-100: the real ResNet-32 (71.7 %) into our 16-channel ResNet-8. Fashion-MNIST: a vision
transformer of 6 layers into one of 2. Two stored views, what the teacher tells stored once for all
methods, batch 64, every method at its usual weight (`methods_table.py`); accuracy of the last epoch
on all 10,000 test rows. Methods of two phases share the epochs between them.

FULL=1: 15,000 rows, 10 epochs (4 and 6), 3 seeds; hours. It goes on where it was stopped, and stops
by itself after about SLICE_MINUTES where that is given. GROUND=cifar or GROUND=vit measures the
parts of one ground only. Several processes share the work: each takes the next part that is
neither finished nor taken. Reduced: 1,000 rows, 1 epoch, 1 seed, to show that it works; it proves
nothing.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Progress
from methods_grounds import EPOCHS, FULL, SPLIT, Ground, ground, held, right, waited
from methods_report import report
from methods_table import CONTROL, METHODS, Method

from understudy import build
from understudy.engine import fit, probe
from understudy.errors import TrainingError
from understudy.objective import Objective
from understudy.pipeline.carrying import carry, keep
from understudy.recipe import Source, TermEntry
from understudy.students.reused_head import reused_head

SEEDS = 3 if FULL else 1


class Clock:
    """The mean time of a step, the first of each training left out: it sets things up.

    Attributes:
        seconds: on the wall.
        work: of processor time, which others on the same machine disturb less.
        steps: how many were timed.
    """

    def __init__(self) -> None:
        """Nothing is timed yet."""
        self.seconds, self.work, self.steps = 0.0, 0.0, 0
        self._last: tuple[float, float] | None = None

    def begin(self) -> None:
        """A new training: what lies between two of them is no step."""
        self._last = None

    def __call__(self, step: int) -> None:
        """One more step is done."""
        del step
        now = time.perf_counter(), time.process_time()
        if self._last is not None:
            self.seconds += now[0] - self._last[0]
            self.work += now[1] - self._last[1]
            self.steps += 1
        self._last = now

    def per_step(self) -> dict[str, float]:
        """The means."""
        return {"seconds": self.seconds / self.steps, "work": self.work / self.steps}


def objective(
    entries: Sequence[TermEntry],
    place: Ground,
    student: torch.nn.Module,
    seed: int,
) -> Objective:
    """The terms of one phase, with the layers they compare and what they learn."""
    rows = torch.from_numpy(place.inputs[:2])
    matched = [
        build.match(
            entry,
            student=student,
            teacher=place.teacher,
            rows=rows,
            told=lambda spots: build.captured(place.teacher, spots, rows),
        )
        if build.reads_layers(entry)
        else None
        for entry in entries
    ]
    plain = build.terms(entries, Source(), matched=matched)
    known = {
        "ids": torch.arange(len(place.inputs)),
        "labels": torch.from_numpy(place.targets),
        "answers": place.task.width,
    }
    terms = build.with_adapters(entries, plain, matched=matched, known=known, seed=seed)
    needs = frozenset(name for term in terms for name in term.wants)
    return Objective(terms, task=place.task, offers=needs)


def teach(method: Method, seed: int, place: Ground, clock: Clock) -> torch.nn.Module:
    """A student after all phases of a method."""
    student = place.student(seed)
    if method.reused_head:
        rows = student.preprocess(torch.from_numpy(place.inputs[:8]))
        made = reused_head(student.network, place.teacher.network, rows, seed=seed)
        student.network = made.module
    phases = method.entries()
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / f"phase-{number + 1}" for number in range(len(phases))]
        for number, entries in enumerate(phases):
            epochs = SPLIT[number] if len(phases) > 1 else EPOCHS
            loader, aim = place.loader(seed=seed), objective(entries, place, student, seed)
            teacher = place.told(aim.needs)
            folders[number].mkdir()
            carry(aim, folders[:number])
            probe(student=student, objective=aim, teacher=teacher, loader=loader, epochs=epochs)
            clock.begin()
            fit(
                student=student,
                objective=aim,
                teacher=teacher,
                training=place.training(epochs),
                loader=loader,
                validation=None,
                validate=None,
                seed=seed,
                on_step=clock,
                name=f"{method.name}, seed {seed}",
            )
            keep(aim, folders[number])
    return student.eval()


def time_control(place: Ground, clock: Clock) -> None:
    """Half an epoch of hard labels alone; one before and one after every part, for its speed."""
    student = place.student(0)
    clock.begin()
    fit(
        student=student,
        objective=objective(CONTROL.entries()[0], place, student, 0),
        teacher=None,
        training=place.training(1),
        loader=place.loader(seed=0, length=len(place.inputs) // 2),
        validation=None,
        validate=None,
        on_step=clock,
    )


def part(method: Method, seed: int) -> dict:
    """What is kept of a method and a seed; a training that breaks down is a result too."""
    place = ground(method.ground)
    began = time.monotonic()
    own, control = Clock(), Clock()
    time_control(place, control)
    try:
        student = teach(method, seed, place, own)
    except TrainingError as error:
        return {"failed": str(error)}
    time_control(place, control)
    hits = right(student, place.test, place.truth)
    return {
        "right": np.packbits(hits).tolist(),
        "step": own.per_step(),
        "control_step": control.per_step(),
        "part_seconds": time.monotonic() - began,
    }


def teacher(progress: Progress, name: str) -> None:
    """What a ground needs, and how good its teacher is; where it is trained, that takes a while."""
    place = ground(name)
    if progress.get(f"teacher_{name}-0") is None:
        hits = right(place.teacher, place.test, place.truth)
        progress.keep(f"teacher_{name}-0", {"right": np.packbits(hits).tolist()})


def main() -> None:
    """Measure what is missing, as long as there is time, and write down what there is."""
    slice_ = float(os.environ.get("SLICE_MINUTES", "inf"))
    end = time.monotonic() + 60 * slice_
    progress = Progress("methods")
    # All methods with one seed before any has two; first those whose teacher is there.
    ordered = sorted(METHODS, key=lambda method: method.ground)
    parts = [(method, seed) for seed in range(SEEDS) for method in ordered]
    only = os.environ.get("GROUND")
    for method, seed in parts:
        name = f"{method.name}-{seed}"
        if only not in (None, method.ground) or progress.get(name) is not None:
            continue
        if time.monotonic() >= end:
            print(f"{name} and what is behind it is left: run it again", file=sys.stderr)
            break
        with waited(method.ground):
            teacher(progress, method.ground)
        lock = held(name)
        if lock is None:
            continue
        with lock:
            # Another process may have finished it since it was looked for.
            if progress.get(name) is not None:
                continue
            found = progress.keep(name, part(method, seed))
        if "failed" in found:
            print(f"{name}: {found['failed']}", file=sys.stderr)
            continue
        share = np.unpackbits(np.array(found["right"], np.uint8)).mean()
        print(
            f"{name}: {share:.4f}, {found['part_seconds']:.0f} s, an epoch "
            f"{found['step']['work'] / found['control_step']['work']:.2f} of the control's",
            file=sys.stderr,
        )
    report(progress, seeds=SEEDS)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
