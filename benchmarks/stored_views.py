"""What is lost when the teacher answers K stored views per image instead of a fresh one each epoch.

The real ensemble ResNet-20 + 26 + 32 into our 16-channel ResNet-8, CIFAR-100, crop and flip, at
equal epochs; accuracy of the last epoch on all 10,000 test images. A live teacher on fresh views is
the same as a store with as many views as there are epochs, since an answer is a function of (id,
view): so one store of all views serves every arm, and a smaller K is the same store read in a
circle. `difference` is K = 4 minus fresh in points, with an interval over seeds and rows.

FULL=1: 15,000 rows, 30 epochs, 5 seeds for K = 4 and fresh and 3 for the others; goes on where it
was stopped. Reduced: 2,000 rows, 4 epochs, 3 seeds, to show that it works; it proves nothing.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from cifar_loops import (
    BATCH,
    CLASSES,
    TASK,
    TEMPERATURE,
    deployable,
    images,
    student_network,
    teacher_network,
    training,
    views,
)
from harness import Progress, mode, paste, record
from rich.console import Console
from rich.table import Table

from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.data.prefetch import Ahead
from understudy.engine import fit
from understudy.evaluate.verdict import judge
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial
from understudy.labels.record import record as write_labels
from understudy.labels.store import LabelStore
from understudy.losses import HardLabel, SoftTargetKL
from understudy.objective import Objective, Term
from understudy.teachers.backends import choose
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.ensemble import EnsembleTeacher

FULL = mode() == "full"
ROWS, EPOCHS = (15_000, 30) if FULL else (2_000, 4)
SEEDS = {4: 5, 0: 5, 1: 3, 2: 3, 8: 3} if FULL else {4: 3, 0: 3, 1: 3, 2: 3}
DEPTHS = (20, 26, 32)
HERE = Path(__file__).parent
STORE = HERE.parent / "runs" / "benchmarks" / "stored_views" / f"store-{mode()}"


def labels(inputs: np.ndarray) -> LabelStore:
    """The ensemble's answers to every view that any arm shows; made once."""
    size, count = 250, EPOCHS
    loader = MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=None,
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=size,
        views=views(),
    )

    def batches(start: int, stop: int) -> Ahead[Batch]:
        def some() -> Iterator[Batch]:
            for first in range(start, stop, size):
                rows = np.arange(first, min(first + size, stop))
                yield loader.batch(rows % len(inputs), 1 + rows // len(inputs))

        return Ahead(some())

    portions = cut(batches, rows=len(inputs) * count, batch_size=size, shard_rows=5_000)
    members = []
    sample = Batch(inputs=torch.from_numpy(inputs[:size]), ids=torch.arange(size))
    for depth in DEPTHS:
        module = deployable(teacher_network(depth), channels_last=False)
        chosen = choose(module, output="logits", batch=sample)
        print(f"ResNet-{depth}: {chosen.line()}", file=sys.stderr)
        members.append(chosen.teacher)
    dense = codecs.make("dense", {}, {})
    write_labels(
        engine=Serial(EnsembleTeacher(members), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=dense, reads="logits")},
        place=LocalPlace(STORE),
        fingerprints={"teacher": "ResNet-20 + 26 + 32", "data": f"CIFAR-100, {ROWS} rows"},
        made={"batch_size": size},
        on_rows=lambda done: print(f"labelled {done:,} of {sum(portions.rows):,}", file=sys.stderr),
    )
    return LabelStore(STORE)


