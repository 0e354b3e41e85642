"""Stage `precision`: in which numbers this machine trains the student fastest, once per run."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from understudy.contracts import Progress
from understudy.engine import pick
from understudy.models.deployable import Deployable
from understudy.objective import AnyObjective, control_of
from understudy.pipeline.fresh import fresh_student
from understudy.pipeline.student import student_mark
from understudy.pipeline.work import Work, threads_for
from understudy.recipe import Training

STAGE = "precision"


def precision_of(work: Work) -> str | None:
    """What `precision: auto` comes to; None where no phase leaves it open.

    All arms and seeds train in it, or a difference between them could be one of arithmetic; a
    session that goes on with the run keeps it.
    """
    asked = [
        p.training for p in work.recipe.phases if p.training and p.training.precision == "auto"
    ]
    if not asked:
        return None
    first = asked[0]
    depends = student_mark(work) | {
        "batch_size": first.batch_size,
        "accelerator": first.trainer.get("accelerator"),
    }
    summary = work.stage(STAGE, depends, lambda _: _picked(work, first))
    found: str = summary["precision"]
    return found


def _picked(work: Work, training: Training) -> dict[str, Any]:
    material = work.material
    student = fresh_student(work, work.recipe.seed_list[0]).module
    assert isinstance(student, Deployable)
    rows = material.inputs[material.splits.train[: training.batch_size]]
    objective: AnyObjective = control_of([], task=work.task)
    with threads_for(student, material.inputs, training.batch_size):
        picked = pick(student, objective, rows, training)
    work.progress.say(picked.line())
    return asdict(picked)


def decided(
    training: Training,
    student: Callable[[], nn.Module],
    objective: AnyObjective,
    rows: Tensor,
    progress: Progress,
) -> Training:
    """The training with its precision; `progress` is told where it had to be found out."""
    if training.precision != "auto":
        return training
    picked = pick(student(), objective, rows, training)
    progress.say(picked.line())
    return settled(training, picked.precision)


def settled(training: Training, precision: str | None) -> Training:
    """The training with its precision decided."""
    if training.precision != "auto" or precision is None:
        return training
    return training.model_copy(update={"precision": precision})
