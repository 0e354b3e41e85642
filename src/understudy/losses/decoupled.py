"""The true class apart from the others: two losses that weigh the two parts by themselves."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import check_not_negative
from understudy.losses.heads import cross_entropy, divergence, log_chances
from understudy.losses.labelled import paired_beside_labels, without_true_class
from understudy.losses.sparse import check_temperature


def dkd(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    labels: Int64[Tensor, " batch"],
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Decoupled divergence: true class against the rest, and the rest among itself, nats times T².

    `T² * (alpha * TCKD + beta * NCKD)`. TCKD is the divergence over the two outcomes "the true
    class" and "any other"; NCKD the divergence over the other classes alone. `soft_target_kl` is
    TCKD + (1 - p) * NCKD, where p is the teacher's probability of the true class: it lets go of
    the other classes where the teacher is sure. Here beta is the same for all rows. Exactly 0
    where the two agree; NCKD is exactly 0 for two classes.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        labels: the true class of each row; -1 where there is none, and the value is 0.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T.

    Returns:
        One value per row.

    Raises:
        ValueError: a weight is negative, T is not positive and finite, the shapes differ, there
            are fewer than two classes, or there is not one int64 label per row.

    Paper:
        Zhao et al. 2022, "Decoupled Knowledge Distillation", section 3.3, equation 7. Usual weight
        1 beside 1 on `hard_label`, over a warm-up of 20 epochs; T = 4, alpha 1, beta 8 (2 to 8; on
        ImageNet 0.5 with T = 1). It needs the teacher's `logits` and the labels.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[9.0, 4.0, 0.0]])
        >>> dkd(student, teacher, torch.tensor([0]), alpha=1.0, beta=8.0, temperature=4.0)
        tensor([19.1453])
    """
    _check_dkd(alpha, beta, temperature)
    own, goal, truth, known = paired_beside_labels(student, teacher, labels)
    log_own, log_goal = (_two_levels(x / temperature, truth) for x in (own, goal))
    target, other = (divergence(g, o) for g, o in zip(log_goal, log_own, strict=True))
    return torch.where(known, temperature**2 * (alpha * target + beta * other), 0.0)


def nkd(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    labels: Int64[Tensor, " batch"],
    *,
    gamma: float,
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Normalised loss: true class by the teacher's confidence, the others normalised, in nats.

    `-p[y] * log q[y] + gamma * T² * CE`, with the teacher's p and the student's q at T = 1, and CE
    the cross entropy of the two softened distributions over the other classes alone. Unlike `dkd`
    the true class is a plain cross entropy, weighed by the teacher's probability and not softened.
    These are cross entropies, as published: they are not 0 at equality, and with a teacher that
    doubts the true class the first part still pulls the student towards it.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        labels: the true class of each row; -1 where there is none, and the value is 0.
        gamma: weight of the other classes.
        temperature: T, of the other classes only.

    Returns:
        One value per row.

    Raises:
        ValueError: gamma is negative, T is not positive and finite, the shapes differ, there are
            fewer than two classes, or there is not one int64 label per row.

    Paper:
        Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
        Approach with Normalized Loss and Customized Soft Labels", section 3.1. Usual weight 1
        beside 1 on `hard_label`, gamma 1.5, T = 1. It needs the teacher's `logits` and the labels.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[9.0, 4.0, 0.0]])
        >>> nkd(student, teacher, torch.tensor([0]), gamma=1.5, temperature=1.0)
        tensor([2.1308])
    """
    _check_nkd(gamma, temperature)
    own, goal, truth, known = paired_beside_labels(student, teacher, labels)
    target = cross_entropy(
        F.log_softmax(goal, dim=-1).gather(1, truth), F.log_softmax(own, dim=-1).gather(1, truth)
    )
    log_own, log_goal = (
        F.log_softmax(without_true_class(x / temperature, truth), dim=-1) for x in (own, goal)
    )
    other = cross_entropy(log_goal, log_own)
    return torch.where(known, target + gamma * temperature**2 * other, 0.0)


class DKD(nn.Module):
    """`dkd` with fixed weights, at a temperature that a schedule may override, step by step."""

    def __init__(self, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        _check_dkd(alpha, beta, temperature)
        self.alpha = alpha
        self.beta = beta
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
        return dkd(
            student,
            teacher,
            labels,
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature if temperature is None else temperature,
        )

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"alpha={self.alpha}, beta={self.beta}, temperature={self.temperature}"


class NKD(nn.Module):
    """`nkd` with a fixed weight, at a temperature that a schedule may override, step by step."""

    def __init__(self, *, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__()
        _check_nkd(gamma, temperature)
        self.gamma = gamma
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
        return nkd(student, teacher, labels, gamma=self.gamma, temperature=chosen)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"gamma={self.gamma}, temperature={self.temperature}"


def _two_levels(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities: of the true class and of any other; and of each among the others."""
    others = without_true_class(logits, truth)
    # The log of a sum of probabilities is -inf where the softmax underflows; this margin is not.
    margin = logits.gather(1, truth) - others.logsumexp(dim=-1, keepdim=True)
    return log_chances(margin, head="sigmoid"), F.log_softmax(others, dim=-1)


def _check_dkd(alpha: float, beta: float, temperature: float) -> None:
    check_not_negative("alpha", alpha, usual="1")
    check_not_negative("beta", beta, usual="2 to 8")
    check_temperature(temperature)


def _check_nkd(gamma: float, temperature: float) -> None:
    check_not_negative("gamma", gamma, usual="1.5")
    check_temperature(temperature)
