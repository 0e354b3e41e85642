"""An objective: terms, their weights and schedules, their masks, and the one mean.

A distillation method is an objective. Losses give one value per row; here it is decided which
rows count, and that a term is the mean over the rows that count for it: a hard-label term over
the labelled rows, any other over all of them. A batch without a labelled row adds nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge, Outcomes, Ragged, Task
from understudy.errors import ModelError, TrainingError
from understudy.recipe import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One loss of an objective.

    Attributes:
        name: its kind, unique in the objective; what logs and errors call it.
        loss: called with the student's knowledge and its target; one value per row.
        reads: what it reads of the student.
        needs: what it needs of the teacher, by name.
        labels: whether its target is the hard label.
        weight: a number or a schedule.
        temperature: a schedule for losses that have a temperature; None leaves the loss's own.
    """

    name: str
    loss: nn.Module
    reads: str
    needs: tuple[str, ...] = ()
    labels: bool = False
    weight: float | Schedule = 1.0
    temperature: Schedule | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """The loss of one batch.

    Attributes:
        loss: the weighted sum, a scalar with gradient.
        parts: per term its unweighted mean, detached.
    """

    loss: Float[Tensor, ""]
    parts: dict[str, Tensor]


def scheduled(value: float | Schedule, *, epoch: float, epochs: int) -> float:
    """The value of a number or a schedule at a fractional epoch."""
    if not isinstance(value, Schedule):
        return value
    share = min(1.0, max(0.0, epoch / (value.epochs or epochs)))
    if value.kind == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return value.start + (value.end - value.start) * share


class Objective(nn.Module):
    """A weighted sum of terms."""

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        task: Task,
        offers: frozenset[str],
        listed: frozenset[str] = frozenset(),
    ) -> None:
        """Join the terms, and refuse a teacher that does not offer what they need.

        Args:
            terms: at least one.
            task: says which rows are labelled, and in which units losses are taken.
            offers: the knowledge that the teacher gives; empty without a teacher.
            listed: what of it is told by some of its outcomes only.

        Raises:
            ModelError: a term needs knowledge that the teacher does not offer, or in full where
                only some outcomes are told, or reads what a student of this task does not give.
        """
        super().__init__()
        if not terms:
            raise ModelError("an objective needs at least one term, but got none")
        self.terms = tuple(terms)
        self.losses = nn.ModuleList(term.loss for term in terms)
        self._task = task
        for term in terms:
            lacking = [name for name in term.needs if name not in offers]
            if lacking:
                raise ModelError(
                    f"`{term.name}` needs the teacher's {', '.join(lacking)}, but the teacher "
                    f"offers {', '.join(sorted(offers)) or 'nothing'}: choose another teacher "
                    "or another term"
                )
            partly = [name for name in term.needs if name in listed]
            if partly and not hasattr(term.loss, "outcomes"):
                raise ModelError(
                    f"`{term.name}` needs every number of the teacher's {', '.join(partly)}, but "
                    "the store lists some outcomes only: choose a dense `labels.codec`, or a term "
                    "that reads outcomes, such as soft_target"
                )
            if term.reads != task.output:
                raise ModelError(
                    f"`{term.name}` reads {term.reads}, but a student of {task.name} gives "
                    f"{task.output}: choose a term made for {task.name}"
                )

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's knowledge that all terms together need."""
        return frozenset(name for term in self.terms for name in term.needs)

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
    ) -> Total:
        """The loss of a batch at a fractional epoch of training.

        Raises:
            TrainingError: a term that is not finite; it is named.
        """
        own = self._task.comparable(student)
        total = own.new_zeros(())
        parts: dict[str, Tensor] = {}
        counted: list[str] = []
        for term in self.terms:
            mean = self._mean(term, own, teacher, batch, epoch=epoch, epochs=epochs)
            parts[term.name] = mean.detach()
            weight = scheduled(term.weight, epoch=epoch, epochs=epochs)
            # A term that is switched off must not bring its NaN or its graph along.
            if weight:
                counted.append(term.name)
                total = total + weight * mean
        if not counted:
            total = _nothing(own)
        if not bool(torch.isfinite(total)):
            bad = [n for n in counted if not bool(torch.isfinite(parts[n]))] or counted
            raise TrainingError(
                f"the loss must be finite, but {', '.join(f'`{n}`' for n in bad)} is not "
                f"({', '.join(f'{n} = {float(v):.4g}' for n, v in parts.items())})"
            )
        return Total(loss=total, parts=parts)

    def _mean(
        self,
        term: Term,
        own: Tensor,
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
    ) -> Tensor:
        if term.labels:
            if batch.labels is None:
                return _nothing(own)
            seen = self._task.labelled(batch.labels)
            if not bool(seen.any()):
                return _nothing(own)
            return self._hard(term, own, batch, seen).mean()
        if teacher is None:
            raise ModelError(f"`{term.name}` needs a teacher, but there is none")
        # Half precision is the student's business; what it is compared with keeps its digits.
        dtype = torch.promote_types(own.dtype, torch.float32)
        constants = {}
        if term.temperature is not None:
            constants["temperature"] = scheduled(term.temperature, epoch=epoch, epochs=epochs)
        told = teacher[term.needs[0]]
        if isinstance(told, Outcomes):
            return _per_row(term, _on_outcomes(term, own, told, constants), own).mean()
        if isinstance(told, Ragged):
            raise ModelError(
                f"`{term.name}` compares one row per example, but the teacher's {term.needs[0]} "
                "are sequences of different lengths"
            )
        target = self._task.comparable(told.to(dtype))
        return _per_row(term, term.loss(own, target, **constants), own).mean()

    def _hard(self, term: Term, own: Tensor, batch: Batch, seen: Tensor) -> Tensor:
        """The values of the labelled rows; a mixed row's is that of both its labels, by share."""
        assert batch.labels is not None
        # A loss of the user's own need not know that a row may be without a label.
        whole = bool(seen.all())
        rows = own if whole else own[seen]
        own_labels = batch.labels if whole else batch.labels[seen]
        values = _per_row(term, term.loss(rows, self._labels(own_labels)), rows)
        if batch.shares is None or batch.partner_labels is None:
            return values
        shares = batch.shares[seen].to(values.dtype)
        labels = batch.partner_labels[seen]
        # A partner without a label has nothing to say: the row's own label speaks for all of it.
        told = self._task.labelled(labels)
        shares = torch.where(told, shares, 1.0)
        safe = torch.where(told if labels.ndim == 1 else told[:, None], labels, own_labels)
        other = _per_row(term, term.loss(rows, self._labels(safe)), rows)
        return shares * values + (1 - shares) * other

    def _labels(self, labels: Tensor) -> Tensor:
        return self._task.comparable(labels) if labels.is_floating_point() else labels


