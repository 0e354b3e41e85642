"""A loss over a vocabulary that was checked, ready to be computed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.losses.vocabulary.parts import Divergence, Labels, LinearHead, Pieces
from understudy.losses.vocabulary.tiles import Projection


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A loss, checked and ready to be computed.

    Attributes:
        rows: int64, which tokens count.
        head: the student's; its tensors are not read from here.
        teacher: its labels for all tokens, or None.
        kind: the divergence.
        labels: int64 `[tokens]`, or None where hard labels weigh nothing.
        smoothing: of the hard labels.
        temperature: of the divergence.
        soft_weight: of the divergence, T² not included.
        hard_weight: of the cross entropy.
        denominator: what the weighted sum over tokens is divided by.
        vocabulary: how many columns there are.
        pieces: how the work is cut.
        compiled: whether Triton's kernels do what is not a product.
        dtype: what is computed in.
        wants: whether the hidden states, the weight and the bias need a gradient.
    """

    rows: Tensor
    head: LinearHead
    teacher: Labels | None
    kind: Divergence
    labels: Tensor | None
    smoothing: float
    temperature: float
    soft_weight: float
    hard_weight: float
    denominator: float
    vocabulary: int
    pieces: Pieces
    compiled: bool
    dtype: torch.dtype
    wants: tuple[bool, bool, bool]

    @property
    def factor(self) -> float:
        """From a slope in the softened logits, that of one side alone, to one before the scale."""
        if self.teacher is None:
            return self.hard_weight * float(self.head.scale) / self.denominator
        return self.soft_weight * self.temperature * float(self.head.scale) / self.denominator

    @property
    def share(self) -> float:
        """Of the hard slope, in the units of the soft one: one factor multiplies all in the end."""
        if self.teacher is None:
            return 1.0
        return self.hard_weight / (self.soft_weight * self.temperature)


def project(hidden: Tensor, head: LinearHead, work: Work, kept: Tensor | None) -> Projection:
    """The softened logits of a head; before its cap where kernels read them."""
    return Projection(
        hidden,
        weight=head.weight.detach(),
        bias=None if head.bias is None else head.bias.detach(),
        scale=float(head.scale),
        soft_cap=None if head.soft_cap is None else float(head.soft_cap),
        temperature=work.temperature,
        kept=kept,
        capped=not work.compiled,
    )
