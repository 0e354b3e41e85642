"""Losses on a transformer's attention: its scores, its distributions, and relations beyond them.

Scores are `[batch, heads, queries, keys]`. Queries, keys and values are `[batch, heads, tokens,
dim]`: head counts agree between the two sides, and the numbers per head need not.
"""

import math
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import NoConstants
from understudy.losses.tokens import mean_where, real_tokens, same_shape

NAMES: Final = ("queries", "keys", "values")


def tinybert_attention(
    student: Float[Tensor, " batch heads queries keys"],
    teacher: Float[Tensor, " batch heads queries keys"],
    *,
    floor: float = -100.0,
    mask: Bool[Tensor, " batch tokens"] | None = None,
) -> Float[Tensor, " batch"]:
    """Squared difference of attention scores before the softmax, mean over heads and pairs.

    A score of `floor` or less is taken as 0 on either side, as in the authors' code: models add
    -10000 or -inf to the scores of padding. Their mean still counts these, and the queries of
    padding; with a mask neither does.

    Args:
        student: scores of a layer with as many heads as the teacher's; the gradient reaches only
            these.
        teacher: scores of the same tokens.
        floor: where a score stands for "not to be looked at".
        mask: True for a real token, of self-attention; None where all are. Scores of the others
            may hold anything.

    Returns:
        One value per row; 0 where a row has no real token.

    Raises:
        ValueError: the shapes differ, the floor is not negative, or the mask is not one bool per
            token.

    Paper:
        Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding",
        section 3, equation 7. Usual weight 1 per pair of layers beside 1 on `tinybert_hidden`; it
        needs features of the teacher.

    Example:
        >>> tinybert_attention(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0))
        tensor([9.])
    """
    _check_floor(floor)
    own, goal = same_shape(student, teacher, axes="batch, heads, queries, keys")
    counted = torch.ones_like(own[:, :1], dtype=torch.bool)
    if mask is not None:
        _check_square(own)
        real = real_tokens(mask, own, batch=own.shape[0], tokens=own.shape[3])
        counted = (real.unsqueeze(2) & real.unsqueeze(1)).unsqueeze(1)
    mine, theirs = (torch.where(counted & ~(s <= floor), s, 0.0) for s in (own, goal))
    return mean_where((mine - theirs).square(), counted)


def minilm(
    student: list[Float[Tensor, " batch heads tokens _"]],
    teacher: list[Float[Tensor, " batch heads tokens _"]],
    *,
    mask: Bool[Tensor, " batch tokens"] | None = None,
) -> Float[Tensor, " batch"]:
    """Divergence of attention distributions plus that of value relations, in nats.

    The first compares softmax(queries · keys), the second softmax(values · values), both scaled
    by the root of the numbers per head; each is the sum over keys and the mean over heads and
    queries. Of the last layer alone, so the two sides may differ in depth and width; they must
    have as many heads.

    Args:
        student: queries, keys and values of one layer; the gradient reaches only these.
        teacher: the same of one layer of the teacher.
        mask: True for a real token; None where all are. The others may hold anything.

    Returns:
        One value per row; 0 where a row has no real token.

    Raises:
        ValueError: not three tensors per side, shapes that do not agree, or a mask that is not
            one bool per token.

    Paper:
        Wang et al. 2020, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression
        of Pre-Trained Transformers", sections 3.1 and 3.2. Usual weight 1, alone; it needs
        features of the teacher.

    Example:
        >>> flat, sharp = torch.zeros(1, 1, 2, 1), torch.tensor([[[[2.0], [-2.0]]]])
        >>> minilm([flat, flat, flat], [sharp, sharp, sharp])
        tensor([1.3803])
    """
    return _relations(student, teacher, pairs=((0, 1), (2, 2)), mask=mask)


def minilm_v2(
    student: list[Float[Tensor, " batch heads tokens _"]],
    teacher: list[Float[Tensor, " batch heads tokens _"]],
    *,
    mask: Bool[Tensor, " batch tokens"] | None = None,
) -> Float[Tensor, " batch"]:
    """Divergence of query, key and value relations, each with its own kind, in nats.

    Three times what `minilm` does for values. The heads are relation heads: an adapter splits each
    side's width in as many, whatever heads the models have, so head counts need not agree.

    Args:
        student: queries, keys and values of one layer, in relation heads; the gradient reaches
            only these.
        teacher: the same of one layer of the teacher, in as many relation heads.
        mask: True for a real token; None where all are. The others may hold anything.

    Returns:
        One value per row: the sum of the three, each the mean over heads and queries. 0 where a
        row has no real token.

    Raises:
        ValueError: not three tensors per side, shapes that do not agree, or a mask that is not
            one bool per token.

    Paper:
        Wang et al. 2021, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for
        Compressing Pretrained Transformers", section 3.1, equation 5. Usual weight 1, alone; it
        needs features of the teacher.

    Example:
        >>> flat, sharp = torch.zeros(1, 1, 2, 1), torch.tensor([[[[2.0], [-2.0]]]])
        >>> minilm_v2([flat, flat, flat], [sharp, sharp, sharp])
        tensor([2.0704])
    """
    return _relations(student, teacher, pairs=((0, 0), (1, 1), (2, 2)), mask=mask)


