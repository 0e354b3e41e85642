"""Losses on a transformer's hidden states: of every token, or of the class token alone."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.losses.constants import NoConstants
from understudy.losses.rows import unit
from understudy.losses.tokens import mean_where, real_tokens, same_shape

STATES = "batch, tokens, width"


def tinybert_hidden(
    student: Float[Tensor, " batch tokens width"],
    teacher: Float[Tensor, " batch tokens width"],
    *,
    mask: Bool[Tensor, " batch tokens"] | None = None,
) -> Float[Tensor, " batch"]:
    """Squared difference of hidden states, mean over real tokens and over columns.

    The authors map the student to the teacher's width with a linear layer, which is an adapter
    here. Their mean counts padding too. Here it counts real tokens, and each row counts alike
    however many it has; without padding the two are the same.

    Args:
        student: hidden states in the teacher's width; the gradient reaches only these.
        teacher: hidden states of the same tokens.
        mask: True for a real token; None where all are. The others may hold anything.

    Returns:
        One value per row; 0 where a row has no real token.

    Raises:
        ValueError: the shapes differ, or the mask is not one bool per token.

    Paper:
        Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding",
        section 3, equations 8 and 9. Usual weight 1 per pair of layers beside 1 on
        `tinybert_attention`; it needs features of the teacher.

    Example:
        >>> tinybert_hidden(torch.zeros(1, 2, 2), torch.tensor([[[1.0, 1.0], [3.0, 3.0]]]))
        tensor([5.])
    """
    own, goal = same_shape(student, teacher, axes=STATES)
    real = real_tokens(mask, own, batch=own.shape[0], tokens=own.shape[1]).unsqueeze(2)
    # Before the square: the gradient of what is masked would be NaN where it is not finite.
    gap = torch.where(real, own, 0.0) - torch.where(real, goal, 0.0)
    return mean_where(gap.square(), real)


def pkd(
    student: list[Float[Tensor, " batch tokens _"]],
    teacher: list[Float[Tensor, " batch tokens _"]],
    *,
    normalize: bool = True,
    mask: Bool[Tensor, " batch tokens"] | None = None,
) -> Float[Tensor, " batch"]:
    """Squared difference of the class token's states, mean over columns and over pairs of layers.

    The class token is the first real one. Its states are brought to length 1, so a value is at
    most 4 / width, which the large weight makes up for: the paper has the sum over columns and
    over pairs, the authors' code has the mean over both. A zero state has no direction and no
    gradient.

    Args:
        student: hidden states per pair of layers, in the teacher's width; the gradient reaches
            only these.
        teacher: as many hidden states of the same tokens.
        normalize: False compares the states as they are.
        mask: True for a real token; None where all are. The others may hold anything.

    Returns:
        One value per row; 0 where a row has no real token.

    Raises:
        ValueError: there is no pair or a half of one, shapes differ, or the mask is not one bool
            per token.

    Paper:
        Sun et al. 2019, "Patient Knowledge Distillation for BERT Model Compression", section 3.2,
        equation 7. Usual weight 10 to 1000 beside 0.3 on `hard_label` and 0.7 on `soft_target`; it
        needs features of the teacher.

    Example:
        >>> student, teacher = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 5.0]]])
        >>> pkd([student], [teacher])
        tensor([1.])
    """
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"`len(student) == len(teacher) >= 1` must hold, but got {len(student)} layers of the "
            f"student and {len(teacher)} of the teacher: name them in pairs"
        )
    gaps = []
    for mine, theirs in zip(student, teacher, strict=True):
        own, goal = same_shape(mine, theirs, axes=STATES)
        real = real_tokens(mask, own, batch=own.shape[0], tokens=own.shape[1])
        # argmax of a bool is its first True.
        first = real.int().argmax(dim=1)
        here = torch.arange(len(own), device=own.device), first
        some = real.any(dim=1, keepdim=True)
        pair = [torch.where(some, states[here], 0.0) for states in (own, goal)]
        if normalize:
            pair = [unit(states) for states in pair]
        gaps.append((pair[0] - pair[1]).square().mean(dim=1))
    return torch.stack(gaps).mean(dim=0)


class TinyBERTHidden(NoConstants):
    """`tinybert_hidden`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch tokens width"],
        teacher: Float[Tensor, " batch tokens width"],
        *,
        mask: Bool[Tensor, " batch tokens"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return tinybert_hidden(student, teacher, mask=mask)


class PKD(nn.Module):
    """`pkd` with states brought to length 1, or as they are."""

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(
        self,
        student: list[Float[Tensor, " batch tokens _"]],
        teacher: list[Float[Tensor, " batch tokens _"]],
        *,
        mask: Bool[Tensor, " batch tokens"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return pkd(student, teacher, normalize=self.normalize, mask=mask)

    def extra_repr(self) -> str:
        """The constant, for printing."""
        return f"normalize={self.normalize}"
