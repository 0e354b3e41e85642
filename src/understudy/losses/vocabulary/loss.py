"""The loss over a large vocabulary: what it is given is checked here, and computed in fused.py."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from understudy.losses.sparse import check_temperature
from understudy.losses.vocabulary.checking import (
    check_finite,
    check_head,
    check_labels,
    check_teacher,
    check_weights,
    common_width,
    counted_rows,
    divided_by,
)
from understudy.losses.vocabulary.compiled.choosing import takes_kernels
from understudy.losses.vocabulary.fused import FusedLoss
from understudy.losses.vocabulary.parts import Divergence, Forward, Labels, LinearHead, Pieces
from understudy.losses.vocabulary.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class VocabularyLoss:
    """What a loss over a vocabulary gives.

    Attributes:
        loss: a scalar with a gradient: `soft_weight * soft + hard_weight * hard`, summed over the
            tokens that count and divided by the denominator.
        soft: `[tokens]`, the divergence of each in nats times T², detached; 0 where none counts.
        hard: `[tokens]`, the cross entropy of each in nats, detached; 0 where it has no weight.
        counted: bool `[tokens]`, which tokens count.
    """

    loss: Tensor
    soft: Tensor
    hard: Tensor
    counted: Tensor


def vocabulary_loss(
    hidden: Float[Tensor, " tokens width"],
    head: LinearHead,
    teacher: Labels | None = None,
    *,
    divergence: Divergence | None = None,
    temperature: float | int = 1.0,
    soft_weight: float | int = 1.0,
    labels: Int64[Tensor, " tokens"] | None = None,
    hard_weight: float | int = 0.0,
    label_smoothing: float | int = 0.0,
    mask: Bool[Tensor, " tokens"] | None = None,
    ignore_index: int = -100,
    vocabulary: int | None = None,
    denominator: float | int | Tensor | None = None,
    pieces: Pieces | None = None,
) -> VocabularyLoss:
    """Divergence from a teacher and cross entropy, from hidden states, without all the logits.

    The value is that of `soft_target_kl` (or another divergence) and `hard_label` on the logits of
    the head, but no `[tokens, vocabulary]` matrix ever exists: the gradient is computed beside the
    value, some tokens and some columns at a time. It reaches the student's hidden states, weight
    and bias; backward only hands it on. Half precision is computed in float32, float64 stays.

    Sparse labels are compared as k + 1 outcomes (`outcome_kl`), sampled ones by their estimate
    (`sampled_kl`). Of heads of different width, as padding makes them, the common columns are
    compared, for the hard labels too; the rest has no mass and no gradient.

    Args:
        hidden: the student's, before its head.
        head: the student's.
        teacher: its labels, one row per token; None for cross entropy alone.
        divergence: `Forward()` where None.
        temperature: T of the divergence; hard labels are always at 1.
        soft_weight: of the divergence.
        labels: the next tokens; `ignore_index` where a token does not count, for either side.
        hard_weight: of the cross entropy; at 0 the labels are read as a mask alone.
        label_smoothing: the share of a hard label that is spread evenly over all columns.
        mask: which tokens count; with labels too, those that both let count.
        ignore_index: the label of tokens that do not count.
        vocabulary: how many leading columns are tokens; None for those that both sides have.
        denominator: what the sum over tokens is divided by: with gradient accumulation the number
            of tokens of all batches together. None for the tokens that count here.
        pieces: how the work is cut; None for what fits the device.

    Returns:
        The loss and what it was made of. Where no token counts all are 0, with a gradient of 0.

    Raises:
        ValueError: shapes do not belong together, a label is outside the vocabulary, a constant
            means nothing, widths differ by more than padding without `vocabulary`, or the
            divergence cannot be had from such labels.
        TrainingError: the value of a token is not finite; the first such token is named.
        MissingExtraError: `pieces` ask for Triton, which is not installed.

    Paper:
        Hinton, Vinyals and Dean 2015, section 2, for the loss; Milakov and Gimelshein 2018,
        "Online normalizer calculation for softmax", for normalising in parts.

    Example:
        >>> head = LinearHead(weight=torch.eye(2))
        >>> teacher = DenseLabels(logits=torch.tensor([[0.0, 4.0]]))
        >>> vocabulary_loss(torch.zeros(1, 2), head, teacher, temperature=4.0).loss
        tensor(1.7751)
    """
    at, soft, hard = float(temperature), float(soft_weight), float(hard_weight)
    smoothing = float(label_smoothing)
    check_temperature(at)
    check_head(hidden, head)
    check_weights(teacher, labels, soft, hard, smoothing)
    width = common_width(head, teacher, vocabulary)
    counted = counted_rows(hidden, labels, mask, ignore_index)
    rows = counted.nonzero()[:, 0]
    kind = Forward() if divergence is None else divergence
    if teacher is not None:
        check_teacher(teacher, rows, tokens=len(hidden), width=width, kind=kind, at=at)
    if labels is not None:
        check_labels(labels, rows, width=width)
    dtype = torch.promote_types(torch.promote_types(hidden.dtype, head.weight.dtype), torch.float32)
    leaves = (hidden, head.weight, head.bias)
    cut = pieces or Pieces.fitting(width, dtype=dtype, device=hidden.device)
    work = Work(
        rows=rows,
        head=head,
        teacher=teacher,
        kind=kind,
        labels=labels if hard else None,
        smoothing=smoothing,
        temperature=1.0 if teacher is None else at,
        soft_weight=soft,
        hard_weight=hard,
        denominator=divided_by(denominator, len(rows)),
        vocabulary=width,
        pieces=cut,
        compiled=takes_kernels(cut.kernels, hidden.device),
        dtype=dtype,
        wants=_wants(leaves),
    )
    loss, divergences, entropies = FusedLoss.apply(*leaves, work)  # type: ignore[no-untyped-call]
    check_finite(divergences, entropies, rows, hidden=hidden, head=head, teacher=teacher)
    return VocabularyLoss(loss=loss, soft=divergences, hard=entropies, counted=counted)


def _wants(leaves: tuple[Tensor | None, ...]) -> tuple[bool, bool, bool]:
    asked = torch.is_grad_enabled()
    hidden, weight, bias = (asked and x is not None and x.requires_grad for x in leaves)
    return hidden, weight, bias
