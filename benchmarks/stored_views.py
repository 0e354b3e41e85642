"""What is lost when the teacher answers K stored views per image instead of a fresh one each epoch.

The real ensemble ResNet-20 + 26 + 32 into our 16-channel ResNet-8, CIFAR-100, crop and flip, at
equal epochs; accuracy of the last epoch on all 10,000 test images. A live teacher on fresh views is
the same as a store with as many views as there are epochs, since an answer is a function of (id,
view): so one store of all views serves every arm, and a smaller K is the same store read in a
circle. `difference` is K = 4 minus fresh in points, with an interval over seeds and rows.

`4, bfloat16` is the whole shortcut that teach_once.py times: 4 views, labelled and learned in
bfloat16.

FULL=1: 15,000 rows, 30 epochs, 12 seeds for K = 4, in bfloat16 too, and fresh; 3 for the others;
goes on where it was stopped. SHARE=1/2 and SHARE=2/2, started together once the stores are there,
take every second part each, so that two processes share the work. Reduced: 2,000 rows, 4 epochs,
3 seeds, to show that it works; it proves nothing.
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
from understudy.teachers.backends.choosing import TOLERANCE
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.ensemble import EnsembleTeacher

FULL = mode() == "full"
ROWS, EPOCHS = (15_000, 30) if FULL else (2_000, 4)
FRESH, HALF = "fresh", "4bf16"
SEEDS = (
    {"4": 12, FRESH: 12, HALF: 12, "1": 3, "2": 3, "8": 3}
    if FULL
    else {"4": 3, FRESH: 3, HALF: 3, "1": 3, "2": 3}
)
DEPTHS = (20, 26, 32)
HERE = Path(__file__).parent
FOLDER = HERE.parent / "runs" / "benchmarks" / "stored_views"


def labels(inputs: np.ndarray, *, count: int, tolerance: float, name: str) -> LabelStore:
    """The ensemble's answers to so many views of every row; made once."""
    size = 250
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
        chosen = choose(module, output="logits", batch=sample, tolerance=tolerance)
        print(f"ResNet-{depth}: {chosen.line()}", file=sys.stderr)
        members.append(chosen.teacher)
    dense = codecs.make("dense", {}, {})
    write_labels(
        engine=Serial(EnsembleTeacher(members), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=dense, reads="logits")},
        place=LocalPlace(FOLDER / name),
        fingerprints={"teacher": "ResNet-20 + 26 + 32", "data": f"CIFAR-100, {ROWS} rows"},
        made={"batch_size": size},
        on_rows=lambda done: print(f"labelled {done:,} of {sum(portions.rows):,}", file=sys.stderr),
    )
    return LabelStore(FOLDER / name)


def arm(
    inputs: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    truth: np.ndarray,
    store: LabelStore,
    *,
    kind: str,
    seed: int,
) -> dict:
    """Which test rows a student gets right that saw so many views."""
    half = kind == HALF
    loader = MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(targets),
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=BATCH,
        views=views(),
        seed=seed,
        cycle=None if kind == FRESH else 4 if half else int(kind),
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
        training=training(EPOCHS, schedule="cosine", precision="bfloat16" if half else "float32"),
        loader=loader,
        validation=None,
        validate=None,
        seed=seed,
        folder=FOLDER / f"checkpoints-{mode()}" / f"{kind}-{seed}",
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
    half = labels(inputs, count=4, tolerance=1.0, name=f"store-bf16-{mode()}")
    # What `difference` is made of first; the rest of the table can wait.
    first = [(kind, seed) for seed in range(SEEDS["4"]) for kind in ("4", FRESH)]
    others = [(k, seed) for k, seeds in SEEDS.items() for seed in range(seeds)]
    parts = [part for part in dict.fromkeys(first + others) if progress.get(name_of(*part)) is None]
    # A store of all views takes minutes and is made only where an arm that is left reads it.
    store = half
    if any(kind != HALF for kind, _ in parts):
        store = labels(inputs, count=EPOCHS, tolerance=TOLERANCE, name=f"store-{mode()}")
    number, of = (int(x) for x in os.environ.get("SHARE", "1/1").split("/"))
    for kind, seed in parts[number - 1 :: of]:
        source = half if kind == HALF else store
        found = arm(inputs, targets, test, truth, source, kind=kind, seed=seed)
        progress.keep(name_of(kind, seed), found)
        share = np.unpackbits(np.array(found["right"], np.uint8)).mean()
        print(f"{name_of(kind, seed)}: {share:.4f}", file=sys.stderr)
    report(progress, store)


def name_of(kind: str, seed: int) -> str:
    """Of a part."""
    return f"K{kind}-{seed}"


def report(progress: Progress, store: LabelStore) -> None:
    """The table, the difference and its interval, from the parts that are finished."""
    rows: dict[str, np.ndarray] = {}
    for kind, seeds in SEEDS.items():
        parts = [progress.get(name_of(kind, seed)) for seed in range(seeds)]
        done = [np.unpackbits(np.array(p["right"], np.uint8)) for p in parts if p is not None]
        if done:
            rows[kind] = np.stack(done).astype(np.float64)
    figures = {}
    head = ["views per image", "seeds", "accuracy", "minus fresh (95 %)", "minus 4 (95 %)"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|---:|---:|"]
    table = Table(title=f"{ROWS:,} rows, {EPOCHS} epochs")
    for name in head:
        table.add_column(name)
    for kind in sorted(rows, key=lambda kind: math.inf if kind == FRESH else int(kind[0])):
        name = {FRESH: f"fresh ({EPOCHS})", HALF: "4, bfloat16"}.get(kind, kind)
        found = rows[kind]
        figures[f"accuracy_{kind}"] = float(found.mean())
        cells = [name, str(len(found)), f"{100 * found.mean():.2f} %"]
        for other in (FRESH, "4"):
            compared = kind != FRESH and (other == FRESH or kind == HALF)
            told = apart(found, rows.get(other)) if compared else None
            cells.append(
                "" if told is None else f"{told[0]:+.2f} ({told[1]:+.2f} to {told[2]:+.2f})"
            )
            if told is not None:
                behind = "" if other == FRESH else "_minus_4"
                for word, value in zip(
                    ("difference", "lower_bound", "upper_bound"), told, strict=True
                ):
                    figures[f"{word}_{kind}{behind}"] = value
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
    Console().print(table)
    figures["bytes_per_view"] = store.manifest.bytes / len(store)
    record("stored_views", figures, seeds=list(range(max(SEEDS.values()))), mode=mode())
    text = "\n".join([*lines, "", f"{ROWS:,} rows, {EPOCHS} epochs, {CLASSES} classes, {mode()}."])
    paste(text, name="stored_views", page=HERE.parent / "docs" / "benchmarks.md")


def apart(found: np.ndarray, other: np.ndarray | None) -> tuple[float, float, float] | None:
    """Points of difference over the seeds that both have, with the ends of the interval."""
    both = 0 if other is None else min(len(found), len(other))
    if other is None or both < 2:
        return None
    verdict = judge(
        found[:both],
        other[:both],
        higher_is_better=True,
        margin=0.01,
        name="accuracy",
        unit="share",
    )
    assert verdict.effect is not None
    assert verdict.low is not None
    assert verdict.high is not None
    return 100 * verdict.effect, 100 * verdict.low, 100 * verdict.high


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
