"""What a row of logits means: one distribution over classes, or a probability for every output.

A sigmoid over z is a softmax over the two outcomes (z, 0). So a head of m sigmoids has the log
probabilities of 2 m outcomes, and every divergence that is a sum over outcomes serves both heads:
over pairs of outcomes it is the sum of the divergences of the single outputs.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.losses.constants import NoConstants
from understudy.losses.shapes import paired
from understudy.losses.sparse import check_temperature

Head = Literal["softmax", "sigmoid"]
"""`softmax`: one of the classes is true. `sigmoid`: any number of them are, each by itself."""


def binary_soft_target_kl(
    student: Float[Tensor, " batch outputs"],
    teacher: Float[Tensor, " batch outputs"],
    *,
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Divergence of each output's softened probability, summed over outputs, in nats times T².

    `T² * sum(KL(sigmoid(teacher / T) || sigmoid(student / T)))`, the soft targets of a binary head
    (one output) or of many labels. Like `soft_target_kl` it is the divergence and not the cross
    entropy, exactly 0 where the two agree. It is the sum and not the mean over outputs, so that
    two classes told by one logit have the value and gradient of a softmax over (0, z).

    Args:
        student: one logit per output; the gradient reaches only these.
        teacher: logits of the same outputs, in the same order.
        temperature: T; above 1 shows more of the teacher's doubt.

    Returns:
        One value per row.

    Raises:
        ValueError: T is not positive and finite, or the shapes differ.

    Paper:
        Hinton, Vinyals and Dean 2015, section 2, for each output. Yang et al. 2023,
        "Multi-Label Knowledge Distillation", section 3, use it per label at T = 1. Usual weight
        0.9 beside 0.1 on `hard_labels`; it needs the teacher's `logits`.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 3.0]])
        >>> binary_soft_target_kl(student, teacher, temperature=4.0)
        tensor([1.7751])
    """
    log_own, log_goal = paired_chances(student, teacher, temperature=temperature, head="sigmoid")
    return temperature**2 * divergence(log_goal, log_own)


def hard_labels(
    student: Float[Tensor, " batch outputs"], labels: Float[Tensor, " batch outputs"]
) -> Float[Tensor, " batch"]:
    """Cross entropy of every output with its own label, summed over outputs, in nats.

    A label is the probability that the output is true: 0, 1, or between. NaN means unlabelled;
    such an output is 0 and has no gradient, not even where its logit is not finite. Unlike
    `hard_value` a row may be labelled in part: outputs are separate questions.

    Args:
        student: one logit per output.
        labels: one probability per output, NaN where there is none.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        None: the ordinary binary cross entropy. Where a paper takes the mean over outputs, its
        weight is that many times smaller here. It needs nothing of the teacher; beside
        `binary_soft_target_kl` its usual weight is 0.1 to 0.5.

    Example:
        >>> hard_labels(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, torch.nan]]))
        tensor([0.6931])
    """
    own, goal = paired(student, labels, name="labels")
    known = ~goal.isnan()
    # The masks come before the loss: NaN times 0 is NaN in the backward pass too.
    values = F.binary_cross_entropy_with_logits(
        torch.where(known, own, 0.0), torch.where(known, goal, 0.0), reduction="none"
    )
    return torch.where(known, values, 0.0).sum(dim=-1)


class HardLabels(NoConstants):
    """`hard_labels`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch outputs"], labels: Float[Tensor, " batch outputs"]
    ) -> Float[Tensor, " batch"]:
        """One value per row, without the outputs whose label is NaN."""
        return hard_labels(student, labels)


def check_head(head: str) -> None:
    """Refuse a head that there is not.

    Raises:
        ValueError: it is neither `softmax` nor `sigmoid`.
    """
    if head not in ("softmax", "sigmoid"):
        raise ValueError(
            f"`head` must be softmax or sigmoid, but got {head=}: `softmax` where one class is "
            "true, `sigmoid` where each output is true or not by itself"
        )


def paired_chances(
    student: Tensor, teacher: Tensor, *, temperature: float, head: Head
) -> tuple[Float[Tensor, " batch outcomes"], Float[Tensor, " batch outcomes"]]:
    """Log probabilities of both, checked, softened, the teacher's detached.

    Raises:
        ValueError: T is not positive and finite, there is no such head, the shapes differ, or a
            softmax has fewer than two classes (every divergence would be 0).
    """
    check_temperature(temperature)
    check_head(head)
    own, goal = paired(student, teacher, name="teacher", columns=2 if head == "softmax" else 1)
    return log_chances(own / temperature, head=head), log_chances(goal / temperature, head=head)


def log_chances(
    logits: Float[Tensor, " batch width"], *, head: Head
) -> Float[Tensor, " batch outcomes"]:
    """Log probability of each class, or of each output being true and then of being false."""
    if head == "softmax":
        return F.log_softmax(logits, dim=-1)
    return torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


def divergence(
    log_goal: Float[Tensor, " batch outcomes"], log_own: Float[Tensor, " batch outcomes"]
) -> Float[Tensor, " batch"]:
    """`KL(goal || own)`; outcomes without mass in the goal add nothing."""
    mass = log_goal.exp()
    # Without the mask, 0 * (-inf - log_own) is NaN where the goal rules an outcome out.
    return (mass * torch.where(mass > 0, log_goal - log_own, 0.0)).sum(dim=-1)


def cross_entropy(
    log_goal: Float[Tensor, " batch outcomes"], log_own: Float[Tensor, " batch outcomes"]
) -> Float[Tensor, " batch"]:
    """`divergence` plus the goal's entropy; outcomes without mass in the goal add nothing."""
    mass = log_goal.exp()
    return -(mass * torch.where(mass > 0, log_own, 0.0)).sum(dim=-1)
