"""The field's own protocol on CIFAR-100: our methods beside the numbers that were published.

ResNet-56 into ResNet-20, 240 epochs of all 50,000 rows, SGD 0.05 with momentum 0.9 and weight decay
0.0005, a tenth of the rate from epochs 150, 180 and 210, batch 64, crop by 4 and flip; accuracy of
the last epoch on the test rows. Published: Tian et al. 2020 (CRD), table 1; Zhao et al. 2022 (DKD);
Chen et al. 2021 (ReviewKD); Huang et al. 2022 (DIST). Their networks have 1x1 shortcuts, and so
have ours.

FULL=1 needs a GPU. It works in slices: after SLICE_MINUTES (9) it stops at the end of an epoch, and
goes on there when it is started again. Checkpoints lie in PROTOCOL_FOLDER (runs/benchmarks/
cifar_protocol/full); ARMS=kd,dkd does these alone, so that several processes can share a GPU once
the teacher is there.
Reduced: 640 rows, 1 epoch, 1 seed, to show that it works; it proves nothing.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from cifar_loops import BATCH, CLASSES, TASK, deployable, images
from cifar_protocol_table import ARMS, Arm
from harness import Progress, mode, paste, record

from understudy import build
from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.data.prefetch import Ahead
from understudy.data.views import Crop, Flip, Views
from understudy.engine import fit
from understudy.models import CifarResNet
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.objective import Objective
from understudy.recipe import LearningRate, Optimizer, Source, TermEntry, Training
from understudy.teachers.torch_module import TorchTeacher

FULL = mode() == "full"
ROWS, EPOCHS, SEEDS = (50_000, 240, 3) if FULL else (640, 1, 1)
HERE = Path(__file__).parent
FOLDER = Path(
    os.environ.get("PROTOCOL_FOLDER", HERE.parent / "runs/benchmarks/cifar_protocol" / mode())
)
TEACHER = FOLDER / "teacher.safetensors"

FIRST, REST = ("kd", "dkd", "crd", "alone"), ("fitnets", "at", "rkd", "dist", "review")


class SliceOverError(Exception):
    """The time is up; the last epoch's checkpoint is whole."""


class Prefetched:
    """A loader whose next batches are made while the GPU works on this one."""

    def __init__(self, loader: MemoryLoader) -> None:
        """Go through `loader` ahead of its reader."""
        self._loader, self.sampler = loader, loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(Ahead(self._loader, depth=8))


@cache
def rows(file: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and classes of one file; in the reduced form some of them."""
    return images(ROWS if file.startswith("train") else (10_000 if FULL else 1_000), file=file)


def network(depth: int, seed: int) -> Deployable:
    """A network of raw rows from the start weights of a seed."""
    torch.manual_seed(seed)
    made = CifarResNet(channels=3, width=CLASSES, depth=depth, base=16, shortcut="B")
    return deployable(made, channels_last=False)


def training() -> Training:
    """The field's own."""
    return Training(
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=Optimizer(kind="sgd", learning_rate=0.05, momentum=0.9, weight_decay=0.0005),
        schedule=LearningRate(kind="step", warm_up=0.0, milestones=(150, 180, 210), factor=0.1),
        checkpoint_seconds=0.0,
        trainer={"benchmark": True},
    )


def objective(arm: Arm, student: Deployable, teacher: Deployable, seed: int) -> Objective:
    """The terms of an arm, with the layers they compare and what they learn."""
    inputs, targets = rows("train.parquet")
    entries = [TermEntry.model_validate(term) for term in arm.terms]
    few = torch.from_numpy(inputs[:2])
    matched = [
        build.match(
            entry,
            student=student,
            teacher=teacher,
            rows=few,
            told=lambda spots: build.captured(teacher, spots, few),
        )
        if build.reads_layers(entry)
        else None
        for entry in entries
    ]
    plain = build.terms(entries, Source(), matched=matched)
    known = {
        "ids": torch.arange(len(inputs)),
        "labels": torch.from_numpy(targets),
        "answers": CLASSES,
    }
    terms = build.with_adapters(entries, plain, matched=matched, known=known, seed=seed)
    needs = frozenset(name for term in terms for name in term.wants)
    return Objective(terms, task=TASK, offers=needs)


def part(name: str, seed: int, end: float) -> dict:
    """Train one arm with one seed to its end, or as far as the time goes.

    Raises:
        SliceOverError: the time is up.
    """
    inputs, targets = rows("train.parquet")
    arm, student, teacher = ARMS[name], network(ARMS[name].depth, seed), network(56, 0)
    if name != "teacher":
        load_into(teacher, read_weights(TEACHER), source=str(TEACHER))
    aim = objective(arm, student, teacher.eval(), seed)
    layers = sorted(aim.needs - {"logits"})
    loader = MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(targets),
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=BATCH,
        views=Views([Crop(padding=4), Flip()], seed=seed),
        seed=seed,
    )

    def on_step(step: int) -> None:
        # The first step of an epoch: the checkpoint of the one before has just been written.
        if (step - 1) % len(loader) == 0:
            print(f"{name}-{seed}: epoch {1 + (step - 1) // len(loader)}", file=sys.stderr)
            if time.monotonic() >= end:
                raise SliceOverError

    fitted = fit(
        student=student,
        objective=aim,
        teacher=TorchTeacher(teacher, output="logits", spots=layers) if aim.needs else None,
        training=training(),
        loader=Prefetched(loader),
        validation=None,
        validate=None,
        seed=seed,
        folder=FOLDER / f"{name}-{seed}",
        on_step=on_step,
        name=f"{name}, seed {seed}",
    )
    if name == "teacher":
        save_weights(student, TEACHER)
    return {"accuracy": accuracy(student), "seconds": fitted.seconds}


