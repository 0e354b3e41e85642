"""Mistakes in networks and test rows that a recipe shows by itself, before any row is read."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from understudy import data, models
from understudy.build.arguments import accepted, coerced, wrong_arguments
from understudy.build.parts import MODELS, NEEDS, folder
from understudy.errors import Mistake, ModelError
from understudy.recipe import Entry, Recipe, Source
from understudy.recipe.texts import EACH_TOKEN
from understudy.teachers.hf_classifier import check_kind

Place = tuple[str | int, ...]
CLASSIFIER: Final = "hf_classifier"

# What the rows of a source are, where its kind alone says so, and which network takes such rows.
_TEXTS = ("text", "lines", "conll", "restoring", "rewriting", "documents", "completions")
_ROWS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys((*_TEXTS, "teacher_text"), "texts")
    | dict.fromkeys(("digits", "images"), "images")
    | dict.fromkeys(("csv", "diabetes"), "rows of numbers")
)
_FITTING: Final = {"texts": "text_cnn", "images": "convnet", "rows of numbers": "mlp"}
# Of no data set: small networks are built with them, without memory, to see what they refuse.
_ANY: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(("vocabulary", "length", "context", "height", "image_width"), 1024)
    | {"inputs": 64, "channels": 3, "pad": 0, "width": 2}
)


def split_mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Test rows that are asked for and not given, or given and not asked for."""
    sections: list[tuple[Place, Any]] = [(("data",), recipe.data)]
    if recipe.transfer is not None:
        sections.append((("transfer",), recipe.transfer))
    for number, probe in enumerate(recipe.evaluate.probes):
        sections.append((("evaluate", "probes", number), probe))
    for where, section in sections:
        law = _test(section.source, section.test)
        if law:
            yield Mistake(path=(*where, "test"), law=law)


def model_mistakes(recipe: Recipe, place: Source) -> Iterator[Mistake]:
    """Networks for other rows than these, or of sizes that cannot be, and fine-tuned classifiers.

    Args:
        recipe: the whole of it.
        place: where relative paths start.
    """
    rows = _ROWS.get(recipe.data.source.kind)
    for where, entry in _networks(recipe):
        if entry.kind not in MODELS:
            continue
        # Tasks that are for texts alone say so of rows that are none.
        told = recipe.task.kind in EACH_TOKEN or not (recipe.task.has_labels or rows == "texts")
        if rows is not None and not told:
            yield from _unfit(entry, where, rows, recipe.data.source.kind)
        yield from _sizes(entry, where)
        if entry.kind == CLASSIFIER:
            yield from _classifier(entry, where, recipe, place)


def _networks(recipe: Recipe) -> Iterator[tuple[Place, Entry]]:
    teacher = recipe.teacher
    for number, member in enumerate(teacher.members):
        if member.model is not None:
            own: Place = ("ensemble", number) if teacher.ensemble else ()
            yield ("teacher", *own, "model"), member.model
    if recipe.student.model is not None:
        yield ("student", "model"), recipe.student.model


def _test(source: Entry, test: float | int | str) -> str:
    """What is wrong with the test rows of a source; empty where nothing is to be seen."""
    made = data.CATALOGUE.get(source.kind)
    if made is None:
        return ""
    named = [n for n in inspect.signature(made).parameters if n in ("test_path", "test_inputs")]
    given = [name for name in named if source.parameters.get(name) is not None]
    if test == "given" and not given:
        remedy = f"give it a `{named[0]}`, or draw" if named else "draw"
        return (
            "`test: given` needs a source with test rows of its own, but this one of kind "
            f"`{source.kind}` has none: {remedy} a share such as `test: 0.2`"
        )
    if test != "given" and given:
        return (
            f"the source has test rows of its own (`{given[0]}`), but `test: {test}` would draw "
            f"others: say `test: given`, or remove `{given[0]}`"
        )
    return ""


