"""Mistakes in how models are trained, Lightning's own opinion included."""

import inspect
import os
from collections.abc import Iterator

import lightning.pytorch as lightning

from understudy.engine import OURS, quiet_lightning
from understudy.errors import Mistake, did_you_mean
from understudy.recipe import Learning, Recipe, Training

Place = tuple[str | int, ...]


def training_mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Of the teacher's training, and of every phase of every step."""
    for where, training in _trainings(recipe):
        yield from _training(training, where)


def _trainings(recipe: Recipe) -> Iterator[tuple[Place, Training]]:
    if recipe.teacher.training is not None:
        yield ("teacher", "training"), recipe.teacher.training
    for number, step in enumerate(recipe.steps):
        if not isinstance(step, Learning):
            continue
        yield ("steps", number, "training"), step.training
        for inner, phase in enumerate(step.phases or ()):
            if phase.training is not None:
                yield ("steps", number, "phases", inner, "training"), phase.training


def _trainer(training: Training, where: Place) -> Iterator[Mistake]:
    """What Lightning itself says of the values."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    # How many devices there are is found out when the processes are there; see `pipeline.crew`.
    alone = {"devices", "num_nodes"}
    if "WORLD_SIZE" in os.environ:
        alone.add("strategy")
    given = {k: v for k, v in training.trainer.items() if k not in alone}
    try:
        with quiet_lightning():
            lightning.Trainer(**(quiet | {"devices": 1} | given))
    except Exception as error:  # Lightning has several classes for it
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Mistake(path=where, law=f"Lightning's Trainer refuses {given}: {text}")


def _training(training: Training, where: Place) -> Iterator[Mistake]:
    known = [n for n in inspect.signature(lightning.Trainer).parameters if n not in OURS]
    for name in training.trainer:
        if name in OURS:
            law = f"`{name}` is set by the recipe itself: use the fields of `training`"
            yield Mistake(path=(*where, "trainer", name), law=law)
        elif name not in known:
            law = f"Lightning's Trainer has no `{name}`: {did_you_mean(name, known)}"
            yield Mistake(path=(*where, "trainer", name), law=law)
    if training.trainer and not set(training.trainer) - set(known):
        yield from _trainer(training, (*where, "trainer"))
    if "precision" in training.model_fields_set and "precision" in training.trainer:
        law = "the precision is said twice: keep `training.precision`, or the one in `trainer`"
        yield Mistake(path=(*where, "precision"), law=law)
    late = [m for m in training.schedule.milestones if m >= training.epochs]
    if late:
        law = f"milestones must lie before epoch {training.epochs}, but got {late}"
        yield Mistake(path=(*where, "schedule", "milestones"), law=law)
