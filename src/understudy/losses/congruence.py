"""Correlation congruence: the student's correlations within a batch are the teacher's."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.rows import related, unit

Form = Literal["kernel", "neighbours"]


def correlation_congruence(
    student: Float[Tensor, " batch width"],
    teacher: Float[Tensor, " batch depth"],
    *,
    form: Form = "kernel",
    gamma: float = 0.4,
    order: int = 2,
) -> Float[Tensor, " batch"]:
    """Squared difference of the correlations of all pairs, as a Gaussian kernel sees them.

    `kernel` is the paper's: rows are brought to length 1, and exp(-gamma * |x - y|²) is expanded
    in their product, exp(-2 gamma) * sum over p of (2 gamma)^p / p! * (x.y)^p up to `order`. A
    row's correlation with itself is the same on both sides by definition.

    `neighbours` is what the author sent to those who asked, as published in RepDistiller: the sum
    over columns of |student - teacher| of a row times that of the next row. It has no correlation
    matrix, needs equal widths, is not free of scale and depends on the order of the batch.

    Args:
        student: embedded rows; they have a gradient.
        teacher: embedded rows of the same examples. THEY ARE NOT DETACHED: an adapter learns both
            embeddings. So both may shrink to nothing, and another term must hold the student.
        form: which of the two.
        gamma: how fast correlation falls with distance; `kernel` only.
        order: the last power of the expansion; `kernel` only.

    Returns:
        One value per row: `kernel`, the mean over its pairs; `neighbours`, half of each of its
        two products, times what makes the mean over rows the mean over products. 0 for a batch of
        one row.

    Raises:
        ValueError: a constant is out of range, the two do not have the same rows, or `neighbours`
            gets different widths.

    Paper:
        Peng et al. 2019, "Correlation Congruence for Knowledge Distillation", sections 3.3 and
        3.4. Usual weight 100 for `kernel`, 0.02 for `neighbours`, beside `soft_target`; it needs
        features of the teacher.

    Example:
        >>> alike, different = torch.ones(2, 2), torch.eye(2)
        >>> correlation_congruence(alike, different)
        tensor([0.1266, 0.1266])
    """
    _check(form, gamma, order)
    own, goal = related(student, teacher, both=True)
    if form == "neighbours":
        return _neighbours(own, goal)
    gap = _kernel(own, gamma, order) - _kernel(goal, gamma, order)
    # A zero row has no correlation with itself, and rounding leaves a little of the others'.
    others = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
    return torch.where(others, gap, 0.0).square().mean(dim=1)


class CorrelationCongruence(nn.Module):
    """`correlation_congruence` in a fixed form."""

    def __init__(self, *, form: Form = "kernel", gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        _check(form, gamma, order)
        self.form: Form = form
        self.gamma = gamma
        self.order = order

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Float[Tensor, " batch depth"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return correlation_congruence(
            student, teacher, form=self.form, gamma=self.gamma, order=self.order
        )

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"form={self.form}, gamma={self.gamma}, order={self.order}"


def _kernel(
    rows: Float[Tensor, " batch width"], gamma: float, order: int
) -> Float[Tensor, " batch batch"]:
    directions = unit(rows)
    alike = directions @ directions.T
    total = torch.zeros_like(alike)
    # Horner's rule: 0 to a power of 0 and its gradient never come up.
    for power in range(order, -1, -1):
        factor = math.exp(-2 * gamma) * (2 * gamma) ** power / math.factorial(power)
        total = total * alike + factor
    return total


def _neighbours(
    own: Float[Tensor, " batch width"], goal: Float[Tensor, " batch depth"]
) -> Float[Tensor, " batch"]:
    if own.shape != goal.shape:
        raise ValueError(
            f"`student.shape == teacher.shape` must hold, but got student {tuple(own.shape)} and "
            f"teacher {tuple(goal.shape)}: form=neighbours compares column by column, so embed "
            "both in the same width"
        )
    gap = (own - goal).abs()
    products = (gap[:-1] * gap[1:]).sum(dim=1) / 2
    share = own.new_zeros(len(own))
    share[:-1] += products
    share[1:] += products
    return share * len(own) / max(1, len(own) - 1)


def _check(form: str, gamma: float, order: int) -> None:
    if form not in get_args(Form):
        raise ValueError(
            f"`form` must be one of {', '.join(get_args(Form))}, but got {form=}: the paper's is "
            "kernel"
        )
    if not (gamma > 0 and math.isfinite(gamma)):
        raise ValueError(f"`gamma > 0` must hold, but got {gamma=}: usual is 0.4")
    if not 1 <= order <= 10:
        raise ValueError(f"`1 <= order <= 10` must hold, but got {order=}: usual is 2")
