"""Losses between causal models of two tokenizers, on the parts of a text that both cut out.

Two vocabularies have no columns in common, but both models give a probability to the same piece of
text: the product of those of its tokens, each after all before it. What two tokens say of a piece
for one side, five may say for the other.
"""

import math
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from understudy.losses.constants import NoConstants
from understudy.losses.shapes import paired

_HALF: Final = math.log(0.5)


def token_log_probs(
    logits: Float[Tensor, " *axes vocabulary"], tokens: Int64[Tensor, " *axes"]
) -> Float[Tensor, " *axes"]:
    """Natural logarithm of the probability of one token per position, in at least float32.

    Args:
        logits: before each token: of a causal model, those of the position before it.
        tokens: the tokens that were there; -1 gives 0, for padding.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found = wide.gather(-1, tokens.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(tokens < 0, 0.0, found - wide.logsumexp(dim=-1))


def chunk_log_probs(
    log_probs: Float[Tensor, " batch tokens"], chunks: Int64[Tensor, " batch tokens"], count: int
) -> Float[Tensor, " batch count"]:
    """The log probability of every chunk: the sum over its tokens, 0 where a row has fewer.

    Args:
        log_probs: of the tokens that were there.
        chunks: the number of each token's chunk in its row, -1 for none.
        count: chunks of the row with most.
    """
    inside = chunks >= 0
    values = torch.where(inside, log_probs, 0.0)
    # A column behind the last chunk takes what belongs to none.
    sums = log_probs.new_zeros(len(log_probs), count + 1)
    return sums.scatter_add(1, torch.where(inside, chunks, count), values)[:, :count]


def chunk_kl(
    student: Float[Tensor, " batch chunks"], teacher: Float[Tensor, " batch chunks"]
) -> Float[Tensor, " batch chunks"]:
    """Divergence of what both make of a chunk: that it comes next, or that something else does.

    `KL(teacher || student)` over these two outcomes, in nats. Merging all other texts into one
    outcome never raises a divergence, so it is a lower bound of the one between both models'
    distributions over texts, and exactly 0 where they agree on the chunk. A chunk that the teacher
    holds for unlikely says little, and pulls little; a squared difference of the logarithms would
    pull most there.

    Args:
        student: log probabilities of chunks, in nats; the gradient reaches only these.
        teacher: likewise, of the same chunks by its own tokens.

    Returns:
        One value per chunk.

    Raises:
        ValueError: the shapes differ, or a log probability is above 0.

    Paper:
        The merged probability is the chain rule in "Unlocking On-Policy Distillation for Any Model
        Family" (GOLD, Patino et al. 2025), which spreads it over single tokens; that merging
        outcomes never raises a divergence is Cover and Thomas 2006, section 2.8. Usual weight 1
        beside 1 on the cross entropy.

    Example:
        >>> chunk_kl(torch.tensor([[0.5]]).log(), torch.tensor([[0.9]]).log())
        tensor([[0.3681]])
    """
    if student.shape != teacher.shape:
        paired(student, teacher, name="teacher")
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    own, goal = student.to(dtype), teacher.detach().to(dtype)
    _check_not_above(own.detach(), "student")
    _check_not_above(goal, "teacher")
    # Certainty has no logarithm of what is left: both sides stop where the numbers do.
    least = torch.finfo(dtype).eps
    own, goal = own.clamp(max=-least), goal.clamp(max=-least)
    mass, left = goal.exp(), -torch.expm1(goal)
    # -inf less -inf would be NaN where both hold a chunk for impossible.
    gap = torch.where(mass == 0, 0.0, goal - own)
    value = mass * gap + left * (_log_left(goal) - _log_left(own))
    return torch.where(own.detach() == goal, value * 0, value.clamp(min=0))


def mean_of_chunks(
    values: Float[Tensor, " batch chunks"], counts: Int64[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The mean of each row over its chunks, 0 where it has none."""
    there = torch.arange(values.shape[1], device=values.device) < counts.unsqueeze(1)
    return torch.where(there, values, 0.0).sum(dim=1) / counts.clamp(min=1)


class ChunkKL(NoConstants):
    """`chunk_kl` of the tokens that were there, one value per row: the mean over its chunks."""

    def forward(
        self,
        student: Float[Tensor, " batch tokens"],
        teacher: Float[Tensor, " batch its_tokens"],
        *,
        student_chunks: Int64[Tensor, " batch tokens"],
        teacher_chunks: Int64[Tensor, " batch its_tokens"],
        counts: Int64[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """One value per row.

        Args:
            student: log probabilities of its tokens, as `token_log_probs` gives them.
            teacher: of its own tokens.
            student_chunks: the chunk of each, as `shared_chunks` gives them.
            teacher_chunks: likewise.
            counts: chunks per row.
        """
        most = int(counts.max()) if len(counts) else 0
        own = chunk_log_probs(student, student_chunks, most)
        goal = chunk_log_probs(teacher, teacher_chunks, most)
        return mean_of_chunks(chunk_kl(own, goal), counts)


def _log_left(log_mass: Tensor) -> Tensor:
    """`log(1 - e^x)` for x below 0, exact at both ends."""
    small = log_mass > _HALF
    # The other branch must be finite too: its gradient is multiplied by 0, and 0 * inf is NaN.
    near = torch.where(small, log_mass, _HALF)
    far = torch.where(small, _HALF, log_mass)
    return torch.where(small, (-torch.expm1(near)).log(), torch.log1p(-far.exp()))


def _check_not_above(log_mass: Tensor, name: str) -> None:
    # Rounding may leave a sum of logarithms a little above.
    if log_mass.numel() and not bool((log_mass <= 1e-4).all() | log_mass.isnan().any()):
        raise ValueError(
            f"`{name} <= 0` must hold, but got {float(log_mass.max())}: give logarithms of "
            "probabilities"
        )
