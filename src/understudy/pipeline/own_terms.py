"""Terms for `distill`: from objects or mappings, with layers of somebody's own modules."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from understudy import build
from understudy.build import Matched
from understudy.contracts import Batch, Teacher
from understudy.errors import Mistake, ModelError, RecipeError
from understudy.models.deployable import Deployable
from understudy.objective import Term
from understudy.pipeline.own_loaders import Loader
from understudy.recipe import LayerPair, Source, TermEntry, default_objective
from understudy.tasks import AnyTask
from understudy.teachers.predictor import PredictorTeacher
from understudy.teachers.torch_module import TorchTeacher

ROWS = 2
Given = Term | TermEntry | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTerms:
    """What a student of `distill` learns from.

    Attributes:
        teacher: offers the answer and every layer that a term reads.
        given: terms that came as objects, each at its place in the objective.
        entries: those that came as mappings, likewise.
        matched: per entry what it compares.
        known: what an adapter may be told of the training rows.
    """

    teacher: Teacher
    given: Mapping[int, Term]
    entries: Mapping[int, TermEntry]
    matched: Mapping[int, Matched | None]
    known: Mapping[str, Any]

    def terms(self, seed: int) -> list[Term]:
        """All terms in order, with adapters that begin from a seed.

        Raises:
            ModelError: an adapter that cannot bridge two layers, or that has to learn something
                before the student does.
        """
        places = sorted(self.entries)
        entries = [self.entries[place] for place in places]
        matched = [self.matched[place] for place in places]
        plain = build.terms(entries, Source(), matched=matched)
        made = build.with_adapters(entries, plain, matched=matched, known=self.known, seed=seed)
        for term in made:
            _refuse_followers(term)
        # What a term of the caller's learns is learned anew for every seed.
        given = {place: _anew(term) for place, term in self.given.items()}
        whole = given | dict(zip(places, made, strict=True))
        return _numbered(whole[place] for place in sorted(whole))


def own_terms(
    objective: Sequence[Given] | None,
    *,
    task: AnyTask,
    teacher: Any,
    student: Callable[[], nn.Module],
    train: Loader,
    batch: Batch,
) -> OwnTerms:
    """The terms of an objective, after a dry run where one of them compares layers.

    Raises:
        RecipeError: a mapping that is no term.
        ModelError: layers that are not there, that have to be named, or that the teacher does not
            offer.
    """
    given: dict[int, Term] = {}
    entries: dict[int, TermEntry] = {}
    for place, item in enumerate(default_objective(task.name) if objective is None else objective):
        if isinstance(item, Term):
            given[place] = item
            continue
        entry = item if isinstance(item, TermEntry) else _entry(item, place)
        build.check_term(entry, task.name)
        entries[place] = entry
    asked = _teacher(teacher, task)
    matched: dict[int, Matched | None] = dict.fromkeys(entries)
    reading = {place: entry for place, entry in entries.items() if build.reads_layers(entry)}
    if reading:
        module = asked.module if isinstance(asked, TorchTeacher) else None
        few = _few(batch)

        def told(spots: Sequence[str]) -> Mapping[str, Tensor]:
            if module is not None:
                return build.captured(module, spots, few.inputs)
            with torch.no_grad():
                knowledge = asked(few)
            return {spot: knowledge.tensor(spot) for spot in spots}

        fresh = student()
        for place, entry in reading.items():
            if module is None:
                _refuse_answers(entry, asked.offers, task.output)
            matched[place] = build.match(
                entry, student=fresh, teacher=module, rows=few.inputs, told=told
            )
    layers = [goal for found in matched.values() if found for _, goal in found.pairs]
    layers += [pair.teacher for term in given.values() for pair in term.pairs]
    if layers and isinstance(asked, TorchTeacher):
        spots = tuple(dict.fromkeys(layers))
        asked = TorchTeacher(asked.module, output=task.output, spots=spots)
    remember = any(entry.kind == "crd" for entry in entries.values())
    return OwnTerms(
        teacher=asked,
        given=given,
        entries=entries,
        matched=matched,
        known={"answers": task.width} | (_rows(train) if remember else {}),
    )


def _entry(item: Mapping[str, Any], place: int) -> TermEntry:
    data = dict(item)
    try:
        return TermEntry.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_mistakes(error, data, place), "objective") from None


def _mistakes(error: ValidationError, data: Any, place: int) -> Iterable[Mistake]:
    for found in error.errors():
        path: list[str | int] = ["objective", place]
        here = data
        for key in found["loc"]:
            # Pydantic also names the form that a value was taken for.
            if isinstance(here, Mapping) and key in here:
                here = here[str(key)]
                path.append(key)
        law = f"{found['msg'][0].lower()}{found['msg'][1:]}, but got {found['input']!r}"
        yield Mistake(path=tuple(path), law=law.replace("input should", "the value must"))


def _anew(term: Term) -> Term:
    adapter = None if term.adapter is None else copy.deepcopy(term.adapter)
    loss = copy.deepcopy(term.loss) if term.loss.state_dict() else term.loss
    return replace(term, loss=loss, adapter=adapter)


def _numbered(terms: Iterable[Term]) -> list[Term]:
    """Terms under names of their own: an objective knows each by its name."""
    found: dict[str, Term] = {}
    for term in terms:
        name, number = term.name, 1
        while name in found:
            number += 1
            name = f"{term.name.partition('#')[0]}#{number}"
        found[name] = replace(term, name=name)
    return list(found.values())


def _refuse_followers(term: Term) -> None:
    follows = getattr(term.adapter, "follows", term.adapter_kind)
    if follows != term.adapter_kind:
        raise ModelError(
            f"`{term.name}` stands on an adapter `{follows}` that has learned in a phase before, "
            "but `distill` has one phase: write a recipe with `phases`, and run it"
        )


def _refuse_answers(entry: TermEntry, offers: frozenset[str], answer: str) -> None:
    """Say no to a teacher without the layers of a term."""
    layers = entry.layers if isinstance(entry.layers, tuple) else (entry.layers,)
    named = [pair.teacher for pair in layers if isinstance(pair, LayerPair)]
    lacking = [name for name in named if name not in offers]
    if lacking or (not named and offers <= {answer}):
        what = ", ".join(lacking) or "layers"
        raise ModelError(
            f"`{entry.kind}` compares {what} inside the teacher, but this one offers "
            f"{', '.join(sorted(offers))} only: give the teacher as a PyTorch module, or a label "
            "store that holds these layers"
        )


def _teacher(teacher: Any, task: AnyTask) -> Teacher:
    if isinstance(teacher, nn.Module):
        module = Deployable(preprocess=nn.Identity(), network=teacher, width=task.width)
        return TorchTeacher(module, output=task.output)
    if isinstance(teacher, Teacher):
        return teacher
    return PredictorTeacher(teacher, output=task.output, width=task.width)


def _few(batch: Batch) -> Batch:
    """The first rows of a batch."""
    return Batch(
        inputs=batch.inputs[:ROWS],
        labels=None if batch.labels is None else batch.labels[:ROWS],
        ids=None if batch.ids is None else batch.ids[:ROWS],
        views=None if batch.views is None else batch.views[:ROWS],
    )


def _rows(train: Loader) -> dict[str, Tensor]:
    """Ids and labels of all training rows, where batches have them."""
    ids: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in train.every():
        if batch.ids is None:
            return {}
        ids.append(batch.ids)
        if batch.labels is not None:
            labels.append(batch.labels)
    known = {"ids": torch.cat(ids)}
    if len(labels) == len(ids) and not labels[0].is_floating_point():
        known["labels"] = torch.cat(labels)
    return known
