"""Terms for `distill`: from objects or mappings, with layers of somebody's own modules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy import build
from understudy.build import Matched
from understudy.contracts import Batch, Teacher
from understudy.models.deployable import Deployable
from understudy.objective import Term
from understudy.pipeline.own_loaders import Loader
from understudy.recipe import Source, TermEntry, default_objective
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
        """All terms in order, with adapters that begin from a seed."""
        places = sorted(self.entries)
        entries = [self.entries[place] for place in places]
        matched = [self.matched[place] for place in places]
        plain = build.terms(entries, Source(), matched=matched)
        made = build.with_adapters(entries, plain, matched=matched, known=self.known, seed=seed)
        whole = dict(self.given) | dict(zip(places, made, strict=True))
        return [whole[place] for place in sorted(whole)]


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
        ModelError: layers that are not there, or that have to be named.
    """
    given: dict[int, Term] = {}
    entries: dict[int, TermEntry] = {}
    for place, item in enumerate(default_objective(task.name) if objective is None else objective):
        if isinstance(item, Term):
            given[place] = item
            continue
        entry = item if isinstance(item, TermEntry) else TermEntry.model_validate(dict(item))
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
    for batch in train:
        if batch.ids is None:
            return {}
        ids.append(batch.ids)
        if batch.labels is not None:
            labels.append(batch.labels)
    known = {"ids": torch.cat(ids)}
    if len(labels) == len(ids) and not labels[0].is_floating_point():
        known["labels"] = torch.cat(labels)
    return known
