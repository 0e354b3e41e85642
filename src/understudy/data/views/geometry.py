"""Views that move an image about: crop and flip, on raw rows `[batch, height, width, channels]`.

Both work on bytes, whatever the type: a shifted image is a window into the padded one, so its
lines are copied whole instead of being gathered pixel by pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from understudy.data.views.pixels import as_bytes


def chosen(integers: Int64[Tensor, " batch"], share: float) -> Int64[Tensor, " some"]:
    """Which rows of a batch are meant where each is with probability `share`."""
    return (integers <= int(share * 2**63) - 1).nonzero().view(-1)  # 2**63 itself is no int64


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """Pad an image `[batch, height, width, channels]` with zeros and cut its size out again."""

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise ValueError(f"`padding` must be at least 1 pixel, but got {self.padding}")

    def __call__(
        self,
        rows: Shaped[Tensor, " batch height width channels"],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> Shaped[Tensor, " batch height width channels"]:
        """Each image shifted by up to `padding` pixels either way."""
        batch, height, width, _ = rows.shape
        p = self.padding
        places = 2 * p + 1
        top, left = draws() % places, draws() % places
        padded = as_bytes(torch.nn.functional.pad(rows, (0, 0, p, p, p, p)))
        image, line, pixel, byte = padded.strides
        windows = as_strided(
            padded,
            (batch, places, places, height, width * pixel),
            (image, line, pixel, line, byte),
            writeable=False,
        )
        cut = windows[np.arange(batch), top.numpy(), left.numpy()]
        return torch.from_numpy(cut).view(batch, height, width, pixel).view(rows.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """Mirror an image left to right with probability `share`."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"`0 < share <= 1` must hold, but got {self.share}")

    def __call__(
        self,
        rows: Shaped[Tensor, " batch height width channels"],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> Shaped[Tensor, " batch height width channels"]:
        """Some images mirrored."""
        mirrored = chosen(draws(), self.share)
        turned = rows.index_select(0, mirrored).flip(2).contiguous()
        found = rows.clone(memory_format=torch.contiguous_format)
        as_bytes(found)[mirrored.numpy()] = as_bytes(turned)
        return found
