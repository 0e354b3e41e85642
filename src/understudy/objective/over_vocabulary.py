"""What a term of the catalogue is over a vocabulary, and what of it a teacher cannot serve."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from understudy.contracts import Batch, Knowledge, Outcomes, Ragged, per_position
from understudy.errors import ModelError
from understudy.losses import HardLabel, JensenShannon, ReverseKL, SkewKL, SoftTargetKL
from understudy.losses.vocabulary import (
    Blend,
    DenseLabels,
    Forward,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    Reverse,
    Skew,
    vocabulary_loss,
)
from understudy.losses.vocabulary.parts import Divergence, Labels
from understudy.objective.terms import Term, scheduled
from understudy.recipe import Schedule

IGNORED: Final = -100
OVER_VOCABULARY: Final = (HardLabel, SoftTargetKL, ReverseKL, JensenShannon, SkewKL)
"""The losses of the catalogue that have a fused form."""

KINDS: Final = "hard_label, soft_target, reverse_kl, jensen_shannon or skew_kl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a term is computed.

    Attributes:
        divergence: from the teacher; None for hard labels.
        temperature: of the divergence.
        smoothing: of hard labels.
    """

    divergence: Divergence | None = None
    temperature: float | Schedule = 1.0
    smoothing: float = 0.0

    @property
    def hard(self) -> bool:
        """Whether it reads hard labels and no teacher."""
        return self.divergence is None

    def at(self, *, epoch: float, epochs: int) -> float:
        """The temperature at a fractional epoch."""
        return float(scheduled(self.temperature, epoch=epoch, epochs=epochs))

    def refuse(self, name: str, *, told: str, offers: frozenset[str]) -> None:
        """Say no to a teacher that cannot serve.

        Args:
            name: of the term.
            told: what it would be told by: logits, or states.
            offers: what the teacher gives.

        Raises:
            ModelError: naming what is lacking.
        """
        if self.hard:
            return
        if told not in offers:
            raise ModelError(
                f"`{name}` needs the teacher's {told}, but the teacher offers "
                f"{', '.join(sorted(offers)) or 'nothing'}: choose another teacher or another term"
            )


def plan_of(term: Term) -> Plan:
    """How a term on the answers of a language model is computed.

    Raises:
        ModelError: it is not made for vocabularies.
    """
    loss = term.loss
    if isinstance(loss, HardLabel):
        return Plan(smoothing=float(loss.label_smoothing))
    kind = _divergence(loss)
    if kind is None:
        raise ModelError(
            f"`{term.name}` is not made for vocabularies, where no table of all logits is kept: "
            f"use {KINDS}"
        )
    if (
        getattr(loss, "head", "softmax") != "softmax"
        or getattr(loss, "form", "divergence") != "divergence"
    ):
        raise ModelError(
            f"`{term.name}` over a vocabulary is a divergence of softmax distributions, but got "
            f"{loss.extra_repr()}: leave `head` and `form` out"
        )
    own = float(loss.temperature)  # type: ignore[arg-type]
    return Plan(divergence=kind, temperature=own if term.temperature is None else term.temperature)


def _divergence(loss: object) -> Divergence | None:
    if isinstance(loss, SoftTargetKL):
        return Forward()
    if isinstance(loss, ReverseKL):
        return Reverse()
    if isinstance(loss, JensenShannon):
        return Blend(beta=float(loss.beta))
    if isinstance(loss, SkewKL):
        return Skew(skew=float(loss.skew), direction=loss.direction)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """The constants of one pass: weights of both sides, smoothing of the hard, T of the soft."""

    soft: float
    hard: float
    smoothing: float
    temperature: float


class Flat:
    """A batch with one row per position that counts."""

    def __init__(
        self, student: HiddenLabels, labels: Tensor | None, teacher: Labels | None
    ) -> None:
        self._student, self._labels, self._teacher = student, labels, teacher
        self.zero = student.hidden[:0].sum()
        #: whether every position that counts has a hard label
        self.whole = labels is not None and bool((labels >= 0).all())

    @classmethod
    def of(
        cls,
        student: HiddenLabels,
        teacher: Knowledge | None,
        batch: Batch,
        *,
        name: str,
        head: LinearHead | None,
    ) -> "Flat":
        """The positions of a batch.

        Raises:
            ModelError: labels, states or knowledge do not belong to these positions.
        """
        counted = batch.positions
        if counted is None and batch.labels is not None:
            counted = batch.labels >= 0
        if counted is None or counted.shape != student.hidden.shape[:2]:
            shape = None if counted is None else list(counted.shape)
            raise ModelError(
                "a batch of a language model must say which positions count, "
                f"{list(student.hidden.shape[:2])}, but says {shape}: give labels per position"
            )
        states = HiddenLabels(hidden=student.hidden[counted], head=student.head)
        labels = None if batch.labels is None else batch.labels[counted]
        told = None
        if teacher is not None and name in teacher:
            found = per_position(f"the teacher's {name}", teacher[name], counted)
            told = _labels_of(found, head)
        return cls(states, labels, told)

    def look(self, plan: Plan | None, sides: Sides) -> tuple[Tensor, Tensor, Tensor]:
        """One pass: the loss, and the mean divergence and cross entropy of what counts."""
        if plan is not None and self._teacher is None:
            raise ModelError("a divergence needs a teacher, but there is none")
        labels = None
        if sides.hard and self._labels is None:
            return self.zero, self.zero.detach(), self.zero.detach()
        if sides.hard and self._labels is not None:
            labels = torch.where(self._labels >= 0, self._labels, IGNORED)
        try:
            told = vocabulary_loss(
                self._student.hidden,
                self._student.head,
                None if plan is None else self._teacher,
                divergence=None if plan is None else plan.divergence,
                temperature=sides.temperature,
                soft_weight=sides.soft,
                labels=labels,
                hard_weight=sides.hard,
                label_smoothing=sides.smoothing,
                ignore_index=IGNORED,
            )
        except ValueError as error:
            raise ModelError(str(error)) from error
        count = told.counted.sum().clamp(min=1)
        return told.loss, told.soft.sum() / count, told.hard.sum() / count


def _labels_of(told: Ragged, head: LinearHead | None) -> Labels:
    values = told.values
    if isinstance(values, Outcomes):
        return ListedLabels(
            ids=values.ids,
            log_mass=values.log_mass,
            rest=values.rest,
            sampled=values.sampled,
            entropy=values.entropy,
        )
    if head is not None:
        return HiddenLabels(hidden=values, head=head)
    return DenseLabels(logits=values)