def _unfit(entry: Entry, where: Place, rows: str, source: str) -> Iterator[Mistake]:
    """A network that needs to know what these rows do not have."""
    parameters = inspect.signature(MODELS[entry.kind]).parameters.values()
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    needs = [NEEDS[name] for name in needed if name in NEEDS and name not in entry.parameters]
    # A picture is a row of numbers too.
    fits = {rows, "rows of numbers"} if rows == "images" else {rows}
    if needs and needs[0] not in fits:
        law = (
            f"`{entry.kind}` needs {needs[0]}, but a source of kind `{source}` gives {rows}: use "
            f"`kind: {_FITTING[rows]}`, or a network of your own"
        )
        yield Mistake(path=(*where, "kind"), law=law)


def _sizes(entry: Entry, where: Place) -> Iterator[Mistake]:
    """Numbers that a network of ours refuses, whatever the rows are."""
    made = models.CATALOGUE.get(entry.kind) or models.CAUSAL.get(entry.kind)
    if made is None or wrong_arguments(made, entry.parameters, filled=_ANY):
        return
    given = coerced(made, entry.parameters)
    facts = accepted(made, _ANY)
    if "vocabulary" in facts:  # any that knows the tokens which the recipe names
        named = [given.get(name) or 0 for name in ("begin", "end", "pad")]
        facts["vocabulary"] = max(facts["vocabulary"], 1 + max(named))
    if "patch" in given:  # whether it divides the pictures is seen when they are there
        facts |= dict.fromkeys(("height", "image_width"), given["patch"])
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            made(**(facts | given))
    except ValueError as error:
        law = str(error)
    except Exception:  # it cannot be built without memory, which is no mistake in the recipe
        return
    else:
        return
    at = next((n for n in given if f"{n}=" in law or f"`{n}" in law), None)
    if "dim %" in law:
        at, law = "heads", f"{law}: use `heads: {_heads(made, given)}`, or another `dim`"
    path = (*where, at) if at in entry.parameters else where
    yield Mistake(path=path, law=law)


def _heads(made: Any, given: Mapping[str, Any]) -> int:
    """The most heads up to what was said that divide `dim`."""
    defaults = {name: p.default for name, p in inspect.signature(made).parameters.items()}
    sizes: dict[str, Any] = {**defaults, **given}
    each = 2 if made is models.GPT else 1
    fits = [n for n in range(1, sizes["heads"] + 1) if sizes["dim"] % (each * n) == 0]
    return max(fits, default=1)


def _classifier(entry: Entry, where: Place, recipe: Recipe, place: Source) -> Iterator[Mistake]:
    """A fine-tuned classifier where none is of use, or that was saved as something else."""
    task = recipe.task.kind
    if where[0] == "student":
        law = (
            f"`{CLASSIFIER}` is a teacher, as it is in its folder: cut the student from it with "
            "`from_teacher`, or use `hf_encoder`"
        )
        yield Mistake(path=(*where, "kind"), law=law)
    elif task == "language_model":
        return  # told by the task
    elif task not in ("classification", "token_classification"):
        law = f"`{CLASSIFIER}` tells classes, but the task is {task}: use another teacher"
        yield Mistake(path=(*where, "kind"), law=law)
    elif isinstance(entry.parameters.get("folder"), str):
        law = _saved_as(folder(entry.parameters["folder"], place), each_token=task in EACH_TOKEN)
        if law:
            yield Mistake(path=(*where, "folder"), law=law)


def _saved_as(home: str, *, each_token: bool) -> str:
    """What is wrong with the kind of a model in a folder; a name of a hub is seen in the run."""
    try:
        told = json.loads((Path(home) / "config.json").read_text(encoding="utf-8"))
        saved = str(told["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""  # a folder without its files has its own message
    try:
        check_kind(saved, told.get("problem_type"), home, each_token=each_token)
    except ModelError as error:
        return str(error)
    return ""
