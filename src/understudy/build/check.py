"""Every mistake of a recipe that its form cannot show: kinds, parameters, targets, files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy import data
from understudy.build.arguments import wrong_arguments
from understudy.build.check_chain import chain_mistakes
from understudy.build.check_labels import labels_mistakes, made
from understudy.build.check_models import model_mistakes, split_mistakes
from understudy.build.check_terms import (
    batch_mistakes,
    objective_mistakes,
    order_mistakes,
    teacher_mistakes,
)
from understudy.build.check_tokens import token_mistakes
from understudy.build.check_training import training_mistakes
from understudy.build.check_vectors import vector_mistakes
from understudy.build.check_writing import writing_mistakes
from understudy.build.commissions import commission_mistakes
from understudy.build.hub_names import is_hub_name
from understudy.build.parts import MODELS, PATHS, named_files, unknown_kind, with_paths
from understudy.build.targets import TargetError, resolve
from understudy.build.unlabelled import unlabelled_sources
from understudy.data.views import CATALOGUE as VIEWS
from understudy.data.views import MIXING, misplaced
from understudy.errors import Mistake, RecipeError
from understudy.recipe import (
    BrokenRecipeError,
    Entry,
    Learning,
    MemberSection,
    Phase,
    Recipe,
    Source,
    TeacherSection,
    TermEntry,
    load,
    loads,
)

Place = tuple[str | int, ...]

# What is filled in from the data, by parameter name; see `pipeline`.
FACTS = (
    *("inputs", "channels", "height", "image_width"),
    *("vocabulary", "pad", "length", "width"),
    *("context", "begin", "end"),
)


def check(recipe: Recipe, place: Source) -> None:
    """Look at everything that is named in a recipe, without running any of it.

    Raises:
        RecipeError: every mistake at once.
    """
    found = [*_data(recipe, place), *_teacher(recipe, place)]
    if recipe.student.model is not None:
        found += _entry(recipe.student.model, ("student", "model"), MODELS, place, FACTS)
    found += chain_mistakes(recipe)
    phases = list(_phases(recipe))
    for where, phase in phases:
        found += _objective(phase, (*where, "objective"), recipe, place)
    found += order_mistakes([(phase.objective, (*where, "objective")) for where, phase in phases])
    found += labels_mistakes(recipe)
    found += vector_mistakes(recipe, place, _rows)
    found += token_mistakes(recipe)
    found += [*split_mistakes(recipe), *model_mistakes(recipe, place)]
    found += writing_mistakes(recipe, place)
    found += commission_mistakes(recipe, place)
    found += training_mistakes(recipe)
    if found:
        raise RecipeError([place.place(m) for m in found], place.name)


def checked(
    path: Path, settings: Sequence[str] = (), *, text: str | None = None
) -> tuple[Recipe, Source]:
    """Read a recipe file and look at everything in it: all mistakes of form and of content at once.

    Args:
        path: the file, which names the recipe and is where its relative paths start.
        settings: changes, `section.field=value`.
        text: the recipe itself, where it is not in a file.

    Raises:
        RecipeError: every mistake.
    """
    try:
        if text is None:
            recipe, place = load(path, settings)
        else:
            recipe, place = loads(text, settings, name=str(path), folder=path.parent)
    except BrokenRecipeError as error:
        raise RecipeError([*error.mistakes, *_more(error)], error.source) from None
    check(recipe, place)
    return recipe, place


def _more(error: BrokenRecipeError) -> list[Mistake]:
    """Mistakes in what is sound, but not below what is broken."""
    if error.rest is None:
        return []
    try:
        check(error.rest, error.place)
    except RecipeError as found:
        broken = [m.path for m in error.mistakes if m.path]
        return [m for m in found.mistakes if not any(m.path[: len(b)] == b for b in broken)]
    return []


def check_term(entry: TermEntry, task: str) -> None:
    """Look at one term that was not read from a file.

    Raises:
        RecipeError: every mistake in it.
    """
    found = list(objective_mistakes((entry,), ("objective",), task, _customs(Source())))
    if found:
        raise RecipeError(found, "objective")


def _data(recipe: Recipe, place: Source) -> Iterator[Mistake]:
    yield from _rows(recipe.data.source, ("data", "source"), place)
    yield from _unlabelled(recipe, place)
    named = recipe.data.tokenizer.file
    if named is not None and not is_hub_name(named, place):
        yield from _file(str(place.resolve(named)), ("data", "tokenizer", "file"))
    if recipe.transfer is not None:
        yield from _rows(recipe.transfer.source, ("transfer", "source"), place)
    for number, view in enumerate(recipe.data.views):
        at = ("data", "views", number)
        if view.kind in VIEWS:
            yield from made(VIEWS[view.kind], view.parameters, at)
        else:
            yield from _entry(view, at, VIEWS, place, ())
    for number, law in misplaced([view.kind in MIXING for view in recipe.data.views]):
        yield Mistake(path=("data", "views", number, "kind"), law=law)


def _unlabelled(recipe: Recipe, place: Source) -> Iterator[Mistake]:
    sources = unlabelled_sources(recipe.data)
    for number, (named, entry) in enumerate(zip(recipe.data.unlabelled, sources, strict=True)):
        where = ("data", "unlabelled", number)
        if isinstance(named, str) and recipe.data.source.kind != "text":
            law = (
                "a path alone is read as the texts of `data.source` are, but that is of kind "
                f"`{recipe.data.source.kind}`: write a whole source, `{{kind: ..., path: ...}}`"
            )
            yield Mistake(path=where, law=law)
        else:
            yield from _rows(entry, where, place)


def _rows(entry: Entry, where: Place, place: Source) -> Iterator[Mistake]:
    """What is wrong with a source of rows."""
    yield from _entry(entry, where, data.CATALOGUE, place, ())
    if entry.kind != "custom":
        for name, value in with_paths(entry.parameters, place).items():
            if name in PATHS and isinstance(value, str):
                yield from _file(value, (*where, name))


def _teacher(recipe: Recipe, place: Source) -> Iterator[Mistake]:
    yield from _member(recipe.teacher, ("teacher",), place)
    for number, member in enumerate(recipe.teacher.ensemble):
        yield from _member(member, ("teacher", "ensemble", number), place)
    if recipe.teacher.told_classes is not None and recipe.task.kind != "classification":
        law = f"a zero-shot teacher tells classes, but the task is {recipe.task.kind}: use another"
        yield Mistake(path=("teacher",), law=law)


def _member(
    member: TeacherSection | MemberSection, where: Place, place: Source
) -> Iterator[Mistake]:
    if member.model is not None:
        yield from _entry(member.model, (*where, "model"), MODELS, place, FACTS)
        yield from _folder(member.model, (*where, "model", "folder"), place)
    if member.predictor is not None:
        yield from _entry(member.predictor, (*where, "predictor"), {}, place, ())
    if member.zero_shot is not None:
        yield from _encoder(member.zero_shot.encoder, (*where, "zero_shot", "encoder"), place)
    for name in ("weights", "onnx"):
        value = getattr(member, name)
        if value is not None:
            yield from _file(str(place.resolve(value)), (*where, name))


def _folder(entry: Entry, where: Place, place: Source) -> Iterator[Mistake]:
    value = entry.parameters.get("folder")
    if entry.kind in MODELS and isinstance(value, str):
        yield from _encoder(value, where, place)


def _encoder(value: str, where: Place, place: Source) -> Iterator[Mistake]:
    """What looks like a path must be there; a name of a hub is looked for when it is needed."""
    path = value.startswith((".", "/", "~", "package:")) or value.count("/") > 1
    if path and not place.resolve(value).is_dir():
        there = place.resolve(value)
        yield Mistake(
            path=where, law=f"this folder must exist, but there is no {there}: correct it"
        )


def _file(value: str, where: Place) -> Iterator[Mistake]:
    if not named_files(value):
        law = f"this file must exist, but there is no {value}: correct the path"
        yield Mistake(path=where, law=law)


def _entry(
    entry: Entry,
    where: Place,
    known: Mapping[str, Callable[..., Any]],
    place: Source,
    filled: tuple[str, ...],
) -> list[Mistake]:
    law = unknown_kind(entry.kind, known)
    if law:
        return [Mistake(path=(*where, "kind"), law=law)]
    if entry.kind == "custom":
        return _custom(entry, where, place, filled)
    laws = wrong_arguments(known[entry.kind], entry.parameters, filled=filled)
    return [Mistake(path=(*where, name), law=law) for name, law in laws.items()]


def _custom(entry: Entry, where: Place, place: Source, filled: tuple[str, ...]) -> list[Mistake]:
    try:
        function = resolve(entry.parameters["target"], place.folder)
    except TargetError as error:
        return [Mistake(path=(*where, "target"), law=str(error))]
    laws = wrong_arguments(function, entry.parameters.get("arguments", {}), filled=filled)
    target = entry.parameters["target"]
    made = {"predictor": "the callable that answers rows", "model": "the network"}.get(
        str(where[-1]), "the loss" if "objective" in where else ""
    )
    return [
        Mistake(path=(*where, "arguments", name), law=law + _factory(law, target, made))
        for name, law in laws.items()
    ]


def _factory(law: str, target: str, made: str) -> str:
    """Who gives the thing itself instead of what makes it meets a missing parameter."""
    if not made or "required" not in law:
        return ""
    return f" (`{target}` is called once, with `arguments`, and must return {made})"


def _customs(place: Source) -> Callable[[Entry, Place], list[Mistake]]:
    return lambda entry, at: _custom(entry, at, place, ())


def _objective(phase: Phase, where: Place, recipe: Recipe, place: Source) -> Iterator[Mistake]:
    yield from objective_mistakes(phase.objective, where, recipe.task.kind, _customs(place))
    yield from teacher_mistakes(phase.objective, where, recipe.teacher)
    yield from batch_mistakes(phase, where)


def _phases(recipe: Recipe) -> Iterator[tuple[Place, Phase]]:
    for number, step in enumerate(recipe.steps):
        if not isinstance(step, Learning):
            continue
        if step.phases is not None:
            for inner, phase in enumerate(step.phases):
                training = phase.training or step.training
                whole = Phase(objective=phase.objective, training=training)
                yield ("steps", number, "phases", inner), whole
        elif step.objective is not None:
            yield ("steps", number), Phase(objective=step.objective, training=step.training)
