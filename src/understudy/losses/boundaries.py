"""Losses on features before a ReLU, where the sign decides: what passes matters, the rest hardly.

Both take lists, one entry per layer from the first to the last, the student's through a 1x1
convolution and batch norm in the teacher's shape (the adapter `connect`). Each layer weighs half
of the next one, and the last 1. The functions give one value per row, in at least float32. The
classes below them only hold constants.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.spatial import check_positive, matched_layers

_FAR = 40.0


def activation_boundary(
    student: list[Float[Tensor, " batch ..."]],
    teacher: list[Float[Tensor, " batch ..."]],
    *,
    margin: float = 1.0,
    scale: float = 0.003,
) -> Float[Tensor, " batch"]:
    """Squared shortfall from the teacher's side of zero, summed over a layer, times `scale`.

    Where a neuron of the teacher is active (above 0) the student should be above the margin, and
    elsewhere below minus the margin. Each number costs the square of what it lacks, and nothing
    once it is there: the value is 0 for a student that is active exactly where the teacher is,
    with room to spare, and not for one that equals the teacher.

    Args:
        student: features before the ReLU, per layer, in the teacher's shapes; the gradient reaches
            only these.
        teacher: features before the ReLU, of as many layers; only their signs are read.
        margin: how far from zero is far enough, in features.
        scale: the constant that the authors multiply by: 3 / 1000 on CIFAR, 1 / 1000 on scenes.

    Returns:
        One value per row.

    Raises:
        ValueError: the lists differ in length, a pair differs in shape, or a constant is not
            positive.

    Paper:
        Heo et al. 2019, "Knowledge Transfer via Distillation of Activation Boundaries Formed by
        Hidden Neurons", AAAI, section 3. Usual weight 1, alone in a first
        phase that only starts the student; it needs layers of the teacher.

    Example:
        >>> teacher = [torch.tensor([[5.0, -5.0]])]
        >>> activation_boundary([torch.tensor([[0.5, -2.0]])], teacher, scale=1.0)
        tensor([0.2500])
    """
    check_positive("margin", margin, usual="1")
    check_positive("scale", scale, usual="0.003")
    layers = []
    for own, goal in matched_layers(student, teacher):
        lacking = (margin - torch.where(goal > 0, own, -own)).clamp(min=0)
        layers.append(lacking.square().flatten(1).sum(dim=1))
    return scale * _later_counts_more(layers)


def overhaul(
    student: list[Float[Tensor, " batch ..."]],
    teacher: list[Float[Tensor, " batch ..."]],
    *,
    margins: list[Float[Tensor, " _"]],
    scale: float = 0.001,
) -> Float[Tensor, " batch"]:
    """Squared difference from the teacher's features after a margin ReLU, summed, times `scale`.

    The teacher's negative numbers are cut off at its channel's margin (a ReLU would cut them off
    at 0 and lose how negative is usual). Where the teacher is not positive, a student below the
    target costs nothing: the ReLU that follows hides both alike.

    Args:
        student: features before the ReLU, per layer, in the teacher's shapes; the gradient reaches
            only these.
        teacher: features before the ReLU, of as many layers.
        margins: what is usual below zero, `[channels]` per layer; see `margin`.
        scale: the constant that the authors multiply by: 1 / 1000 on CIFAR, 1 / 10000 on
            ImageNet.

    Returns:
        One value per row.

    Raises:
        ValueError: the lists differ in length, a pair differs in shape, a margin is not one number
            per channel, or the scale is not positive.

    Paper:
        Heo et al. 2019, "A Comprehensive Overhaul of Feature Distillation", ICCV, section 3.
        Usual weight 1 beside 1 on `hard_label`; it needs layers of the
        teacher.

    Example:
        >>> student, teacher = [torch.tensor([[1.0, -9.0]])], [torch.tensor([[3.0, -5.0]])]
        >>> overhaul(student, teacher, margins=[torch.tensor([-1.0, -1.0])], scale=1.0)
        tensor([4.])
    """
    check_positive("scale", scale, usual="0.001")
    pairs = matched_layers(student, teacher)
    if len(margins) != len(pairs):
        raise ValueError(
            f"`len(margins) == len(student)` must hold, but got {len(margins)} margins and "
            f"{len(pairs)} layers: give one per layer"
        )
    layers = []
    for (own, goal), low in zip(pairs, margins, strict=True):
        if low.shape != own.shape[1:2]:
            raise ValueError(
                f"`margin.shape == (channels,)` must hold, but got margin {tuple(low.shape)} and "
                f"{own.shape[1]} channels: give one number per channel of the teacher's layer"
            )
        target = torch.maximum(goal, low.detach().to(goal.dtype)[:, None, None])
        counts = (own > target) | (target > 0)
        # The mask comes before the square: what does not count has no gradient, whatever it is.
        gap = torch.where(counts, own - target, 0.0)
        layers.append(gap.square().flatten(1).sum(dim=1))
    return scale * _later_counts_more(layers)


def margin(
    weight: Float[Tensor, " channels"], bias: Float[Tensor, " channels"], *, rare: float = 0.001
) -> Float[Tensor, " channels"]:
    """What a batch norm's output is on average where it is negative, per channel, in features.

    `E[x | x < 0]` for x normal with mean `bias` and deviation `|weight|`, which is how batch norm
    leaves a channel. It is computed from the logarithm of the share of negative numbers, so it is
    right for any share; the obvious quotient is 0 / 0 once the share is too small for a float.

    Args:
        weight: the batch norm's weight.
        bias: the batch norm's bias.
        rare: a channel with no larger share of negative numbers has -3 |weight| instead, as the
            authors have it. That is far below what such a channel ever is; 0 turns it off.

    Returns:
        One margin per channel, 0 or below.

    Raises:
        ValueError: the shapes differ, or the share is not 0 to 1.

    Example:
        >>> margin(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 4.0]))
        tensor([-0.7979, -3.0000])
        >>> margin(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 4.0]), rare=0.0)
        tensor([-0.7979, -0.2256])
    """
    if weight.shape != bias.shape or not 0 <= rare < 1:
        raise ValueError(
            f"`weight.shape == bias.shape` and `0 <= rare < 1` must hold, but got weight "
            f"{tuple(weight.shape)}, bias {tuple(bias.shape)} and {rare=}: give both of one batch "
            "norm; usual is 0.001"
        )
    deviation, mean = weight.detach().double().abs(), bias.detach().double()
    flat = deviation == 0
    ratio = mean / torch.where(flat, 1.0, deviation)
    log_share = torch.special.log_ndtr(-ratio)
    density = -ratio.square() / 2 - math.log(2 * math.pi) / 2
    near = mean - deviation * (density - log_share).exp()
    # Far out the two terms cancel, and the first terms of the asymptotic series are exact enough.
    inverse = 1 / ratio.clamp(min=1)
    series = inverse - 2 * inverse**3 + 10 * inverse**5 - 74 * inverse**7
    expected = torch.where(ratio > _FAR, -deviation * series, near)
    chosen = torch.where(log_share.exp() > rare, expected, -3 * deviation) if rare else expected
    chosen = torch.where(flat, mean.clamp(max=0), chosen)
    return chosen.to(torch.promote_types(weight.dtype, torch.float32))


class ActivationBoundary(nn.Module):
    """`activation_boundary` with a fixed margin and scale."""

    def __init__(self, *, margin: float = 1.0, scale: float = 0.003) -> None:
        super().__init__()
        check_positive("margin", margin, usual="1")
        check_positive("scale", scale, usual="0.003")
        self.margin = margin
        self.scale = scale

    def forward(
        self,
        student: list[Float[Tensor, " batch ..."]],
        teacher: list[Float[Tensor, " batch ..."]],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return activation_boundary(student, teacher, margin=self.margin, scale=self.scale)

    def extra_repr(self) -> str:
        """Its constants, for printing."""
        return f"margin={self.margin}, scale={self.scale}"


class Overhaul(nn.Module):
    """`overhaul` with a fixed scale; the margins come from the teacher."""

    def __init__(self, *, scale: float = 0.001) -> None:
        super().__init__()
        check_positive("scale", scale, usual="0.001")
        self.scale = scale

    def forward(
        self,
        student: list[Float[Tensor, " batch ..."]],
        teacher: list[Float[Tensor, " batch ..."]],
        *,
        margins: list[Float[Tensor, " _"]],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return overhaul(student, teacher, margins=margins, scale=self.scale)

    def extra_repr(self) -> str:
        """The scale, for printing."""
        return f"scale={self.scale}"


def _later_counts_more(layers: list[Float[Tensor, " batch"]]) -> Float[Tensor, " batch"]:
    last = len(layers) - 1
    return torch.stack([value / 2 ** (last - i) for i, value in enumerate(layers)]).sum(dim=0)
