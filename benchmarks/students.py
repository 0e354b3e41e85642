"""Which half of a teacher's blocks to keep: the importance distiller against other choices.

The real ResNet-32 on CIFAR-100 and a real sentence encoder keep half of their blocks, are distilled
shortly, all in the same way, and are scored on test rows after the last epoch. `evenly` spreads the
kept blocks, `random` is the mean of five draws, `unscaled` is importance without factors for the
kept branches, `cosine`, `skip` and `taylor` are other measures of importance, and `scratch` is the
structure that importance chose with fresh weights.

FULL=1: 20,000 images, 10 epochs, three seeds of every arm. Reduced: 5,000 images, 3 epochs, three
seeds of every arm but random, of whose five draws each has one.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import students_encoder
import torch
from cifar_loops import CLASSES, TASK, Remembered, deployable, images, teacher_network, views
from harness import RESULTS, Progress, mode, paste, record
from torch import nn

from understudy import build
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit
from understudy.evaluate.verdict import judge
from understudy.losses import HardLabel, SoftTargetKL
from understudy.models.deployable import Deployable
from understudy.objective import Objective, Term
from understudy.recipe import DepthCut, LearningRate, Optimizer, Training

FULL = mode() == "full"
ROWS, EPOCHS, VIEWS, TEST = (20_000, 10, 4, 10_000) if FULL else (5_000, 3, 2, 5_000)
KEEP, CALIBRATION, BATCH, SEEDS, DRAWS = 0.5, 1000, 64, 3, 5
NAMED = ("importance", "evenly", "unscaled", "cosine", "skip", "taylor", "scratch")


@cache
def ground() -> dict[str, Any]:
    """Rows, the teacher, and its answers."""
    inputs, labels = images(ROWS)
    test, truth = images(TEST, file="test.parquet")
    teacher = deployable(teacher_network(32)).eval()
    source = loader(inputs, labels, seed=0)
    told = torch.zeros(VIEWS, ROWS, CLASSES)
    with torch.inference_mode():
        for view in range(1, VIEWS + 1):
            for start in range(0, ROWS, 250):
                rows = np.arange(start, min(start + 250, ROWS))
                told[view - 1, rows] = teacher(source.batch(rows, np.full(len(rows), view)).inputs)
    calibration = torch.from_numpy(inputs[:CALIBRATION])
    with torch.no_grad():
        fed = teacher.preprocess(calibration)
    return {
        "inputs": inputs,
        "labels": labels,
        "test": test,
        "truth": truth,
        "teacher": teacher,
        "told": Remembered(told),
        "fed": fed,
    }


def loader(inputs: np.ndarray, labels: np.ndarray, *, seed: int) -> MemoryLoader:
    """Cropped and flipped, the same few views again and again."""
    return MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(labels),
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=BATCH,
        views=views(),
        seed=seed,
        cycle=VIEWS,
    )


@cache
def plan(by: str, draw: int) -> Any:
    """Which blocks stay; labels are not shown to any of the measures."""
    at = ground()
    scale = by == "importance"
    measure = "importance" if by == "unscaled" else by
    cut = DepthCut(keep=KEEP, by=measure, scale=scale)  # type: ignore[arg-type]
    chosen, _ = build.plan_cut(
        cut, at["teacher"].network, at["fed"], labels=None, seed=draw, family=None
    )
    print(f"{by} {draw}: " + "; ".join(chosen.lines()), file=sys.stderr)
    return chosen


def student(by: str, draw: int, seed: int) -> Deployable:
    """A cut copy of the teacher; `scratch` has its structure, and fresh weights."""
    at = ground()
    chosen = plan("importance" if by == "scratch" else by, draw)
    network = build.apply_cut(
        chosen, at["teacher"].network, at["fed"][:64], seed=seed, family=None
    ).module
    if by == "scratch":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in network.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return deployable(network)


def right(module: Deployable) -> np.ndarray:
    """Which test rows it gets right."""
    at = ground()
    found = []
    module.eval()
    with torch.inference_mode():
        for start in range(0, TEST, 500):
            answer = module(torch.from_numpy(at["test"][start : start + 500]))
            found.append(answer.argmax(dim=1).numpy() == at["truth"][start : start + 500])
    return np.concatenate(found)


def train(by: str, draw: int, seed: int, folder: Any) -> dict[str, Any]:
    """One arm, before and after its training."""
    at = ground()
    module = student(by, draw, seed)
    before = float(right(module).mean())
    terms = [
        Term(name="hard", loss=HardLabel(), reads="logits", labels=True, weight=0.1),
        Term(
            name="soft",
            loss=SoftTargetKL(temperature=4.0),
            reads="logits",
            needs=("logits",),
            weight=0.9,
        ),
    ]
    fit(
        student=module,
        objective=Objective(terms, task=TASK, offers=at["told"].offers),
        teacher=at["told"],
        training=Training(
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=Optimizer(kind="sgd", learning_rate=0.02, weight_decay=0.0005),
            schedule=LearningRate(kind="cosine"),
        ),
        loader=loader(at["inputs"], at["labels"], seed=seed),
        validation=None,
        validate=None,
        seed=seed,
        folder=folder,
    )
    hits = right(module)
    kept = list(plan("importance" if by == "scratch" else by, draw).keep)
    return {"before": before, "right": np.packbits(hits).tolist(), "kept": kept}


def arms() -> list[tuple[str, int, int]]:
    """Choice, draw and seed of every training, seeds outermost."""
    found = []
    for seed in range(SEEDS):
        found += [(by, 0, seed) for by in NAMED]
        draws = range(DRAWS) if FULL else [d for d in range(DRAWS) if d % SEEDS == seed]
        found += [("random", draw, seed) for draw in draws]
    return found


Train = Callable[[str, int, int, Any], dict[str, Any]]


def finish(progress: Progress, ground_name: str, one: Train) -> dict[str, list[dict[str, Any]]]:
    """Every arm of a ground that is not finished yet; all of them by choice."""
    found: dict[str, list[dict[str, Any]]] = {}
    for by, draw, seed in arms():
        if by == "scratch" and ground_name == "encoder":
            continue
        part = f"{ground_name}-{by}{draw}-{seed}"
        kept = progress.get(part)
        if kept is None:
            folder = RESULTS.parent.parent / "runs" / "benchmarks" / "students" / mode() / part
            kept = progress.keep(part, one(by, draw, seed, folder) | {"seed": seed, "draw": draw})
            print(f"{part}: {kept.get('score', kept.get('before'))}", file=sys.stderr)
        found.setdefault(by, []).append(kept)
    return found


def hits(parts: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Trainings by test rows."""
    return np.stack([np.unpackbits(np.array(p["right"], np.uint8))[:TEST] for p in parts]).astype(
        float
    )