def _on_outcomes(term: Term, own: Tensor, told: Outcomes, constants: dict[str, float]) -> Tensor:
    if told.classes != own.shape[1]:
        raise ModelError(
            f"the stored labels know {told.classes} classes, but the student answers "
            f"{own.shape[1]}: they must know the same classes in the same order"
        )
    values: Tensor = term.loss.outcomes(  # type: ignore[operator]
        own,
        ids=told.ids,
        log_mass=told.log_mass,
        rest=told.rest,
        sampled=told.sampled,
        entropy=told.entropy,
        **constants,
    )
    return values


def _per_row(term: Term, values: Tensor, own: Tensor) -> Tensor:
    """One value per row: a loss that has taken its own mean would change what a weight means."""
    if values.shape != own.shape[:1]:
        raise ModelError(
            f"a loss gives one value per row, [{len(own)}], but `{term.name}` gave "
            f"{list(values.shape)}: return each row's value, the objective takes the mean"
        )
    return values


def control_objective(terms: Sequence[Term], *, task: Task) -> Objective:
    """The control's objective: the hard-label terms alone, at full weight.

    Where the student has none that counts (all of its knowledge is the teacher's), the task's plain
    hard loss stands in: what somebody without a teacher would train with.
    """
    hard = [term for term in terms if term.labels and _usual(term.weight) > 0]
    if not hard:
        plain = Term(name="hard", loss=_TaskLoss(task), reads=task.output, labels=True)
        return Objective([plain], task=task, offers=frozenset())
    # The weights' sum is brought to 1: beside a teacher 0.1 is a share, alone it would only be a
    # smaller learning rate. A schedule between teacher and labels has no meaning without a teacher.
    share = sum(_usual(term.weight) for term in hard)
    alone = [
        Term(
            name=t.name,
            loss=t.loss,
            reads=t.reads,
            labels=True,
            weight=_usual(t.weight) / share,
        )
        for t in hard
    ]
    return Objective(alone, task=task, offers=frozenset())


def _nothing(own: Tensor) -> Tensor:
    """0 with a graph to go back through, and without the NaN of rows that nothing reads."""
    return own[:0].sum()


def _usual(weight: float | Schedule) -> float:
    return (weight.start + weight.end) / 2 if isinstance(weight, Schedule) else weight


class _TaskLoss(nn.Module):
    """The task's own hard loss as a term."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    def forward(self, own: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self._task.hard_loss(own, labels)
        return loss
