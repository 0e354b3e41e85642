"""Language models: what distilling costs, and what it is worth on a real text.

`epoch_over_cross_entropy`: an epoch of a 2-layer student from stored labels (top-64 and the mass of
the rest of a 6-layer teacher, vocabulary 4,096) over an epoch from the next tokens alone, in the
same engine; reading the store is inside. They take turns; the median over turns of the ratio of the
median steps. `live_over_cross_entropy` asks the teacher at every step instead.
`plain_over_cross_entropy` is PyTorch's own cross entropy on all logits: above 1 where ours is
faster, so that the ratio is not won by a slow base.

`bits_per_byte_gain`: control less student on the last tenth of tiny Shakespeare, teacher of four
times the student's parameters, same start weights, order and steps, five seeds; `gain_low` is the
lower end of the 95 % interval over seeds and rows.

`trainer_over_plain`: a step of Hugging Face's `Trainer` with our objective and stored labels over
its own with cross entropy (`hf_trainer_parts.py`).

FULL=1: more epochs. Goes on where it was stopped.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import RESULTS, Progress, mode, record
from language_model_grounds import (
    HARD,
    RATE,
    TEMPERATURE,
    Ground,
    Sizes,
    aims,
    ground,
    kept_or,
    loader,
    model,
    sizes_of,
    stored,
    taught,
    threads,
    told,
)
from language_model_table import PAGE, show
from torch.nn import functional as F

from understudy.contracts import Batch, Teacher
from understudy.engine import fit
from understudy.evaluate.language import bits_per_byte
from understudy.evaluate.verdict import gap_closed, judge
from understudy.models import GPT
from understudy.objective import AnyObjective
from understudy.recipe import LearningRate, Training
from understudy.teachers.causal_teacher import CausalTeacher

HERE = Path(__file__).parent
WORK = HERE.parent / "runs" / "benchmarks" / "language_model" / mode()
MARGIN = 0.005
SIZES = replace(Sizes(), epochs=8, teacher_epochs=16) if mode() == "full" else Sizes()


class Clock:
    """Seconds from one step to the next, backward pass, optimizer and next batch included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, step: int) -> None:
        """A step has been seen."""
        del step
        self.ends.append(time.perf_counter())

    def middle(self) -> float:
        """The median over steps, without the first, which pays for what is made once."""
        return statistics.median(np.diff(self.ends)[1:])


def turn(on: Ground, objective: AnyObjective, teacher: Teacher | None, seed: int) -> float:
    """Seconds of a step of the engine."""
    clock = Clock()
    fit(
        student=model(on, on.sizes.timed_student, seed=seed),
        objective=objective,
        teacher=teacher,
        training=Training(
            epochs=1,
            batch_size=on.sizes.batch,
            schedule=LearningRate(kind="constant", warm_up=0.0),
            trainer={"limit_train_batches": on.sizes.steps},
        ),
        loader=loader(on.train, batch=on.sizes.batch, seed=seed),
        validation=None,
        validate=None,
        seed=seed,
        on_step=clock,
    )
    return clock.middle()


def plain_turn(on: Ground, seed: int) -> float:
    """Seconds of a step of a bare loop with PyTorch's own cross entropy on all logits."""
    student, clock = model(on, on.sizes.timed_student, seed=seed).train(), Clock()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    for number, batch in enumerate(loader(on.train, batch=on.sizes.batch, seed=seed)):
        if number == on.sizes.steps:
            break
        loss = cross_entropy(student, batch)
        clock(number)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return clock.middle()


def cross_entropy(student: GPT, batch: Batch) -> torch.Tensor:
    """The mean over the positions that count."""
    assert batch.labels is not None
    logits = student(batch.inputs.long())
    return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-1)