class TinyBERTAttention(nn.Module):
    """`tinybert_attention` with a fixed floor."""

    def __init__(self, *, floor: float = -100.0) -> None:
        super().__init__()
        _check_floor(floor)
        self.floor = floor

    def forward(
        self,
        student: Float[Tensor, " batch heads queries keys"],
        teacher: Float[Tensor, " batch heads queries keys"],
        *,
        mask: Bool[Tensor, " batch tokens"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return tinybert_attention(student, teacher, floor=self.floor, mask=mask)

    def extra_repr(self) -> str:
        """The floor, for printing."""
        return f"floor={self.floor}"


class MiniLM(NoConstants):
    """`minilm`; it has no constants."""

    def forward(
        self,
        student: list[Float[Tensor, " batch heads tokens _"]],
        teacher: list[Float[Tensor, " batch heads tokens _"]],
        *,
        mask: Bool[Tensor, " batch tokens"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return minilm(student, teacher, mask=mask)


class MiniLMv2(NoConstants):
    """`minilm_v2`; it has no constants."""

    def forward(
        self,
        student: list[Float[Tensor, " batch heads tokens _"]],
        teacher: list[Float[Tensor, " batch heads tokens _"]],
        *,
        mask: Bool[Tensor, " batch tokens"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return minilm_v2(student, teacher, mask=mask)


def _relations(
    student: list[Tensor],
    teacher: list[Tensor],
    *,
    pairs: tuple[tuple[int, int], ...],
    mask: Tensor | None,
) -> Float[Tensor, " batch"]:
    _check_triples(student, teacher)
    batch, _, tokens, _ = student[0].shape
    real = real_tokens(mask, student[0], batch=batch, tokens=tokens)
    dtype = torch.float32
    for part in (*student, *teacher):
        dtype = torch.promote_types(dtype, part.dtype)
    shown = real[:, None, :, None]
    own, goal = (
        [torch.where(shown, part.to(dtype), 0.0) for part in side]
        for side in (student, [part.detach() for part in teacher])
    )
    values = own[0].new_zeros(batch)
    for one, other in pairs:
        log_own = _log_relation(own[one], own[other], real)
        log_goal = _log_relation(goal[one], goal[other], real)
        # The mass of a masked key is exactly 0, and its logarithms are finite.
        divergence = (log_goal.exp() * (log_goal - log_own)).sum(dim=3)
        values = values + mean_where(divergence, real.unsqueeze(1))
    return values


def _log_relation(
    one: Float[Tensor, " batch heads tokens dim"],
    other: Float[Tensor, " batch heads tokens dim"],
    real: Bool[Tensor, " batch tokens"],
) -> Float[Tensor, " batch heads tokens tokens"]:
    scores = one @ other.transpose(2, 3) / math.sqrt(one.shape[3])
    # Not -inf: a row without any real token would be NaN.
    scores = scores.masked_fill(~real[:, None, None, :], torch.finfo(scores.dtype).min)
    return F.log_softmax(scores, dim=3)


def _check_triples(student: list[Tensor], teacher: list[Tensor]) -> None:
    if len(student) != 3 or len(teacher) != 3:
        raise ValueError(
            "`len(student) == len(teacher) == 3` must hold, but got "
            f"{len(student)} and {len(teacher)}: give {', '.join(NAMES)} of one layer each"
        )
    if student[0].ndim != 4 or 0 in student[0].shape[1:]:
        raise ValueError(
            "the student's queries must be [batch, heads, tokens, dim], none of them 0 but the "
            f"batch, but got {tuple(student[0].shape)}"
        )
    for whose, side in (("student", student), ("teacher", teacher)):
        for name, part in zip(NAMES, side, strict=True):
            same = part.ndim == 4 and part.shape[:3] == student[0].shape[:3]
            # Queries meet keys; values may have numbers of their own.
            if not same or (name == "keys" and part.shape != side[0].shape):
                raise ValueError(
                    "the same batch, heads and tokens must hold throughout, and as many numbers "
                    f"in keys as in queries, but got the {whose}'s {name} {tuple(part.shape)} "
                    f"beside its queries {tuple(side[0].shape)} and the student's "
                    f"{tuple(student[0].shape)}: split both sides in as many heads"
                )


def _check_floor(floor: float) -> None:
    if not floor < 0:
        raise ValueError(f"`floor < 0` must hold, but got {floor=}: the authors' is -100")


def _check_square(scores: Tensor) -> None:
    if scores.shape[2] != scores.shape[3]:
        raise ValueError(
            f"`queries == keys` must hold where there is a mask, but got {tuple(scores.shape)}: "
            "one mask tells only of one sequence"
        )
