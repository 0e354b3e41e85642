"""Terms from their entries: losses, the layers they compare, and the adapters they learn with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from understudy import losses
from understudy.build.arguments import accepted, coerced, required
from understudy.build.layers import Matched
from understudy.build.parts import called, custom
from understudy.errors import ModelError
from understudy.features.adapters import ADAPTERS
from understudy.objective import Pair, Term
from understudy.recipe import Schedule, Source, TermEntry


def terms(
    entries: Sequence[TermEntry], place: Source, *, matched: Sequence[Matched | None] = ()
) -> list[Term]:
    """The terms of an objective, named by their kinds, numbered where a kind stands twice.

    Args:
        entries: of the recipe.
        place: where relative paths of targets start.
        matched: per entry the layers that were found for it; a term that compares layers cannot be
            trained with without them.

    Raises:
        ModelError: a loss of the user's that fails.
    """
    made: list[Term] = []
    for number, entry in enumerate(entries):
        same = sum(t.name.partition("#")[0] == entry.kind for t in made)
        name = f"{entry.kind}#{same + 1}" if same else entry.kind
        term = _term(entry, name, place)
        found = matched[number] if matched else None
        if found is not None:
            pairs = tuple(Pair(student=own, teacher=goal) for own, goal in found.pairs)
            term = replace(term, pairs=pairs)
        made.append(term)
    return made


def with_adapters(
    entries: Sequence[TermEntry],
    made: Sequence[Term],
    *,
    matched: Sequence[Matched | None],
    known: Mapping[str, Any],
    seed: int,
) -> list[Term]:
    """The terms with what they learn, from start weights of their own.

    Args:
        entries: of the recipe.
        made: their terms, as `terms` gives them.
        matched: per entry the layers that were found for it.
        known: what an adapter may be told: `ids` and `labels` of the training rows, and `answers`,
            how many numbers a model answers.
        seed: of the start weights.

    Raises:
        ModelError: an adapter that cannot bridge two layers, or lacks what it must know.
    """
    parts = zip(entries, made, matched or [None] * len(made), strict=True)
    return [_adapted(entry, term, found, known, seed) for entry, term, found in parts]


def _term(entry: TermEntry, name: str, place: Source) -> Term:
    if entry.kind == "custom":
        function, arguments = custom(entry, place)
        made = called(function, arguments)
        reads = "features" if entry.layers is not None else getattr(made, "reads", "logits")
        needs = tuple(getattr(made, "needs", (reads,)))
        return Term(
            name=name,
            loss=made,
            reads=reads,
            needs=needs,
            labels=not needs,
            also=tuple(getattr(made, "also", ())),
            weight=entry.weight,
            together=bool(getattr(made, "together", False)),
            related=bool(getattr(made, "related", False)),
        )
    if entry.kind == "standardize":
        return _standardized(entry, name, place)
    if entry.kind == "matryoshka":
        return _matryoshka(entry, name, place)
    row = losses.CATALOGUE[entry.kind]
    constants, temperature = split_schedules(entry.parameters)
    return Term(
        name=name,
        loss=row.loss(**coerced(row.loss, constants)),
        reads=row.reads,
        needs=row.needs,
        labels=row.labels,
        also=row.also,
        weight=entry.weight,
        temperature=temperature,
        together=row.layers == "all",
        related=row.related,
        control=row.control,
        teaches=row.teaches,
    )


def _standardized(entry: TermEntry, name: str, place: Source) -> Term:
    """A loss on logits that sees both sides with a mean of 0 and a deviation of 1 in every row."""
    of = TermEntry.model_validate(entry.parameters.get("of", {"kind": "soft_target"}))
    term = _term(of, name, place)
    return replace(term, loss=losses.Standardized(loss=term.loss), weight=entry.weight)


def _matryoshka(entry: TermEntry, name: str, place: Source) -> Term:
    """A loss on embeddings that is taken of prefixes too."""
    given = dict(entry.parameters)
    term = _term(TermEntry.model_validate(given.pop("of", {"kind": "cosine"})), name, place)
    return replace(term, loss=losses.Matryoshka(loss=term.loss, **given), weight=entry.weight)


def _adapted(
    entry: TermEntry, term: Term, found: Matched | None, known: Mapping[str, Any], seed: int
) -> Term:
    """The term with what it learns, from start weights of its own."""
    row = losses.CATALOGUE.get(entry.kind)
    kind = entry.adapter.kind if entry.adapter else row.adapter if row else ""
    if not kind:
        return term
    what = ADAPTERS[kind]
    settings = dict(row.settings) if row and kind == row.adapter else {}
    settings |= dict(found.settings) if found else {}
    settings |= accepted(what, known)
    if entry.adapter:
        settings |= coerced(what, entry.adapter.parameters)
    settings = accepted(what, settings)
    if found is not None and "margins" in found.settings:
        settings["margins"] = [torch.tensor(margin) for margin in found.settings["margins"]]
    if [n for n in required(what, {"student_words": 0}) if n not in settings]:
        raise ModelError(
            f"`{term.name}` compares words, which are counted in a recipe of texts: in Python make "
            "the adapter, `understudy.features.words.Words`, and give it in a `Term`"
        )
    lacking = [n for n in required(what, {"ids": 0}) if n not in settings]
    if lacking:
        raise ModelError(
            f"`{term.name}` remembers every training row, so rows must have ids: give batches as "
            "`(inputs, labels, ids)`"
        )
    # Without layers it stands between the answers.
    answers = [(int(known.get("answers", 1)),)]
    shapes = (list(found.student), list(found.teacher)) if found else (answers, answers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapter = what(*shapes, **settings)
        except ModelError as error:
            raise ModelError(f"`{term.name}`: {error}") from error
    return replace(term, adapter=adapter, adapter_kind=kind)


def split_schedules(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], Schedule | None]:
    """A loss's constants, and its temperature where that is a schedule."""
    constants = dict(parameters)
    if isinstance(constants.get("temperature"), dict):
        return constants, Schedule.model_validate(constants.pop("temperature"))
    return constants, None
