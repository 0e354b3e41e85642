"""Terms joined into one loss: what each needs is there, its rows are chosen, its mean is taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge, Outcomes, Ragged, Task
from understudy.errors import ModelError, TrainingError
from understudy.objective.calling import (
    compare,
    found_at,
    kept,
    nothing,
    on_outcomes,
    per_row,
    wide,
)
from understudy.objective.checks import check, check_together
from understudy.objective.masks import kept_rows, mask_for, with_real
from understudy.objective.positions import by_position
from understudy.objective.terms import AUTO, Term, scheduled
from understudy.objective.weights import Start, trained


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """The loss of one batch.

    Attributes:
        loss: the weighted sum, a scalar with gradient.
        parts: per term its unweighted mean, detached.
    """

    loss: Float[Tensor, ""]
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """A weighted sum of terms."""

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        task: Task,
        offers: frozenset[str],
        listed: frozenset[str] = frozenset(),
        pad: int | None = None,
    ) -> None:
        """Join the terms, and refuse a teacher that does not offer what they need.

        Args:
            terms: at least one.
            task: says which rows are labelled, and in which units losses are taken.
            offers: the knowledge that the teacher gives; empty without a teacher.
            listed: what of it is told by some of its outcomes only.
            pad: of rows of token ids, the id that fills them up: no term compares what it holds.

        Raises:
            ModelError: a term needs knowledge that the teacher does not offer, or in full where
                only some outcomes are told, or reads what a student of this task does not give;
                or no term teaches.
        """
        super().__init__()
        check_together(terms)
        self.terms = tuple(terms)
        self.losses = nn.ModuleList(term.loss for term in terms)
        self.adapters = nn.ModuleDict({t.key: t.adapter for t in terms if t.adapter is not None})
        self._weights = {t.name: t.weight for t in terms}
        self._task, self._pad = task, pad
        for term in terms:
            check(term, task=task, offers=offers, listed=listed)
        self.start: Start | None = None

    @property
    def task(self) -> Task:
        """What is asked of the student."""
        return self._task

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's knowledge that all terms together need, layers included."""
        return frozenset(name for term in self.terms for name in term.wants)

    @property
    def spots(self) -> tuple[str, ...]:
        """The layers of the student that are read."""
        return tuple(dict.fromkeys(p.student for term in self.terms for p in term.pairs))

    @property
    def unbalanced(self) -> tuple[str, ...]:
        """Terms whose weight is still to be found."""
        return tuple(name for name, weight in self._weights.items() if weight == AUTO)

    @property
    def constrained(self) -> bool:
        """Whether a term reads the student's weights."""
        return any(term.reads == "weights" for term in self.terms)

    def begin(self, student: nn.Module) -> None:
        """Remember the start that constraints measure from; a checkpoint read later has its own."""
        if self.constrained and (self.start is None or not self.start.take(trained(student))):
            self.start = Start(trained(student))

    def project(self, student: nn.Module, *, epoch: float, epochs: int) -> None:
        """Bring the student's weights back to where the constraints hold them, in place."""
        for term in self.terms:
            if hasattr(term.loss, "project") and self.weight(term.name, epoch=epoch, epochs=epochs):
                term.loss.project(trained(student), self._starts(term))  # type: ignore[operator]

    def balance(self, weights: Mapping[str, float]) -> None:
        """Fix the weights that were to be found."""
        self._weights.update({name: float(weight) for name, weight in weights.items()})

    def weight(self, name: str, *, epoch: float, epochs: int) -> float:
        """A term's weight at a fractional epoch; 1 where it is still to be found."""
        found = self._weights[name]
        return 1.0 if found == AUTO else scheduled(found, epoch=epoch, epochs=epochs)

    def forward(
        self,
        student: Float[Tensor, " batch *width"],
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
        features: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Total:
        """The loss of a batch at a fractional epoch of training.

        Args:
            student: its answers, `[batch, width]`, or `[batch, length, width]` where the batch
                says which positions count.
            teacher: what it knows of the batch.
            batch: the rows themselves.
            epoch: of training, fractional.
            epochs: of training, in all.
            features: the student's, by spot.
            weights: the student's that train, by name, where a term is a constraint on them.

        Raises:
            TrainingError: a term that is not finite; it is named.
        """
        means = self.means(
            student,
            teacher,
            batch,
            epoch=epoch,
            epochs=epochs,
            features=features or {},
            weights=weights,
        )
        total = student.new_zeros((), dtype=torch.promote_types(student.dtype, torch.float32))
        counted: list[str] = []
        for name, mean in means.items():
            weight = self.weight(name, epoch=epoch, epochs=epochs)
            # A term that is switched off must not bring its NaN or its graph along.
            if weight:
                counted.append(name)
                total = total + weight * mean
        parts = {name: mean.detach() for name, mean in means.items()}
        if not counted:
            total = nothing(student)
        if not bool(torch.isfinite(total)):
            bad = [n for n in counted if not bool(torch.isfinite(parts[n]))] or counted
            raise TrainingError(
                f"the loss must be finite, but {', '.join(f'`{n}`' for n in bad)} is not "
                f"({', '.join(f'{n} = {float(v):.4g}' for n, v in parts.items())})"
            )
        return Total(loss=total, parts=parts)

    def means(
        self,
        student: Tensor,
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
        features: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Per term its mean over the rows that count for it, or a constraint's value."""
        if batch.positions is not None:  # from here on a position is a row
            student, teacher, batch = by_position(student, teacher, batch)
        batch = with_real(batch, self._pad)
        # Half precision is the student's business; what it is compared with keeps its digits.
        with torch.autocast(student.device.type, enabled=False):
            own = self._task.comparable(wide(student))
            return {
                term.name: self._held(term, weights)
                if term.reads == "weights"
                else nothing(own)
                if not len(own)
                else self._mean(term, own, features, teacher, batch, (epoch, epochs))
                for term in self.terms
            }

    def _held(self, term: Term, weights: Mapping[str, Tensor] | None) -> Tensor:
        """The value of a constraint."""
        if weights is None:
            law = "reads the student's weights, but none were given: give the objective `weights`"
            raise ModelError(f"`{term.name}` {law}")
        value: Tensor = term.loss(weights, self._starts(term))
        if value.ndim:
            shape = list(value.shape)
            raise ModelError(f"a constraint gives one value, but `{term.name}` gave {shape}")
        return value

    def _starts(self, term: Term) -> dict[str, Tensor]:
        if self.start is None:
            raise ModelError(
                f"`{term.name}` measures from the start weights, but the objective has none: call "
                "its `begin(student)` before training"
            )
        return self.start.weights()

    def _mean(
        self,
        term: Term,
        own: Tensor,
        features: Mapping[str, Tensor],
        teacher: Knowledge | None,
        batch: Batch,
        when: tuple[float, int],
    ) -> Tensor:
        epoch, epochs = when
        if term.labels:
            return self._over_labelled(term, own, batch, term.loss)
        if teacher is None:
            raise ModelError(f"`{term.name}` needs a teacher, but there is none")
        constants = {}
        if term.temperature is not None:
            constants["temperature"] = scheduled(term.temperature, epoch=epoch, epochs=epochs)
        told = teacher[term.wants[0]]
        if isinstance(told, Outcomes):
            return per_row(term, on_outcomes(term, own, told, constants), own).mean()
        if isinstance(told, Ragged):
            raise ModelError(
                f"`{term.name}` compares one row per example, but the teacher's {term.wants[0]} "
                "are sequences of different lengths"
            )
        ours, goals, values, mask = self._both_sides(term, own, features, teacher, batch, epoch)
        if not term.also:
            found = compare(term, ours, goals, values, constants, mask)
            return per_row(term, found, own).mean()

        def labelled(rows: Tensor, labels: Tensor) -> Tensor:
            del rows
            sides = kept(ours, seen), kept(goals, seen)
            extra = kept_rows(mask, seen) | {"labels": labels}
            return compare(term, *sides, values, constants, extra)

        seen = self._seen(batch)
        return self._over_labelled(term, own, batch, labelled)

    def _both_sides(
        self,
        term: Term,
        own: Tensor,
        features: Mapping[str, Tensor],
        teacher: Knowledge,
        batch: Batch,
        epoch: float,
    ) -> tuple[list[Tensor], list[Tensor], Mapping[str, list[Tensor]], dict[str, Tensor]]:
        """What a loss compares, after the term's adapter, and which of its tokens count."""
        if term.pairs:
            ours = [wide(found_at(features, pair.student, term)) for pair in term.pairs]
            goals = [wide(teacher.tensor(pair.teacher)) for pair in term.pairs]
        else:
            ours = [own]
            goals = [self._task.comparable(wide(teacher.tensor(term.needs[0])))]
        if term.adapter is None:
            return ours, goals, {}, mask_for(term, ours, batch.real)
        if hasattr(term.adapter, "set_progress"):
            term.adapter.set_progress(epoch)  # type: ignore[operator]
        adapted = term.adapter(ours, [goal.detach() for goal in goals], batch)
        real = batch.real if adapted.mask is None else adapted.mask
        mask = mask_for(term, adapted.student, real)
        return adapted.student, adapted.teacher, adapted.values, mask

    def _seen(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            return torch.zeros(len(batch), dtype=torch.bool, device=batch.inputs.device)
        return self._task.labelled(batch.labels)

    def _over_labelled(
        self, term: Term, own: Tensor, batch: Batch, values: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The mean over labelled rows; a mixed row's value is that of both labels, by share."""
        seen = self._seen(batch)
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
        told = self._task.labelled(partners)
        shares = torch.where(told, shares, 1.0)
        safe = torch.where(told if partners.ndim == 1 else told[:, None], partners, labels)
        other = per_row(term, values(rows, self._labels(safe)), rows)
        return (shares * found + (1 - shares) * other).mean()

    def _labels(self, labels: Tensor) -> Tensor:
        return self._task.comparable(labels) if labels.is_floating_point() else labels
