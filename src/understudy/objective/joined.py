"""Terms joined into one loss: what each needs is there, and its mean counts by its weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge, Task
from understudy.errors import DivergedError, ModelError
from understudy.objective.answers import Answers
from understudy.objective.calling import nothing, wide
from understudy.objective.checks import check
from understudy.objective.masks import with_real
from understudy.objective.positions import by_position
from understudy.objective.terms import Term
from understudy.objective.weighed import Weighed
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


class Objective(Weighed):
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
        super().__init__(terms, task=task)
        self.losses = nn.ModuleList(term.loss for term in terms)
        self.adapters = nn.ModuleDict({t.key: t.adapter for t in terms if t.adapter is not None})
        self._pad = pad
        for term in terms:
            check(term, task=task, offers=offers, listed=listed)
        self.start: Start | None = None

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's knowledge that all terms together need, layers included."""
        return frozenset(name for term in self.terms for name in term.wants)

    @property
    def spots(self) -> tuple[str, ...]:
        """The layers of the student that are read."""
        return tuple(dict.fromkeys(p.student for term in self.terms for p in term.pairs))

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
            DivergedError: a term that is not finite; it is named.
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
            raise DivergedError(
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
            answers = Answers(
                task=self._task,
                own=self._task.comparable(wide(student)),
                features=features,
                teacher=teacher,
                batch=batch,
                epoch=epoch,
                epochs=epochs,
            )
            return {
                term.name: self._held(term, weights)
                if term.reads == "weights"
                else answers.mean(term)
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
