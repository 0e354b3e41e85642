"""Mistakes in how labels are stored, and in what is to read them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from understudy import losses
from understudy.build.arguments import coerced, wrong_arguments
from understudy.errors import Mistake, did_you_mean
from understudy.labels.codecs import CATALOGUE as CODECS
from understudy.labels.codecs.form import Codec
from understudy.labels.codecs.hidden import state_codec
from understudy.recipe import Recipe, TermEntry

Place = tuple[str | int, ...]


def labels_mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Mistakes of the section, and of losses that cannot read what it stores."""
    options, at = recipe.labels, ("labels", "codec")
    yield from _nothing_to_leave_out_of(recipe)
    # A language model's head comes from the teacher itself.
    language = recipe.task.kind == "language_model"
    kinds = [kind for kind in CODECS if kind != "hidden" or language]
    if options.codec.kind not in kinds:
        law = f"unknown kind `{options.codec.kind}`: {did_you_mean(options.codec.kind, kinds)}"
        yield Mistake(path=(*at, "kind"), law=law)
        return
    # A recipe says how states are written; the head beside them is the teacher's.
    told: Mapping[str, Callable[..., Codec]] = {**CODECS, "hidden": state_codec}
    codec = told[options.codec.kind]
    wrong = list(made(codec, options.codec.parameters, at))
    yield from wrong
    if options.views is not None and not recipe.data.views:
        law = "`views` counts random views, but `data.views` is empty: remove it, or add views"
        yield Mistake(path=("labels", "views"), law=law)
    if wrong or _asked_at_every_step(recipe) or not codec(**options.codec.parameters).listed:
        return
    entries = [entry for phase in recipe.phases for entry in phase.objective]
    # Over a vocabulary any divergence reads listed outcomes, if they were not drawn.
    why_not = _undrawn if language else _unreadable
    laws = dict.fromkeys(why_not(entry, options.codec.kind) for entry in entries)
    yield from (Mistake(path=(*at, "kind"), law=why) for why in laws if why is not None)


def _asked_at_every_step(recipe: Recipe) -> str | None:
    """Why no labels are stored; None where they are."""
    if recipe.labels.use == "live":
        return "`use: live`"
    random = recipe.data.views and recipe.labels.views is None
    return "random `data.views` without `labels.views`" if random else None


def _nothing_to_leave_out_of(recipe: Recipe) -> Iterator[Mistake]:
    """Bad rows are left out of a store: a teacher that is asked in training fails at the first."""
    why = _asked_at_every_step(recipe)
    if why is not None and recipe.labels.on_bad_rows == "skip":
        remedy = "remove `use: live`" if recipe.labels.use == "live" else "set `labels.views: 4`"
        law = (
            "`on_bad_rows: skip` leaves rows out of stored labels, but nothing is stored where the "
            f"teacher is asked at every step ({why}): {remedy}, or remove `on_bad_rows`"
        )
        yield Mistake(path=("labels", "on_bad_rows"), law=law)


def _undrawn(entry: TermEntry, codec: str) -> str | None:
    """Why a loss over a vocabulary cannot read what this codec gives back; None where it can."""
    return _unreadable(entry, codec) if codec == "sampled" else None


def _unreadable(entry: TermEntry, codec: str) -> str | None:
    """Why a loss cannot read what this codec gives back; None where it can."""
    row = losses.CATALOGUE.get(entry.kind)
    # Layers are stored whole, whatever the codec of the answer.
    if row is None or not row.needs or "features" in row.needs:
        return None
    if row.whole is not None:
        return (
            f"`{entry.kind}` cannot read labels of codec `{codec}`, since {row.whole}: "
            "use `kind: dense`, or another loss"
        )
    head = entry.parameters.get("head", "softmax")
    if head != "softmax":
        return (
            f"`{entry.kind}` with `head: {head}` cannot read labels of codec `{codec}`, since that "
            "lists the likeliest of classes that exclude each other: use `kind: dense`"
        )
    temperature = entry.parameters.get(
        "temperature", inspect.signature(row.loss).parameters["temperature"].default
    )
    if codec == "sampled" and temperature != 1:
        return (
            f"`{entry.kind}` at temperature {temperature} cannot read labels of codec `sampled`, "
            "since samples are unbiased at temperature 1 only: set `temperature: 1`, or use "
            "`kind: top_p`"
        )
    return None


def made(what: Callable[..., Any], arguments: Mapping[str, Any], at: Place) -> Iterator[Mistake]:
    """Arguments against the signature, then against the constructor's own laws."""
    laws = wrong_arguments(what, arguments)
    for name, law in laws.items():
        yield Mistake(path=(*at, name), law=law)
    if not laws:
        try:
            what(**coerced(what, arguments))
        except ValueError as error:
            named = [name for name in arguments if name in str(error)]
            yield Mistake(path=(*at, *named[:1]), law=str(error))
