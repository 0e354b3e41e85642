"""Losses on values: a regression's own labels, and the numbers a teacher puts in their place.

Every function takes `[batch, targets]` and gives one value per row, in at least float32. Targets
count alike, so they should be scaled alike before they get here.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.losses.constants import NoConstants
from understudy.losses.shapes import paired


def hard_value(
    student: Float[Tensor, " batch targets"], labels: Float[Tensor, " batch targets"]
) -> Float[Tensor, " batch"]:
    """Squared error against the data set's own values, mean over targets, in squared units.

    NaN means unlabelled. A row with NaN in any of its targets is 0 and has no gradient, not even
    where the student's own values are not finite: a row counts whole or not at all, so that every
    value is a mean over the same targets.

    Args:
        student: values; the gradient reaches only these.
        labels: the true values, NaN where a row has none.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        None: the ordinary squared error. It needs nothing of the teacher; alone it is the
        control, beside `soft_value` its usual weight is 0.5.

    Example:
        >>> labels = torch.tensor([[1.0, 3.0], [torch.nan, torch.nan]])
        >>> hard_value(torch.tensor([[1.0, 1.0], [7.0, 7.0]]), labels)
        tensor([2., 0.])
    """
    own, goal = paired(student, labels, name="labels")
    known = ~goal.isnan().any(dim=-1, keepdim=True)
    # The mask comes before the square: NaN times 0 is NaN in the backward pass too.
    error = torch.where(known, own - goal, 0.0)
    return error.square().mean(dim=-1)


def soft_value(
    student: Float[Tensor, " batch targets"], teacher: Float[Tensor, " batch targets"]
) -> Float[Tensor, " batch"]:
    """Squared error against the teacher's values, mean over targets, in squared units.

    The same number as `hard_value` against a full label. A teacher always has an answer, so its
    NaN is a defect and comes through as NaN.

    Args:
        student: values; the gradient reaches only these.
        teacher: the teacher's values, in the same units.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        Bucila, Caruana and Niculescu-Mizil 2006, "Model Compression". Usual weight 0.5 beside
        0.5 on `hard_value`, 1 where rows have no label; it needs the teacher's `values`.

    Example:
        >>> soft_value(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 3.0]]))
        tensor([2.])
    """
    own, goal = paired(student, teacher, name="teacher")
    return (own - goal).square().mean(dim=-1)


class HardValue(NoConstants):
    """`hard_value`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch targets"], labels: Float[Tensor, " batch targets"]
    ) -> Float[Tensor, " batch"]:
        """One value per row, 0 where one of the row's labels is NaN."""
        return hard_value(student, labels)


class SoftValue(NoConstants):
    """`soft_value`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch targets"], teacher: Float[Tensor, " batch targets"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return soft_value(student, teacher)
