"""In which numbers models of a run learn, where the recipe leaves that to the machine."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from understudy.contracts import Progress
from understudy.engine import pick
from understudy.folders import read_json, write_json
from understudy.objective import AnyObjective
from understudy.pipeline.work import threads_for
from understudy.recipe import Training

KEPT = "precision.json"


def settled(training: Training, precision: str | None) -> Training:
    """The training with its precision decided."""
    if training.precision != "auto" or precision is None:
        return training
    return training.model_copy(update={"precision": precision})


def decided(
    training: Training,
    student: Callable[[], nn.Module],
    objective: AnyObjective,
    rows: Tensor,
    progress: Progress,
    *,
    keep: Path | None = None,
) -> Training:
    """The training with its precision; `progress` is told where it had to be found out.

    Args:
        training: as the recipe has it.
        student: makes what is timed.
        objective: says what it is asked.
        rows: a batch of the usual size.
        progress: what is found is said there.
        keep: a folder in which it is kept, so that whoever goes on computes in the same numbers.
    """
    if training.precision != "auto":
        return training
    path = None if keep is None else keep / KEPT
    if path is not None and path.is_file():
        return settled(training, read_json(path)["precision"])
    module = student()
    with threads_for(module, rows, len(rows)):
        picked = pick(module, objective, rows, training)
    progress.say(picked.line())
    if path is not None:
        write_json(path, asdict(picked))
    return settled(training, picked.precision)
