"""Mistakes of recipes whose models answer with vectors, and of recipes that speak of vectors."""

from collections.abc import Callable, Iterator

from understudy.errors import Mistake
from understudy.recipe import Entry, Recipe, Source

Place = tuple[str | int, ...]
Look = Callable[[Entry, Place, Source], Iterator[Mistake]]


def vector_mistakes(recipe: Recipe, place: Source, look: Look) -> Iterator[Mistake]:
    """Everything that is wrong with a task of vectors, and with how they are judged.

    Args:
        recipe: the whole of it.
        place: where relative paths start.
        look: finds the mistakes of a source of rows.
    """
    yield from _judging(recipe, place, look)
    if recipe.task.has_labels:
        yield from _elsewhere(recipe)
        return
    teacher = recipe.teacher
    if teacher.training is not None:
        law = (
            "vectors have no labels that a teacher could be trained on here: load one, such as "
            "`model: {kind: sentence_encoder, folder: ...}`"
        )
        yield Mistake(path=("teacher", "training"), law=law)
    for name in ("ensemble", "zero_shot"):
        if getattr(teacher, name):
            law = f"`{name}` answers with classes, but the task is embedding: name one encoder"
            yield Mistake(path=("teacher", name), law=law)
    told = teacher.model is not None and teacher.model.kind == "sentence_encoder"
    if recipe.task.dimension is None and not told:
        law = (
            "how wide vectors are is read off a teacher of `kind: sentence_encoder`; for any other "
            "say `dimension`"
        )
        yield Mistake(path=("task",), law=law)
    if recipe.transfer is not None:
        law = "what vectors are good for is asked with `evaluate.probes`: remove `transfer`"
        yield Mistake(path=("transfer",), law=law)
    if recipe.student.blockwise is not None:
        law = "a student from blocks is chosen by its answers' classes, but the task is embedding"
        yield Mistake(path=("student", "blockwise"), law=law)


def _judging(recipe: Recipe, place: Source, look: Look) -> Iterator[Mistake]:
    section = recipe.evaluate
    for name, given in (("pairs", section.pairs), ("probes", section.probes)):
        if given and recipe.task.has_labels:
            law = f"`{name}` judge vectors, but the task is {recipe.task.kind}: remove them"
            yield Mistake(path=("evaluate", name), law=law)
    if section.pairs is not None and not place.resolve(section.pairs.path).is_file():
        there = place.resolve(section.pairs.path)
        law = f"this file must exist, but there is no {there}: correct the path"
        yield Mistake(path=("evaluate", "pairs", "path"), law=law)
    for number, probe in enumerate(section.probes):
        yield from look(probe.source, ("evaluate", "probes", number, "source"), place)


def _elsewhere(recipe: Recipe) -> Iterator[Mistake]:
    models = (("teacher", recipe.teacher.model), ("student", recipe.student.model))
    for side, entry in models:
        if entry is not None and entry.kind in ("sentence_encoder", "static"):
            law = (
                f"`{entry.kind}` answers with vectors, but the task is {recipe.task.kind}: use "
                f"{'`hf_encoder`' if entry.kind == 'sentence_encoder' else '`text_static`'}, or "
                "set `task: {kind: embedding}`"
            )
            yield Mistake(path=(side, "model", "kind"), law=law)