def arm(
    inputs: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    truth: np.ndarray,
    store: LabelStore,
    *,
    count: int,
    seed: int,
) -> dict:
    """Which test rows a student gets right that saw `count` views (0: fresh ones)."""
    loader = MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(targets),
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=BATCH,
        views=views(),
        seed=seed,
        cycle=count or None,
    )
    terms = [
        Term(name="hard", loss=HardLabel(), reads="logits", labels=True, weight=0.1),
        Term(
            name="soft",
            loss=SoftTargetKL(temperature=TEMPERATURE),
            reads="logits",
            needs=("logits",),
            weight=0.9,
        ),
    ]
    model = deployable(student_network(seed))
    fit(
        student=model,
        objective=Objective(terms, task=TASK, offers=store.offers),
        teacher=CachedTeacher(store),
        training=training(EPOCHS, schedule="cosine"),
        loader=loader,
        validation=None,
        validate=None,
        seed=seed,
        folder=STORE.parent / f"checkpoints-{mode()}" / f"{count}-{seed}",
    )
    right = []
    with torch.inference_mode():
        for start in range(0, len(test), 500):
            answer = model(torch.from_numpy(test[start : start + 500]))
            right.append(answer.argmax(dim=1).numpy() == truth[start : start + 500])
    return {"right": np.packbits(np.concatenate(right)).tolist()}


def main() -> None:
    """Label, train every arm of every seed, compare, record."""
    inputs, targets = images(ROWS)
    test, truth = images(10_000, file="test.parquet")
    progress = Progress("stored_views")
    store = labels(inputs)
    # What `difference` is made of first; the rest of the table can wait.
    compared = [(count, seed) for seed in range(SEEDS[4]) for count in (4, 0)]
    others = [(c, seed) for c, seeds in SEEDS.items() for seed in range(seeds) if c not in (4, 0)]
    for count, seed in compared + others:
        part = f"K{count or 'fresh'}-{seed}"
        if progress.get(part) is None:
            found = arm(inputs, targets, test, truth, store, count=count, seed=seed)
            progress.keep(part, found)
            share = np.unpackbits(np.array(found["right"], np.uint8)).mean()
            print(f"{part}: {share:.4f}", file=sys.stderr)
    report(progress, store)


def report(progress: Progress, store: LabelStore) -> None:
    """The table, the difference and its interval, from the parts that are finished."""
    rows: dict[int, np.ndarray] = {}
    for count in SEEDS:
        parts = [progress.get(f"K{count or 'fresh'}-{seed}") for seed in range(SEEDS[count])]
        done = [np.unpackbits(np.array(p["right"], np.uint8)) for p in parts if p is not None]
        if done:
            rows[count] = np.stack(done).astype(np.float64)
    figures = {}
    head = ["views per image", "seeds", "accuracy", "minus fresh (95 %)"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|---:|"]
    table = Table(title=f"{ROWS:,} rows, {EPOCHS} epochs")
    for name in head:
        table.add_column(name)
    for count in sorted(rows, key=lambda k: k or math.inf):
        name = str(count or f"fresh ({EPOCHS})")
        found = rows[count]
        figures[f"accuracy_{count or 'fresh'}"] = float(found.mean())
        apart = ""
        if count and 0 in rows and min(len(found), len(rows[0])) >= 2:
            both = min(len(found), len(rows[0]))
            verdict = judge(
                found[:both],
                rows[0][:both],
                higher_is_better=True,
                margin=0.01,
                name="accuracy",
                unit="share",
            )
            low, high = verdict.low, verdict.high
            apart = f"{100 * verdict.effect:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            figures[f"difference_{count}"] = 100 * verdict.effect
            figures[f"lower_bound_{count}"] = 100 * low
            figures[f"upper_bound_{count}"] = 100 * high
        cells = [name, str(len(found)), f"{100 * found.mean():.2f} %", apart]
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
    Console().print(table)
    figures["bytes_per_view"] = store.manifest.bytes / len(store)
    record("stored_views", figures, seeds=list(range(max(SEEDS.values()))), mode=mode())
    text = "\n".join([*lines, "", f"{ROWS:,} rows, {EPOCHS} epochs, {CLASSES} classes, {mode()}."])
    paste(text, name="stored_views", page=HERE.parent / "docs" / "benchmarks.md")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
