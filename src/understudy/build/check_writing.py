"""What is wrong with batches that a student writes itself, beyond the form of the section."""

from collections.abc import Iterator

from understudy.build.terms import terms
from understudy.errors import Mistake
from understudy.recipe import Learning, Phase, Recipe, Source, Training

_TASK = "language_model"
Place = tuple[str | int, ...]


def writing_mistakes(recipe: Recipe, place: Source) -> Iterator[Mistake]:
    """Every `on_policy` that cannot be: nobody writes, nobody scores, or nothing is compared."""
    given = recipe.teacher.training
    if given is not None and given.on_policy is not None:
        law = "a teacher has nobody to score what it writes: move it to the step of the student"
        yield Mistake(path=("teacher", "training", "on_policy"), law=law)
    for where, training in _trainings(recipe):
        law = _law(recipe, training)
        if law:
            yield Mistake(path=(*where, "on_policy"), law=law)
    if not any(phase.training and phase.training.on_policy for phase in recipe.phases):
        return
    for number, phase in enumerate(recipe.phases):
        law = _silent(phase, place)
        if law:
            yield Mistake(path=("steps", *_step(recipe, number), "training", "on_policy"), law=law)


def _law(recipe: Recipe, training: Training) -> str:
    section = training.on_policy
    assert section is not None
    if str(recipe.task.kind) != _TASK:
        return (
            f"only a language model writes what it learns from, but the task is "
            f"{recipe.task.kind}: remove it"
        )
    if recipe.labels.use != "live":
        return (
            "what the student writes has no stored labels: set `labels: {use: live}`, or remove it"
        )
    if section.refresh < 1 and section.buffer < training.batch_size:
        return (
            f"a batch is drawn from the buffer, so `buffer >= batch_size` must hold, but got "
            f"{section.buffer} and {training.batch_size}: use buffer: {4 * training.batch_size}"
        )
    return ""


def _silent(phase: Phase, place: Source) -> str:
    """Why nothing can be learned from what a phase writes; empty where something can."""
    if phase.training is None or phase.training.on_policy is None:
        return ""
    try:
        found = terms(phase.objective, place)
    except Exception:  # told where the terms are checked
        return ""
    if any(term.reads == "logits" and term.wants for term in found):
        return ""
    return (
        "what the student writes is compared with the teacher's answer, but no term of this "
        "objective does: add `reverse_kl`, `jensen_shannon` or `skew_kl`"
    )


def _trainings(recipe: Recipe) -> Iterator[tuple[Place, Training]]:
    for number, step in enumerate(recipe.steps):
        if not isinstance(step, Learning):
            continue
        if step.training.on_policy is not None:
            yield ("steps", number, "training"), step.training
        for inner, phase in enumerate(step.phases or ()):
            if phase.training is not None and phase.training.on_policy is not None:
                yield ("steps", number, "phases", inner, "training"), phase.training


def _step(recipe: Recipe, number: int) -> Place:
    """Where the phase of that number stands in its step."""
    left = number
    for link in recipe.chain:
        if left < len(link.phases):
            step = recipe.steps[link.step]
            own = isinstance(step, Learning) and step.phases is not None
            return (link.step, "phases", left) if own else (link.step,)
        left -= len(link.phases)
    raise IndexError(number)
