"""Logits brought to mean 0 and deviation 1, row by row, before another loss compares them."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.logits import SoftTargetKL
from understudy.losses.shapes import paired

FLAT: Final = 1e-7
"""Added to the standard deviation, as published."""


def standardize(logits: Float[Tensor, " batch classes"]) -> Float[Tensor, " batch classes"]:
    """Each row minus its mean, over its standard deviation: how far above the rest a class is.

    `(x - mean) / (1e-7 + std)`, with the unbiased std (over classes - 1), in at least float32. A
    student then need not reach the teacher's size of logits, only its shape; the temperature that
    follows is the only one, for all rows. A row that is constant but for rounding gives zeros and
    has no gradient: the obvious quotient has one of 1e7 there.

    Args:
        logits: finite ones; not detached.

    Returns:
        As many rows and columns, of mean 0 and deviation 1.

    Raises:
        ValueError: it is not `[batch, classes]` with two classes or more.

    Paper:
        Sun et al. 2024, "Logit Standardization in Knowledge Distillation", section 4, algorithm 1.
        Before `soft_target` at T = 2 the usual weight is 9 beside 0.1 on `hard_label`; before
        other losses 9 times theirs.

    Example:
        >>> standardize(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
        tensor([[-1.0000,  0.0000,  1.0000],
                [ 0.0000,  0.0000,  0.0000]])
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            "`logits` must be [batch, classes] with `classes >= 2`, but got "
            f"{tuple(logits.shape)}: one column has no deviation"
        )
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    deviation = wide - wide.mean(dim=-1, keepdim=True)
    square = deviation.square().sum(dim=-1, keepdim=True)
    # A mean that is rounded leaves deviations behind in a constant row; they mean nothing.
    noise = (8 * torch.finfo(wide.dtype).eps) ** 2 * wide.square().sum(dim=-1, keepdim=True)
    constant = square <= noise.detach()
    # The root comes after the mask: its slope at 0 is infinite.
    std = (torch.where(constant, 1.0, square) / (wide.shape[1] - 1)).sqrt()
    return torch.where(constant, 0.0, deviation / (FLAT + std))


class Standardized(nn.Module):
    """Any loss on logits, after `standardize` on both sides.

    It reads no listed outcomes, whatever the loss inside does: the mean and deviation of a row
    need every logit.
    """

    def __init__(self, *, loss: nn.Module | None = None) -> None:
        """Wrap a loss.

        Args:
            loss: called with student and teacher, and with what else is given by name;
                `SoftTargetKL(temperature=2.0)` where None.
        """
        super().__init__()
        self.loss = SoftTargetKL(temperature=2.0) if loss is None else loss

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
        *,
        labels: Tensor | None = None,
        temperature: float | Tensor | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row; labels and temperature are passed on where they are given."""
        own, goal = paired(student, teacher, name="teacher", columns=2)
        given = {"labels": labels, "temperature": temperature}
        values: Tensor = self.loss(
            standardize(own),
            standardize(goal),
            **{name: value for name, value in given.items() if value is not None},
        )
        return values
