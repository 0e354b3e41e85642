"""Mistakes of a task that asks a model once per token: what has no form per token is refused."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

from understudy import models
from understudy.build.check_language import language_mistakes
from understudy.build.parts import MODELS
from understudy.data.views import MIXING
from understudy.errors import Mistake
from understudy.losses import Row
from understudy.objective.over_vocabulary import OVER_VOCABULARY
from understudy.recipe import Entry, Recipe
from understudy.recipe.texts import EACH_TOKEN

Place = tuple[str | int, ...]
LANGUAGE: Final = "language_model"
CAUSAL: Final = frozenset({*models.CAUSAL, "hf_causal", "custom"})


def made_for(task: str, row: Row) -> bool:
    """Whether a loss makes sense for a task; per token, what compares answers or holds weights."""
    if task not in EACH_TOKEN:
        return task in row.tasks
    if task == LANGUAGE:
        return row.reads == "weights" or row.loss in OVER_VOCABULARY
    layers = row.layers != "none" or "features" in (row.reads, *row.needs)
    return "classification" in row.tasks and not layers


def token_mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Everything in a recipe that cannot be asked per token, where its task is."""
    kind = recipe.task.kind
    if kind not in EACH_TOKEN:
        return
    if kind == LANGUAGE:
        yield from language_mistakes(recipe)
    for number, view in enumerate(recipe.data.views):
        law = _moves(view)
        if law:
            remedy = "remove it, or use `token_dropout` with `by: mask`"
            law = f"{law}, but {kind} asks at every token: {remedy}"
            yield Mistake(path=("data", "views", number, "kind"), law=law)
    for number, member in enumerate(recipe.teacher.members):
        at: Place = ("teacher", "ensemble", number) if recipe.teacher.ensemble else ("teacher",)
        if member.model is None:
            law = f"a teacher of {kind} answers at every token, so it must be a PyTorch `model`"
            yield Mistake(path=at, law=law)
        else:
            yield from _network(member.model, (*at, "model"), kind)
    if recipe.student.model is not None:
        yield from _network(recipe.student.model, ("student", "model"), kind)
    sections: Mapping[Place, Any] = {
        ("student", "blockwise"): recipe.student.blockwise,
        ("student", "reused_head"): recipe.student.reused_head,
        ("transfer",): recipe.transfer,
    }
    for place, section in sections.items():
        if section is not None:
            law = f"`{place[-1]}` is for one answer per row, but {kind} asks at every token: remove"
            yield Mistake(path=place, law=f"{law} it")


def _moves(view: Entry) -> str:
    """Why a view cannot be had per token; empty where it can."""
    if view.kind in MIXING:
        return f"`{view.kind}` mixes rows"
    if view.kind == "token_crop" or view.parameters.get("by") == "delete":
        return f"`{view.kind}` moves tokens to other places"
    if view.kind == "custom":
        return "a transform of one's own may move tokens to other places"
    return ""


def _network(entry: Entry, where: Place, kind: str) -> Iterator[Mistake]:
    """A network of ours that answers once per row, or knows nothing of what comes next."""
    made = MODELS.get(entry.kind)
    if kind == LANGUAGE:
        if entry.kind not in CAUSAL:
            law = (
                f"`{entry.kind}` says nothing of the next token, which {kind} asks for: use one of "
                f"{', '.join(sorted(CAUSAL))}"
            )
            yield Mistake(path=(*where, "kind"), law=law)
        return
    if made is None or "each_token" in inspect.signature(made).parameters:
        return
    fits = [n for n, m in MODELS.items() if "each_token" in inspect.signature(m).parameters]
    law = (
        f"`{entry.kind}` answers once per row, but {kind} asks at every token: use one of "
        f"{', '.join(fits)}, or a network of your own that answers [batch, length, width]"
    )
    yield Mistake(path=(*where, "kind"), law=law)