def timed(sizes: Sizes, place: Path) -> dict[str, Any]:
    """Steps of every way of training, in turns."""
    on = ground(sizes, vocabulary=sizes.timed_vocabulary)
    rows = replace_rows(on, sizes.steps * sizes.batch)
    teacher = model(rows, sizes.timed_teacher, seed=99).eval()
    cached = stored(rows, teacher, place / "timed-labels")
    live = CausalTeacher(teacher)
    ways: dict[str, Callable[[int], float]] = {
        "plain": lambda seed: plain_turn(rows, seed),
        "cross_entropy": lambda seed: turn(rows, aims(rows, None), None, seed),
        "stored": lambda seed: turn(rows, aims(rows, cached), cached, seed),
        "live": lambda seed: turn(rows, aims(rows, live, head=live.head), live, seed),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(sizes.rounds + 1):
        for name, way in ways.items():
            found = way(number)
            if number:  # the first round warms up
                times[name].append(found)
    student = model(rows, sizes.timed_student, seed=0)
    return {
        **times,
        "vocabulary": on.task.vocabulary,
        "parameters": sizes_of([teacher, student]),
    }


def replace_rows(on: Ground, count: int) -> Ground:
    """The same text with so many training rows: labels of the others would not be read."""
    train = on.train
    some = replace(
        train, tokens=train.tokens[:count], labels=train.labels[:count], bytes=train.bytes[:count]
    )
    return replace(on, train=some)


def trained(progress: Progress, sizes: Sizes, place: Path) -> None:
    """Teacher, students and controls; every arm is a part of its own."""
    on = ground(sizes, vocabulary=sizes.vocabulary)
    whole = kept_or(
        place / "teacher.safetensors",
        model(on, sizes.teacher, seed=99, dropout=0.1),
        lambda network: taught(on, network, None, epochs=sizes.teacher_epochs, seed=99),
    )
    if progress.get("teacher") is None:
        student = model(on, sizes.student, seed=0)
        told_of = {"judged": told(on, on.judged, whole), "chosen": told(on, on.chosen, whole)}
        more = {
            "parameters": sizes_of([whole, student]),
            "bytes": on.judged.bytes.sum(axis=1).tolist(),
        }
        progress.keep("teacher", told_of | more | {"chosen_bytes": int(on.chosen.bytes.sum())})
        print("teacher: done", file=sys.stderr)
    cached = stored(on, whole, place / "labels")
    for seed in sizes.seeds:
        for arm, teacher in (("student", cached), ("control", None)):
            part = f"{arm}-{seed}"
            if progress.get(part) is not None:
                continue
            student = model(on, sizes.student, seed=seed)
            taught(on, student, teacher, epochs=sizes.epochs, seed=seed)
            progress.keep(
                part,
                {"judged": told(on, on.judged, student), "chosen": told(on, on.chosen, student)},
            )
            print(f"{part}: done", file=sys.stderr)


def gains(parts: dict[str, Any], seeds: tuple[int, ...]) -> dict[str, float]:
    """The figures of the trained ones."""
    bytes_ = np.array(parts["teacher"]["bytes"], np.float64)
    best = np.array(parts["teacher"]["judged"]["best"])

    def costs(name: str) -> np.ndarray:
        """Each row's share of the bits per byte."""
        return np.array(parts[name]["judged"]["nats"]) / bytes_.mean() / np.log(2)

    tables = {
        arm: np.stack([costs(f"{arm}-{seed}") for seed in seeds]) for arm in ("student", "control")
    }
    verdict = judge(
        tables["student"],
        tables["control"],
        higher_is_better=False,
        margin=MARGIN,
        name="bits_per_byte",
        unit="bits",
    )
    print(verdict.sentence)
    closed = gap_closed(costs("teacher"), tables["student"], tables["control"],
                        higher_is_better=False)  # fmt: skip
    counts = parts["teacher"]["parameters"]
    chosen = float(parts["teacher"]["chosen_bytes"])
    found = {
        "bits_per_byte_gain": verdict.effect,
        "gain_low": verdict.low,
        "gain_high": verdict.high,
        "gap_closed": closed,
        "bits_per_byte_teacher": float(costs("teacher").mean()),
        "parameters_teacher": counts[0],
        "parameters_student": counts[1],
        "parameters_ratio": counts[0] / counts[1],
    }
    for arm, table in tables.items():
        same = [np.array(parts[f"{arm}-{seed}"]["judged"]["best"]) == best for seed in seeds]
        nats = [np.sum(parts[f"{arm}-{seed}"]["chosen"]["nats"]) for seed in seeds]
        found[f"bits_per_byte_{arm}"] = float(table.mean())
        found[f"chosen_bits_per_byte_{arm}"] = bits_per_byte(float(np.mean(nats)), chosen)
        found[f"agreement_{arm}"] = float(np.mean(same))
    return {name: value for name, value in found.items() if value is not None}


def ratios(times: dict[str, Any]) -> dict[str, float]:
    """The figures of the timed ones."""
    base = times["cross_entropy"]

    def over(name: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], base, strict=True))

    return {
        "epoch_over_cross_entropy": over("stored"),
        "live_over_cross_entropy": over("live"),
        "plain_over_cross_entropy": over("plain"),
        **{
            f"{name}_step_ms": 1000 * statistics.median(times[name])
            for name in ("plain", "cross_entropy", "stored", "live")
        },
        "timed_vocabulary": times["vocabulary"],
    }


def main(
    sizes: Sizes = SIZES,
    *,
    results: Path = RESULTS,
    place: Path = WORK,
    hf: bool = True,
    page: Path | None = PAGE,
) -> dict[str, float]:
    """Time, train, record."""
    progress = Progress("language_model", results=results)
    if progress.get("timed") is None:
        progress.keep("timed", timed(sizes, place))
    if hf and progress.get("trainer") is None:
        from hf_trainer_parts import Sizes as TrainerSizes
        from hf_trainer_parts import trainer_over_plain

        with tempfile.TemporaryDirectory() as empty:
            progress.keep("trainer", trainer_over_plain(TrainerSizes(), Path(empty)))
    trained(progress, sizes, place)
    parts = progress.finished()
    figures = ratios(parts["timed"]) | parts.get("trainer", {}) | gains(parts, sizes.seeds)
    figures |= {"hard_weight": HARD, "temperature": TEMPERATURE, "learning_rate": RATE}
    record("language_model", figures, seeds=list(sizes.seeds), mode=mode(), results=results)
    for name, value in figures.items():
        print(f"{name:32} {value:.4f}")
    show(figures, seeds=len(sizes.seeds), page=page)
    return figures


if __name__ == "__main__":
    torch.set_num_threads(threads())
    main()
