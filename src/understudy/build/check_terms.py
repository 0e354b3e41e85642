"""Mistakes in the terms of an objective: kinds, constants, layers, adapters, and who can serve."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from understudy import losses
from understudy.build.arguments import accepted, coerced, wrong_arguments
from understudy.build.check_labels import made
from understudy.build.check_tokens import made_for
from understudy.build.parts import unknown_kind
from understudy.build.terms import split_schedules
from understudy.errors import Mistake, ModelError, did_you_mean
from understudy.features.adapters import ADAPTERS
from understudy.losses import Row
from understudy.objective.terms import usual
from understudy.recipe import Entry, Phase, TeacherSection, TermEntry

Place = tuple[str | int, ...]
# Losses around another: what that one reads, which it is by default, and their own constants.
_WRAPPERS = {
    "standardize": ("logits", "soft_target", ()),
    "matryoshka": ("embedding", "cosine", ("widths", "against")),
}
# What an adapter is told by a dry run and by the data, not by the recipe.
_FOUND = (
    *("student", "teacher", "ids", "labels", "margins"),
    *("student_words", "teacher_words"),
)


def objective_mistakes(
    entries: tuple[TermEntry, ...],
    where: Place,
    task: str,
    custom: Callable[[Entry, Place], list[Mistake]],
) -> Iterator[Mistake]:
    """Everything that is wrong with the terms themselves.

    Args:
        entries: of one phase.
        where: the place of their list in the recipe.
        task: its kind.
        custom: looks at a loss of the user's own.
    """
    for number, entry in enumerate(entries):
        at = (*where, number)
        law = unknown_kind(entry.kind, losses.CATALOGUE)
        if law:
            yield Mistake(path=(*at, "kind"), law=law)
        elif entry.kind == "custom":
            yield from custom(entry, at)
        elif not made_for(task, losses.CATALOGUE[entry.kind]):
            fits = [k for k, row in losses.CATALOGUE.items() if made_for(task, row)]
            law = f"`{entry.kind}` is not made for {task}: use one of {', '.join(fits)}"
            yield Mistake(path=(*at, "kind"), law=law)
        elif entry.kind in _WRAPPERS:
            yield from _wrapping(entry, at, task, custom)
        else:
            yield from _loss(entry, at)
        yield from _adapter(entry, at)


def _wrapping(
    entry: TermEntry, at: Place, task: str, custom: Callable[[Entry, Place], list[Mistake]]
) -> Iterator[Mistake]:
    kind, (reads, usual, own) = entry.kind, _WRAPPERS[entry.kind]
    unknown = sorted(set(entry.parameters) - {"of", *own})
    if unknown:
        law = f"unknown parameter `{unknown[0]}`: `{kind}` has `of`, another term on {reads}"
        yield Mistake(path=(*at, unknown[0]), law=law)
    given = {name: value for name, value in entry.parameters.items() if name in own}
    yield from made(losses.CATALOGUE[kind].loss, given, at)
    try:
        of = TermEntry.model_validate(entry.parameters.get("of", {"kind": usual}))
    except ValidationError as error:
        law = f"`of` must be a term on {reads}, such as {{kind: {usual}}}: {_first(error)}"
        yield Mistake(path=(*at, "of"), law=law)
        return
    row = losses.CATALOGUE.get(of.kind)
    if of.kind == kind or (row is not None and (row.needs != (reads,) or row.adapter)):
        law = f"`{kind}` wraps a term on {reads} that learns nothing, but got `{of.kind}`"
        yield Mistake(path=(*at, "of"), law=law)
    elif "weight" in of.model_fields_set:
        law = f"a weight stands beside `kind: {kind}`, not inside `of`: move it"
        yield Mistake(path=(*at, "of"), law=law)
    else:
        for found in objective_mistakes((of,), (), task, custom):
            yield Mistake(path=(*at, "of", *found.path[1:]), law=found.law)


def _loss(entry: TermEntry, at: Place) -> Iterator[Mistake]:
    row = losses.CATALOGUE[entry.kind]
    if entry.layers is not None and row.layers == "none":
        what = "holds weights" if row.reads == "weights" else "compares answers"
        law = f"`{entry.kind}` {what}, not layers: remove `layers`"
        yield Mistake(path=(*at, "layers"), law=law)
    if entry.weight == "auto" and row.reads == "weights":
        law = (
            f"the pull of `{entry.kind}` says nothing at the start, so `weight: auto` cannot be "
            f"found: give a number, usual is {row.usual_weight}"
        )
        yield Mistake(path=(*at, "weight"), law=law)
    try:
        constants, temperature = split_schedules(entry.parameters)
    except ValidationError as error:
        for item in error.errors():
            path = (*at, "temperature", *item["loc"])
            law = f"a schedule needs `start` and `end`: {item['msg'][0].lower()}{item['msg'][1:]}"
            yield Mistake(path=path, law=law)
        return
    if temperature is not None and min(temperature.start, temperature.end) <= 0:
        law = f"`temperature > 0` must hold, but got {temperature.start} to {temperature.end}"
        yield Mistake(path=(*at, "temperature"), law=law)
    if temperature is not None and not _moves(row.loss):
        law = f"`{entry.kind}` has no temperature that can change: give a number, or remove it"
        yield Mistake(path=(*at, "temperature"), law=law)
    yield from made(row.loss, constants, at)


def _moves(loss: Any) -> bool:
    return "temperature" in inspect.signature(loss.forward).parameters


def _adapter(entry: TermEntry, at: Place) -> Iterator[Mistake]:
    if entry.adapter is None:
        return
    kind = entry.adapter.kind
    if kind not in ADAPTERS:
        law = f"unknown kind `{kind}`: {did_you_mean(kind, ADAPTERS)}"
        yield Mistake(path=(*at, "adapter", "kind"), law=law)
        return
    row = losses.CATALOGUE.get(entry.kind)
    unfit = _unfit(entry.kind, row, kind) if row is not None else None
    if unfit is not None:
        yield Mistake(path=(*at, "adapter", "kind"), law=unfit)
    given = entry.adapter.parameters
    wrong = wrong_arguments(ADAPTERS[kind], given, filled=_FOUND)
    for name, law in (wrong or _bad_constants(ADAPTERS[kind], given)).items():
        yield Mistake(path=(*at, "adapter", name), law=law)


def _unfit(loss: str, row: Row, kind: str) -> str | None:
    """Why a loss cannot learn with an adapter of this kind; None where it can."""
    if not row.needs:
        what = "holds weights" if row.reads == "weights" else "compares the student with labels"
        return f"`{loss}` {what}, so nothing stands between: remove it"
    taken = set(inspect.signature(row.loss.forward).parameters)
    given, wanted = _values(kind), _wanted(row)
    if not wanted <= given and kind != row.adapter:
        lacking = ", ".join(sorted(wanted - given))
        return f"`{loss}` learns with `{row.adapter}`, which gives it {lacking}: remove `adapter`"
    if not given <= taken:
        lost = ", ".join(sorted(given - taken))
        return f"`{kind}` gives {lost}, which `{loss}` does not take: use another adapter"
    return None


def _values(kind: str) -> set[str]:
    """What an adapter gives beside both sides, as the losses that name it want it."""
    wanted = [_wanted(row) for row in losses.CATALOGUE.values() if row.adapter == kind]
    return set.intersection(*wanted) if wanted else set()


def _wanted(row: Row) -> set[str]:
    """What a loss must be called with beside both sides."""
    parameters = inspect.signature(row.loss.forward).parameters.values()
    asked = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    return asked - set(row.also)


def _bad_constants(what: type[nn.Module], given: Mapping[str, Any]) -> dict[str, str]:
    """Constants that an adapter refuses whatever the layers: tried on vectors, where it can be."""
    if not given:  # what is found by itself is not there yet
        return {}
    known = accepted(what, {"ids": torch.arange(4)})
    sides: list[tuple[int, ...]] = [(64,)]
    with torch.random.fork_rng(devices=[]):
        try:
            what(sides, sides, **known)
        except ModelError:
            return {}
        try:
            what(sides, sides, **known, **coerced(what, given))
        except ModelError as error:
            named = [n for n in given if re.search(rf"\b{re.escape(n)}\b", str(error))]
            return {n: str(error) for n in named[:1]}
    return {}


def teacher_mistakes(
    entries: tuple[TermEntry, ...], where: Place, teacher: TeacherSection
) -> Iterator[Mistake]:
    """Terms that read layers of a teacher which has none to read."""
    if teacher.model is not None:
        return
    what = "an ensemble" if teacher.ensemble else "an ONNX file" if teacher.onnx else "a callable"
    what = "a zero-shot teacher" if teacher.zero_shot is not None else what
    for number, entry in enumerate(entries):
        row = losses.CATALOGUE.get(entry.kind)
        reads = row.layers != "none" if row is not None else entry.layers is not None
        if reads:
            law = (
                f"`{entry.kind}` compares layers inside the teacher, but {what} offers its answer "
                "only: give the teacher as a PyTorch `model`, or use a term on logits"
            )
            yield Mistake(path=(*where, number, "kind"), law=law)


def order_mistakes(
    phases: Sequence[tuple[tuple[TermEntry, ...], Place]],
) -> Iterator[Mistake]:
    """Terms that stand on what is not there: what another one learns, or one that teaches."""
    before: set[str] = set()
    for entries, where in phases:
        rows = [losses.CATALOGUE.get(entry.kind) for entry in entries]
        if all(row is not None and row.reads == "weights" for row in rows):
            law = (
                f"`{entries[0].kind}` only holds weights, so the student would learn nothing: add "
                "a term that teaches, such as `hard_label` or `soft_target`"
            )
            yield Mistake(path=where, law=law)
        elif all(usual(entry.weight) == 0 for entry in entries):
            named = ", ".join(f"`{entry.kind}`" for entry in entries)
            law = (
                f"the weight of {named} is 0, so the student would learn nothing: give a term a "
                "weight above 0"
            )
            yield Mistake(path=where, law=law)
        for number, entry in enumerate(entries):
            if entry.kind == "factor_transfer" and "paraphraser" not in before:
                law = (
                    "`factor_transfer` stands on a `paraphraser` that has learned in a phase before"
                    ", but there is none: add a phase with `kind: paraphraser`, see its page"
                )
                yield Mistake(path=(*where, number, "kind"), law=law)
        before |= {entry.kind for entry in entries}


def batch_mistakes(phase: Phase, where: Place) -> Iterator[Mistake]:
    """Relations between the rows of a batch that has one."""
    if phase.training is None or phase.training.batch_size > 1:
        return
    for number, entry in enumerate(phase.objective):
        of = entry.parameters.get("of")
        inside = of.get("kind") if isinstance(of, dict) else None
        rows = [losses.CATALOGUE.get(str(kind)) for kind in (entry.kind, inside)]
        if any(row is not None and row.related for row in rows):
            law = (
                f"`{entry.kind}` compares the rows of a batch with one another, so "
                "`batch_size >= 2` must hold, but got 1"
            )
            yield Mistake(path=(*where, number, "kind"), law=law)


def _first(error: ValidationError) -> str:
    message = str(error.errors()[0]["msg"])
    return message[0].lower() + message[1:]
