"""Which tokens of a sequence count, and the mean over them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def same_shape(
    student: Tensor, teacher: Tensor, *, axes: str
) -> tuple[Float[Tensor, "*axes"], Float[Tensor, "*axes"]]:
    """Student and teacher of one shape, checked, in one precision of at least float32.

    The teacher comes back detached.

    Args:
        student: what the student computes.
        teacher: what it is compared with, of exactly the same shape.
        axes: what the axes are, in words: "batch, tokens, width".

    Raises:
        ValueError: the shapes differ, or do not have these axes with something in each.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"`student.shape == teacher.shape` must hold, but got student {tuple(student.shape)} "
            f"and teacher {tuple(teacher.shape)}: both are [{axes}]; nothing is broadcast"
        )
    if student.ndim != len(axes.split(",")) or 0 in student.shape[1:]:
        raise ValueError(
            f"`student` must be [{axes}], none of them 0 but the batch, but got "
            f"{tuple(student.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def real_tokens(
    mask: Tensor | None, like: Tensor, *, batch: int, tokens: int
) -> Bool[Tensor, " batch tokens"]:
    """The mask, checked; all tokens where there is none.

    Args:
        mask: bool `[batch, tokens]`, True for a real token.
        like: a tensor on the device where it is needed.
        batch: how many rows there are.
        tokens: how many tokens each has.

    Raises:
        ValueError: it is not one bool per token.
    """
    if mask is None:
        return torch.ones(batch, tokens, dtype=torch.bool, device=like.device)
    if mask.dtype != torch.bool or mask.shape != (batch, tokens):
        raise ValueError(
            f"`mask` must be bool [batch, tokens] = {(batch, tokens)}, but got {mask.dtype} "
            f"{tuple(mask.shape)}: give `attention_mask.bool()`, True for a real token"
        )
    return mask


def mean_where(
    values: Float[Tensor, " batch ..."], counted: Bool[Tensor, " batch ..."]
) -> Float[Tensor, " batch"]:
    """The mean of each row over what counts in it, 0 where nothing does.

    `counted` may have axes of length 1, which then stand for all.
    """
    counted = counted.expand_as(values)
    total = torch.where(counted, values, 0.0).flatten(1).sum(dim=1)
    return total / counted.flatten(1).sum(dim=1).clamp(min=1)
