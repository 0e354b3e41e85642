"""What student and teacher say of one batch, and a term's mean over the rows that count for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.contracts import Batch, Knowledge, Outcomes, Ragged, Task
from understudy.errors import ModelError
from understudy.objective.calling import (
    compare,
    found_at,
    kept,
    nothing,
    on_outcomes,
    per_row,
    wide,
)
from understudy.objective.masks import kept_rows, mask_for
from understudy.objective.terms import Term, scheduled


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """All that the terms of an objective compare in a batch.

    Attributes:
        task: says which rows are labelled, and in which units losses are taken.
        own: the student's answers in these units, `[batch, width]`.
        features: the student's, by spot.
        teacher: what it knows of the batch; None without a teacher.
        batch: the rows themselves.
        epoch: of training, fractional.
        epochs: of training, in all.
    """

    task: Task
    own: Tensor
    features: Mapping[str, Tensor]
    teacher: Knowledge | None
    batch: Batch
    epoch: float
    epochs: int

    def mean(self, term: Term) -> Tensor:
        """A term's mean over the rows that count for it; 0 where none does.

        Raises:
            ModelError: there is no teacher, or it tells what this term cannot compare.
        """
        if not len(self.own):
            return nothing(self.own)
        if term.labels:
            return self._over_labelled(term, term.loss)
        if self.teacher is None:
            raise ModelError(f"`{term.name}` needs a teacher, but there is none")
        constants = {}
        if term.temperature is not None:
            constants["temperature"] = scheduled(
                term.temperature, epoch=self.epoch, epochs=self.epochs
            )
        told = self.teacher[term.wants[0]]
        if isinstance(told, Outcomes):
            return per_row(term, on_outcomes(term, self.own, told, constants), self.own).mean()
        if isinstance(told, Ragged):
            raise ModelError(
                f"`{term.name}` compares one row per example, but the teacher's {term.wants[0]} "
                "are sequences of different lengths"
            )
        ours, goals, values, mask = self._both_sides(term, self.teacher)
        if not term.also:
            found = compare(term, ours, goals, values, constants, mask)
            return per_row(term, found, self.own).mean()

        def labelled(rows: Tensor, labels: Tensor) -> Tensor:
            del rows
            sides = kept(ours, seen), kept(goals, seen)
            extra = kept_rows(mask, seen) | {"labels": labels}
            return compare(term, *sides, values, constants, extra)

        seen = self._seen()
        return self._over_labelled(term, labelled)

    def _both_sides(
        self, term: Term, teacher: Knowledge
    ) -> tuple[list[Tensor], list[Tensor], Mapping[str, list[Tensor]], dict[str, Tensor]]:
        """What a loss compares, after the term's adapter, and which of its tokens count."""
        if term.pairs:
            ours = [wide(found_at(self.features, pair.student, term)) for pair in term.pairs]
            goals = [wide(teacher.tensor(pair.teacher)) for pair in term.pairs]
        else:
            ours = [self.own]
            goals = [self.task.comparable(wide(teacher.tensor(term.needs[0])))]
        if term.adapter is None:
            return ours, goals, {}, mask_for(term, ours, self.batch.real)
        if hasattr(term.adapter, "set_progress"):
            term.adapter.set_progress(self.epoch)  # type: ignore[operator]
        adapted = term.adapter(ours, [goal.detach() for goal in goals], self.batch)
        real = self.batch.real if adapted.mask is None else adapted.mask
        mask = mask_for(term, adapted.student, real)
        return adapted.student, adapted.teacher, adapted.values, mask

    def _seen(self) -> Tensor:
        batch = self.batch
        if batch.labels is None:
            return torch.zeros(len(batch), dtype=torch.bool, device=batch.inputs.device)
        return self.task.labelled(batch.labels)

    def _over_labelled(self, term: Term, values: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The mean over labelled rows; a mixed row's value is that of both labels, by share."""
        own, batch, seen = self.own, self.batch, self._seen()
        if batch.labels is None or not bool(seen.any()):
            return nothing(own)
        # A loss of the user's own need not know that a row may be without a label.
        whole = bool(seen.all())
        rows = own if whole else own[seen]
        labels = batch.labels if whole else batch.labels[seen]
        found = per_row(term, values(rows, self._labels(labels)), rows)
        if batch.shares is None or batch.partner_labels is None:
            return found.mean()
        shares = batch.shares[seen].to(found.dtype)
        partners = batch.partner_labels[seen]
        # A partner without a label has nothing to say: the row's own label speaks for all of it.
        told = self.task.labelled(partners)
        shares = torch.where(told, shares, 1.0)
        safe = torch.where(told if partners.ndim == 1 else told[:, None], partners, labels)
        other = per_row(term, values(rows, self._labels(safe)), rows)
        return (shares * found + (1 - shares) * other).mean()

    def _labels(self, labels: Tensor) -> Tensor:
        return self.task.comparable(labels) if labels.is_floating_point() else labels
