"""Views that show two rows at once: mixup and CutMix. Who the other is belongs to the view.

The published loops mix a batch with itself, shuffled, by one number. Here each row has its own
partner and its own number, both hashed from (seed, id, view): a mixed row can be shown again
without its batch, so a teacher's answer to it can be stored.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from understudy.data.views.numbers import uniform
from understudy.data.views.pixels import as_bytes, in_type

STEPS = 1 << 16


def symmetric_beta(
    first: Int64[Tensor, " batch"], second: Int64[Tensor, " batch"], alpha: float
) -> Float64[Tensor, " batch"]:
    """Beta(alpha, alpha) numbers from two draws each, in steps of 2**-16.

    Bailey's (1994) polar method gives Student's t with 2 alpha degrees of freedom from two
    uniform numbers, without rejection; t / sqrt(2 alpha + t**2) is then a symmetric beta on
    -1 to 1 (Devroye 1996, "Random variate generation in one line of code"). The steps hide the
    last digits of logarithm and cosine, which differ between processors, and are few enough for
    products with 8-bit pixels to be exact in float32.
    """
    side = torch.cos(2 * math.pi * uniform(second))
    spread = torch.expm1(-torch.log(uniform(first)) / alpha)
    found = 0.5 + 0.5 * side.sign() / torch.sqrt(1 + 1 / (spread * side**2))
    return torch.round(found * STEPS) / STEPS


def _check(alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise ValueError(f"`alpha > 0` must hold and be finite, but got {alpha}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup:
    """The weighted mean of a row and its partner, weights from Beta(alpha, alpha).

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", s. 2. The weights are of the
    raw numbers; whole ones are rounded to the nearest. For images and for tables of numbers.

    Attributes:
        alpha: near 0 one of the two dominates; 1 makes all weights as likely.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check(self.alpha)

    def mix(
        self,
        rows: Shaped[Tensor, " batch ..."],
        partners: Shaped[Tensor, " batch ..."],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> tuple[Shaped[Tensor, " batch ..."], Float32[Tensor, " batch"]]:
        """The mixed rows, and how much of each is its own."""
        shares = symmetric_beta(draws(), draws(), self.alpha)
        wide = rows.dtype == torch.float64 or rows.dtype in (torch.int32, torch.int64)
        work = torch.float64 if wide else torch.float32
        own = shares.to(work)[:, None]
        # One product after the other: fused ones round differently at the end of a batch.
        mixed = rows.to(work, copy=True).flatten(1).mul_(own)
        mixed += partners.to(work, copy=True).flatten(1).mul_(1 - own)
        return in_type(mixed.view(rows.shape), rows.dtype), shares.float()


@dataclass(frozen=True, kw_only=True, slots=True)
class CutMix:
    """An image with a box of its partner's, at the same place.

    Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", s. 3: the box has the image's proportions and the area 1 - Beta(alpha, alpha)
    of it, around a uniform centre; what lies outside the image is cut off, and the row's share
    is what is left to it then. For images `[batch, height, width, channels]`.

    Attributes:
        alpha: near 0 the box is all or nothing; 1 makes all areas as likely.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check(self.alpha)

    def mix(
        self,
        rows: Shaped[Tensor, " batch height width channels"],
        partners: Shaped[Tensor, " batch height width channels"],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> tuple[Shaped[Tensor, " batch height width channels"], Float32[Tensor, " batch"]]:
        """The mixed images, and the share of each one's own pixels, exactly."""
        _, height, width, _ = rows.shape
        side = torch.sqrt(1 - symmetric_beta(draws(), draws(), self.alpha))
        tall, wide = (side * height).long(), (side * width).long()
        top, left = draws() % height - tall // 2, draws() % width - wide // 2
        bottom, right = (top + tall).clamp(max=height), (left + wide).clamp(max=width)
        top, left = top.clamp(min=0), left.clamp(min=0)
        own = height * width - (bottom - top) * (right - left)
        mixed = rows.clone(memory_format=torch.contiguous_format)
        pixels, others = as_bytes(mixed), as_bytes(partners.contiguous())
        # A box at a time: a mask of all pixels takes several times as long.
        boxes = torch.stack([top, bottom, left, right], dim=1).tolist()
        for row, (y, below, x, after) in enumerate(boxes):
            pixels[row, y:below, x:after] = others[row, y:below, x:after]
        return mixed, (own.double() / (height * width)).float()
