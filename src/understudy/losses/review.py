"""A loss on fused features: each layer of the student has looked back at the ones after it.

It takes lists, one entry per layer, and gives one value per row, in at least float32.
"""

from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import check_one_of
from understudy.losses.spatial import matched_layers, shrunk

_SIDES: Final = (4, 2, 1)
_CHOICES: Final = ("height", "both")


def review(
    student: list[Float[Tensor, " batch ..."]],
    teacher: list[Float[Tensor, " batch ..."]],
    *,
    sides: Literal["height", "both"] = "height",
) -> Float[Tensor, " batch"]:
    """Squared difference at several sizes of each layer, summed over layers, in squared features.

    Per layer: the mean of squares at full size, then of both sides averaged down to 4x4, 2x2 and
    one pixel, each counting half of the one before, and the sum divided by the sum of those
    weights. So the whole counts beside the detail, where `hint` has the detail alone. A size that
    is not smaller than the layer is left out.

    The published code looks at the height alone: an oblong map becomes a square one, so that a
    narrow one is stretched, and a size is left out by the height. With `sides="both"` each side is
    shrunk only as far as it is longer. Square maps, tokens and vectors have one value either way.

    Args:
        student: features, fused level by level, in the teacher's shapes; the gradient reaches
            only these.
        teacher: features of as many layers.
        sides: what the smaller sizes of an oblong map go by.

    Returns:
        One value per row.

    Raises:
        ValueError: the lists differ in length, a pair differs in shape, or `sides` is another word.

    Paper:
        Chen et al. 2021, "Distilling Knowledge via Knowledge Review", section 3. Usual
        weight 0.6 to 8 by the pair of networks, risen to over 20 epochs, beside 1 on
        `hard_label`; it needs layers of the teacher.

    Example:
        >>> teacher = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
        >>> review([torch.zeros(1, 1, 2, 2)], [teacher])
        tensor([0.6667])
    """
    check_one_of("sides", sides, _CHOICES)
    levels = [_level(own - goal, sides) for own, goal in matched_layers(student, teacher)]
    return torch.stack(levels).sum(dim=0)


class Review(nn.Module):
    """`review` with a fixed rule for oblong maps."""

    def __init__(self, *, sides: Literal["height", "both"] = "height") -> None:
        super().__init__()
        check_one_of("sides", sides, _CHOICES)
        self.sides: Literal["height", "both"] = sides

    def forward(
        self,
        student: list[Float[Tensor, " batch ..."]],
        teacher: list[Float[Tensor, " batch ..."]],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return review(student, teacher, sides=self.sides)

    def extra_repr(self) -> str:
        """Its rule, for printing."""
        return f"sides={self.sides!r}"


def _level(
    gap: Float[Tensor, " batch channels height width"], sides: Literal["height", "both"]
) -> Float[Tensor, " batch"]:
    # Averages of a difference are differences of averages: one map is shrunk instead of two.
    total = gap.square().mean(dim=(1, 2, 3))
    weight, weights = 1.0, 1.0
    height, width = gap.shape[2:]
    for side in _SIDES:
        both = (min(side, height), min(side, width))
        if side >= height if sides == "height" else both == (height, width):
            continue
        size = both if sides == "both" else (side, side)
        weight /= 2
        weights += weight
        total = total + weight * shrunk(gap, size, torch.mean).square().mean(dim=(1, 2, 3))
    return total / weights
