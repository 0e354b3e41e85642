"""Soft targets weighed row by row: less of the teacher where the student is ahead of it."""

from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.heads import cross_entropy
from understudy.losses.labelled import paired_beside_labels
from understudy.losses.sparse import check_temperature

SURE: Final = 1e-7
"""Added to the teacher's cross entropy, so that a teacher that is certain can be divided by."""


def wsld(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    labels: Int64[Tensor, " batch"],
    *,
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Weighted soft labels: the softened cross entropy times a weight per row, in nats times T².

    `T² * w * CE`, where CE is the cross entropy of the student with the teacher's distribution,
    both softened, and w = 1 - exp(-h_student / h_teacher) compares their cross entropies h with
    the true class at T = 1. A row that the student already knows better than the teacher counts
    little; one where it lags far behind counts fully. The weight has no gradient. It is a cross
    entropy, as published: not 0 at equality, where the weight is 1 - 1/e.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        labels: the true class of each row; -1 where there is none, and the value is 0.
        temperature: T.

    Returns:
        One value per row.

    Raises:
        ValueError: T is not positive and finite, the shapes differ, there are fewer than two
            classes, or there is not one int64 label per row.

    Paper:
        Zhou et al. 2021, "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
        Tradeoff Perspective", section 4. Usual weight 2.5 beside 1 on `hard_label`, T = 2. It
        needs the teacher's `logits` and the labels.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.zeros(2, 2)
        >>> wsld(student, teacher, torch.tensor([0, 0]), temperature=1.0)
        tensor([0.4382, 0.0008])
    """
    check_temperature(temperature)
    own, goal, truth, known = paired_beside_labels(student, teacher, labels)
    behind = _hard(own.detach(), truth) / (_hard(goal, truth) + SURE)
    weight = -torch.expm1(-behind)
    soft = cross_entropy(
        F.log_softmax(goal / temperature, dim=-1), F.log_softmax(own / temperature, dim=-1)
    )
    return torch.where(known, temperature**2 * weight * soft, 0.0)


class WSLD(nn.Module):
    """`wsld` at a temperature that a schedule may override, step by step."""

    def __init__(self, *, temperature: float = 2.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
        *,
        labels: Int64[Tensor, " batch"],
        temperature: float | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row, 0 where the label is -1, at `temperature` where one is given."""
        chosen = self.temperature if temperature is None else temperature
        return wsld(student, teacher, labels, temperature=chosen)

    def extra_repr(self) -> str:
        """The temperature, for printing."""
        return f"temperature={self.temperature}"


def _hard(logits: Tensor, truth: Tensor) -> Tensor:
    # Not F.cross_entropy, which leaves out a label of -100 without a word.
    return -F.log_softmax(logits, dim=-1).gather(1, truth).squeeze(1)
