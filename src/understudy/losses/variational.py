"""A loss that lets the student be unsure: a normal distribution per channel of the teacher.

It gives one value per row, in at least float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.spatial import as_maps, check_positive, matched


def vid(
    student: Float[Tensor, " batch *features"],
    teacher: Float[Tensor, " batch *features"],
    *,
    log_scale: Float[Tensor, " channels"],
    eps: float = 1e-5,
) -> Float[Tensor, " batch"]:
    """Surprise at the teacher's features, mean over their numbers, in nats less a constant.

    The student predicts a mean for every number of the teacher's layer and learns a variance v for
    each of its channels: `((mean - teacher)² / v + log v) / 2`. So a channel that it cannot
    predict gets a large variance and stops to pull, where `hint` would go on for ever. At the
    best variance of each channel it is half the log of the mean squared error.

    The constant log(2π) / 2 of the normal density is left out, and so the value may be negative;
    it has no zero.

    Args:
        student: predicted means, in the teacher's shape.
        teacher: features.
        log_scale: per channel, v = softplus(log_scale) + eps. It learns: the gradient reaches it
            as well as the means.
        eps: the smallest variance, in squared features.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ, there is not one scale per channel, or eps is not positive.

    Paper:
        Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer", section
        2. Usual weight 1 for each pair of layers, beside 1 on `hard_label`;
        it needs layers of the teacher.

    Example:
        >>> student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 2.0]]]])
        >>> vid(student, teacher, log_scale=torch.tensor([0.5413]))
        tensor([1.0000])
    """
    check_positive("eps", eps, usual="1e-5")
    own, goal = (as_maps(part) for part in matched(student, teacher))
    if log_scale.shape != own.shape[1:2]:
        raise ValueError(
            f"`log_scale.shape == (channels,)` must hold, but got log_scale "
            f"{tuple(log_scale.shape)} and teacher {tuple(teacher.shape)}: give one number per "
            "channel"
        )
    variance = (F.softplus(log_scale.to(own.dtype)) + eps)[:, None, None]
    surprise = ((own - goal).square() / variance + torch.log(variance)) / 2
    return surprise.flatten(1).mean(dim=1)


class VID(nn.Module):
    """`vid` with a fixed smallest variance; the variances come from an adapter that learns."""

    def __init__(self, *, eps: float = 1e-5) -> None:
        super().__init__()
        check_positive("eps", eps, usual="1e-5")
        self.eps = eps

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *features"],
        *,
        log_scale: Float[Tensor, " channels"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return vid(student, teacher, log_scale=log_scale, eps=self.eps)

    def extra_repr(self) -> str:
        """The smallest variance, for printing."""
        return f"eps={self.eps}"
