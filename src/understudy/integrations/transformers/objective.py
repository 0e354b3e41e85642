"""The objective of a causal language model: a divergence per token, and cross entropy beside it."""

import math
from dataclasses import dataclass, field
from typing import Final, cast

import torch
from torch import Tensor

from understudy.errors import TrainingError
from understudy.losses import (
    hard_label,
    jensen_shannon,
    outcome_kl,
    reverse_kl,
    sampled_kl,
    skew_kl,
    soft_target_kl,
)
from understudy.losses.skewed import Direction
from understudy.losses.sparse import check_temperature
from understudy.losses.vocabulary import (
    Alignment,
    Blend,
    DenseLabels,
    Forward,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    Reverse,
    VocabularyLoss,
    vocabulary_loss,
)
from understudy.losses.vocabulary.checking import (
    check_labels,
    check_teacher,
    common_width,
    divided_by,
)
from understudy.losses.vocabulary.parts import Divergence, Labels

IGNORED: Final = -100
"""The label of a token that does not count, as Hugging Face has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenObjective:
    """What is learned from every token that counts: `soft_weight * soft + hard_weight * hard`.

    The sum over tokens is divided by their number. With `soft_weight=0` it is the control: plain
    cross entropy, and no teacher is asked.

    Attributes:
        divergence: `Forward()`, `Reverse()`, `Blend(beta=...)` or `Skew(skew=...)`, in nats
            times T².
        temperature: T of the divergence; cross entropy is always at 1.
        soft_weight: of the divergence.
        hard_weight: of the cross entropy with the next token.
        label_smoothing: the share of a hard label that is spread evenly over all tokens.
        vocabulary: how many leading columns student and teacher share; None for those that both
            have, where they differ by padding alone.
        alignment: of vocabularies in another order, or with other special tokens: compares the
            tokens that both have. A token that the teacher lacks does not count as a label.

    Raises:
        ValueError: a constant means nothing, or both weights are 0, or there is both a number of
            columns and an alignment.

    Paper:
        Hinton, Vinyals and Dean 2015, section 2, for each token.

    Example:
        >>> student, labels = torch.zeros(2, 2), torch.tensor([0, -100])
        >>> teacher = DenseLabels(logits=torch.tensor([[0.0, 4.0], [9.0, 0.0]]))
        >>> TokenObjective(temperature=4.0)(student, labels, teacher).loss
        tensor(1.7751)
    """

    divergence: Divergence = field(default_factory=Forward)
    temperature: float | int = 1.0
    soft_weight: float | int = 1.0
    hard_weight: float | int = 0.0
    label_smoothing: float | int = 0.0
    vocabulary: int | None = None
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        check_temperature(float(self.temperature))
        for name in ("soft_weight", "hard_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"`{name} >= 0` must hold, but got {name}={value}: usual is 0 to 1"
                )
        if self.soft_weight + self.hard_weight == 0:
            raise ValueError(
                "there must be something to learn, but got soft_weight=0 and hard_weight=0: use "
                "`hard_weight=1` for cross entropy alone"
            )
        if self.alignment is not None and self.vocabulary is not None:
            raise ValueError(
                f"`vocabulary={self.vocabulary}` and an `alignment` say what is shared in two "
                "ways: leave `vocabulary` out"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"`0 <= label_smoothing < 1` must hold, but got {self.label_smoothing}: usual is "
                "0 or 0.1"
            )

    def __call__(
        self,
        student: Tensor | HiddenLabels,
        labels: Tensor,
        teacher: Labels | None,
        *,
        denominator: float | int | None = None,
    ) -> VocabularyLoss:
        """The loss of some tokens.

        From hidden states and a head no matrix of all logits is made (`vocabulary_loss`).

        Args:
            student: logits `[tokens, vocabulary]`, or hidden states with the head.
            labels: int64 `[tokens]`, the token that each is to predict; -100 where none counts.
            teacher: what it says of the same tokens; not read where the divergence has no weight.
            denominator: what the sum is divided by: the tokens that count in all batches of a
                step. None for those that count here.

        Raises:
            ValueError: shapes do not belong together, or a label is outside the vocabulary.
            TrainingError: there is no teacher, or the value of a token is not finite.
        """
        if self.soft_weight and teacher is None:
            raise TrainingError(
                f"a teacher must speak, as soft_weight={self.soft_weight}, but there is none: "
                "give `teacher=`, or bring its labels in the batch; `soft_weight=0` learns from "
                "the next tokens alone"
            )
        told = teacher if self.soft_weight else None
        if self.alignment is not None:
            student, labels, told = self._aligned(self.alignment, student, labels, told)
        if isinstance(student, Tensor):
            return self._on_logits(student, labels, told, denominator)
        return vocabulary_loss(
            student.hidden,
            student.head,
            told,
            divergence=self.divergence,
            temperature=self.temperature,
            soft_weight=self.soft_weight,
            labels=labels,
            hard_weight=self.hard_weight,
            label_smoothing=self.label_smoothing,
            ignore_index=IGNORED,
            vocabulary=self.vocabulary,
            denominator=denominator,
        )

    def _aligned(
        self,
        alignment: Alignment,
        student: Tensor | HiddenLabels,
        labels: Tensor,
        teacher: Labels | None,
    ) -> tuple[Tensor | HiddenLabels, Tensor, Labels | None]:
        at = float(self.temperature)
        softened = alignment.masked == "rest" and at != 1 and isinstance(student, Tensor)
        if softened and self.hard_weight and not isinstance(teacher, ListedLabels):
            raise ValueError(
                "`masked: rest` holds the mass of all others at one temperature, but the "
                f"divergence is at {at} and the cross entropy at 1: use `renormalised`, or "
                "`temperature=1`"
            )
        return alignment(student, labels, teacher, temperature=at, ignore_index=IGNORED)

    def _on_logits(
        self,
        logits: Tensor,
        labels: Tensor,
        teacher: Labels | None,
        denominator: float | int | None,
    ) -> VocabularyLoss:
        # A head of no width says how many columns there are, and nothing else.
        width = common_width(LinearHead(weight=logits[:0].t()), teacher, self.vocabulary)
        counted = labels != IGNORED
        rows = counted.nonzero()[:, 0]
        check_labels(labels, rows, width=width)
        own = logits[rows][:, :width]
        nothing = own.new_zeros(len(rows), dtype=torch.promote_types(own.dtype, torch.float32))
        soft = hard = nothing
        if teacher is not None:
            at = float(self.temperature)
            kind = self.divergence
            check_teacher(teacher, rows, tokens=len(logits), width=width, kind=kind, at=at)
            soft = _divergence(kind, own, _rows_of(teacher, rows, width), at=at)
        if self.hard_weight:
            smoothing = float(self.label_smoothing)
            hard = hard_label(own, labels[rows], label_smoothing=smoothing)
        _check_finite(soft + hard, rows)
        total = (self.soft_weight * soft + self.hard_weight * hard).sum()
        everywhere = nothing.new_zeros(len(logits))
        return VocabularyLoss(
            loss=total / divided_by(denominator, len(rows)),
            soft=everywhere.index_copy(0, rows, soft.detach().to(everywhere.dtype)),
            hard=everywhere.index_copy(0, rows, hard.detach().to(everywhere.dtype)),
            counted=counted,
        )


def _rows_of(teacher: Labels, rows: Tensor, width: int) -> Tensor | ListedLabels:
    """What it says of these tokens: logits of the common columns, or a list."""
    if isinstance(teacher, DenseLabels):
        return teacher.logits[rows][:, :width]
    if isinstance(teacher, ListedLabels):
        return ListedLabels(
            ids=teacher.ids[rows],
            log_mass=teacher.log_mass[rows],
            rest=teacher.rest[rows],
            sampled=teacher.sampled,
            entropy=None if teacher.entropy is None else teacher.entropy[rows],
        )
    raise ValueError(
        "a student of bare logits needs a teacher of logits, but got hidden states: give "
        "`DenseLabels`, or the student's hidden states and head too"
    )


def _divergence(kind: Divergence, own: Tensor, goal: Tensor | ListedLabels, *, at: float) -> Tensor:
    if isinstance(goal, ListedLabels):
        return _listed(kind, own, goal, at=at)
    if isinstance(kind, Forward):
        return soft_target_kl(own, goal, temperature=at)
    if isinstance(kind, Reverse):
        return reverse_kl(own, goal, temperature=at)
    if isinstance(kind, Blend):
        return jensen_shannon(own, goal, beta=kind.beta, temperature=at)
    direction = cast(Direction, kind.direction)
    return skew_kl(own, goal, skew=kind.skew, temperature=at, direction=direction)


def _listed(kind: Divergence, own: Tensor, goal: ListedLabels, *, at: float) -> Tensor:
    if kind != Forward():
        raise ValueError(
            f"`divergence == Forward()` must hold for listed labels and bare logits, but got "
            f"{kind}: give the student's hidden states and head, or store dense labels"
        )
    if goal.sampled and goal.entropy is not None:
        return sampled_kl(own, goal.ids, goal.log_mass, goal.entropy)
    return outcome_kl(own, goal.ids, goal.log_mass, goal.rest, temperature=at)


def _check_finite(values: Tensor, rows: Tensor) -> None:
    values = values.detach()
    wrong = ~values.isfinite()
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise TrainingError(
            f"the value of every token must be finite, but that of token {int(rows[at])} is "
            f"{float(values[at])} ({int(wrong.sum())} of {len(rows)} tokens): mask it with the "
            f"label {IGNORED}, use `Blend` or `Skew` where one side rules out what the other "
            "allows, or find what made the logits so"
        )
