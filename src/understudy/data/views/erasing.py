"""Random erasing (Zhong et al. 2020, AAAI, "Random Erasing Data Augmentation", alg. 1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from understudy.data.views.geometry import chosen
from understudy.data.views.numbers import between
from understudy.data.views.pixels import as_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Erase:
    """Fill one random box of an image `[batch, height, width, channels]` with zeros.

    The box covers a share of the image that is uniform between `smallest` and `largest`. Its
    height is to its width as a number between `aspect` and 1 / `aspect`, uniform on a logarithmic
    scale, so that upright and flat boxes are as frequent. Where the paper draws again because a
    box is too long for the image, the aspects are narrowed to those that fit: the number of
    draws is fixed, which a replayable view needs. It lies anywhere inside the image.

    Attributes:
        share: how often an image is erased, above 0 and up to 1.
        smallest: least area of the box, as a share of the image.
        largest: greatest area of the box.
        aspect: height to width of the flattest box, above 0 and up to 1.
    """

    share: float = 0.5
    smallest: float = 0.02
    largest: float = 0.4
    aspect: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"`0 < share <= 1` must hold, but got {self.share}")
        if not 0 < self.smallest <= self.largest <= 1:
            raise ValueError(
                "`0 < smallest <= largest <= 1` must hold (shares of the image), but got "
                f"smallest {self.smallest} and largest {self.largest}"
            )
        if not 0 < self.aspect <= 1:
            raise ValueError(
                f"`0 < aspect <= 1` must hold (boxes up to 1 / aspect too), but got {self.aspect}"
            )

    def __call__(
        self,
        rows: Shaped[Tensor, " batch height width channels"],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> Shaped[Tensor, " batch height width channels"]:
        """Some images with a black box."""
        _, height, width, _ = rows.shape
        meant = chosen(draws(), self.share)
        area = between(draws(), self.smallest, self.largest) * height * width
        # What fits comes before what is asked for: an image may be longer than any such box.
        flattest, tallest = area / width**2, height**2 / area
        low, high = (
            torch.full_like(area, bound).clamp(flattest, tallest)
            for bound in (self.aspect, 1 / self.aspect)
        )
        aspect = torch.exp(between(draws(), low.log(), high.log()))
        tall = (area * aspect).sqrt().round().long().clamp(1, height)
        wide = (area / aspect).sqrt().round().long().clamp(1, width)
        top, left = draws() % (height - tall + 1), draws() % (width - wide + 1)
        box = torch.stack([top, top + tall, left, left + wide], dim=1)[meant]
        found = rows.clone(memory_format=torch.contiguous_format)
        pixels = as_bytes(found)
        # A box at a time: a mask of all pixels takes several times as long.
        for row, (y, bottom, x, right) in zip(meant.tolist(), box.tolist(), strict=True):
            pixels[row, y:bottom, x:right] = 0
        return found