def accuracy(student: Deployable) -> float:
    """The share of the test rows that it gets right."""
    test, truth = rows("test.parquet")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    student.to(device).eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(test), 500):
            answer = student(torch.from_numpy(test[start : start + 500]).to(device))
            right += int((answer.argmax(dim=1).cpu().numpy() == truth[start : start + 500]).sum())
    return right / len(test)


def order() -> list[tuple[str, int]]:
    """The teacher; then one seed of the first arms before three; then the others likewise."""
    parts = [("teacher", 0)]
    for names in (FIRST, REST):
        parts += [(name, seed) for seed in range(SEEDS) for name in names]
    only = os.environ.get("ARMS")
    if only is None:
        return parts
    unknown = sorted(set(only.split(",")) - set(ARMS))
    if unknown:
        raise SystemExit(f"ARMS takes some of {','.join(ARMS)}, but got {','.join(unknown)}")
    return [(name, seed) for name, seed in parts if name in only.split(",")]


def main() -> None:
    """Go on with what is missing, until the time is up; write down what there is."""
    if FULL and not torch.cuda.is_available():
        raise SystemExit(
            "the full protocol trains for days without a GPU, and there is none here: run it where "
            "`torch.cuda.is_available()`, or leave FULL=1 out for the reduced form"
        )
    end = time.monotonic() + 60 * float(os.environ.get("SLICE_MINUTES", "9"))
    progress = Progress("cifar_protocol")
    missing = [(name, seed) for name, seed in order() if progress.get(f"{name}-{seed}") is None]
    if missing and missing[0][0] != "teacher" and not TEACHER.is_file():
        raise SystemExit(
            f"the students' teacher must be at {TEACHER}, but it is not there: train it first "
            "with ARMS=teacher; where its accuracy is kept already, delete "
            f"{progress.folder / 'teacher-0.json'} before"
        )
    try:
        for name, seed in missing:
            found = progress.keep(f"{name}-{seed}", part(name, seed, end))
            shutil.rmtree(FOLDER / f"{name}-{seed}")
            print(f"{name}-{seed}: {100 * found['accuracy']:.2f} %", file=sys.stderr)
    except SliceOverError:
        print("the time is up: run it again, it goes on", file=sys.stderr)
    report(progress)


def report(progress: Progress) -> None:
    """Ours beside what was published; only the full size goes into the page."""
    figures: dict[str, float] = {}
    lines = ["| arm | published | ours | seeds | hours each |", "|---|---:|---:|---:|---:|"]
    for name, arm in ARMS.items():
        parts = [progress.get(f"{name}-{seed}") for seed in range(SEEDS)]
        done = [found for found in parts if found is not None]
        cells = [name, f"{arm.published:.2f}", "", str(len(done)), ""]
        if done:
            every = [100 * found["accuracy"] for found in done]
            span = f" ({min(every):.2f} to {max(every):.2f})" if len(every) > 1 else ""
            hours = float(np.mean([found["seconds"] for found in done])) / 3600
            cells[2], cells[4] = f"{np.mean(every):.2f}{span}", f"{hours:.2f}"
            figures |= {f"accuracy_{name}": float(np.mean(every)), f"seeds_{name}": len(done)}
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"In brackets the lowest and the highest seed. {ROWS:,} rows, epochs: {EPOCHS}."]
    text = "\n".join(lines)
    print(text)
    record("cifar_protocol", figures, seeds=list(range(SEEDS)), mode=mode())
    if FULL:
        paste(text, name="cifar_protocol", page=HERE.parent / "docs" / "benchmarks.md")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