def images_table(found: Mapping[str, list[dict[str, Any]]]) -> tuple[dict[str, float], list[str]]:
    """Accuracies and their differences from the even cut."""
    figures: dict[str, float] = {}
    lines = [
        "| blocks kept by | before training | after | minus even (95 %) | trainings |",
        "|---|---:|---:|---:|---:|",
    ]
    even = hits(found["evenly"])
    for by, parts in found.items():
        values = hits(parts)
        figures[f"cifar_{by}"] = float(values.mean())
        apart = ""
        if by != "evenly" and len(values) == len(even):
            verdict = judge(
                values, even, higher_is_better=True, margin=0.0, name="accuracy", unit="share"
            )
            assert verdict.low is not None
            assert verdict.high is not None
            assert verdict.effect is not None
            low, high = 100 * verdict.low, 100 * verdict.high
            apart = f"{100 * verdict.effect:+.2f} ({low:+.2f} to {high:+.2f})"
            if by == "importance":
                figures["importance_over_even"] = 100 * verdict.effect
                figures["importance_over_even_low"] = 100 * verdict.low
        before = np.mean([p["before"] for p in parts])
        mean = 100 * values.mean()
        lines.append(f"| {by} | {100 * before:.1f} % | {mean:.2f} % | {apart} | {len(parts)} |")
    gain = figures["cifar_importance"] - figures["cifar_random"]
    figures["importance_gain_points"] = 100 * gain
    figures["importance_over_scratch_points"] = 100 * (
        figures["cifar_importance"] - figures["cifar_scratch"]
    )
    return figures, lines


def main() -> None:
    """Both grounds, the tables, the record."""
    progress = Progress("students")
    figures, lines = images_table(finish(progress, "cifar", train))
    words = [f"The real ResNet-32, 8 of its 15 blocks; {ROWS:,} images, {EPOCHS} epochs:", ""]
    if students_encoder.available():
        encoder = finish(progress, "encoder", students_encoder.train)
        more, table = students_encoder.table(encoder)
        figures |= more
        lines += ["", students_encoder.WORDS, "", *table]
    record("students", figures, seeds=list(range(SEEDS)), mode=mode())
    text = "\n".join([*words, *lines])
    print(text)
    paste(text, name="students", page=RESULTS.parent.parent / "docs" / "benchmarks.md")


if __name__ == "__main__":
    main()
