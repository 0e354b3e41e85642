"""Colour jitter: brightness, contrast and saturation, in one pass over the pixels."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from understudy.data.views.numbers import between
from understudy.data.views.pixels import in_type

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: what red, green and blue weigh in grey


@dataclass(frozen=True, kw_only=True, slots=True)
class Colour:
    """Change brightness, contrast and saturation of an image `[batch, height, width, channels]`.

    Three factors per image, each uniform between 1 - x and 1 + x, applied in this order: the
    image times the first; its distance from its own mean grey times the second; the distance of
    each pixel from its own grey times the third (after Howard 2013, "Some Improvements on Deep
    Convolutional Neural Network Based Image Classification", who leaves the details out). Whole
    numbers are rounded to the nearest one and kept within their type at the end; floats are not
    cut off, as their range is not known. A grey image has no saturation; of 2 or of more than 3
    channels the grey is their mean.

    Attributes:
        brightness: how far the first factor may be from 1, from 0 to 1.
        contrast: the same of the second.
        saturation: the same of the third.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        strengths = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in strengths.items():
            if not 0 <= value <= 1:
                raise ValueError(f"`0 <= {name} <= 1` must hold, but got {value}")
        if not any(strengths.values()):
            raise ValueError(
                "`brightness`, `contrast` or `saturation` must be above 0, but all are 0: remove "
                "this view"
            )

    def __call__(
        self,
        rows: Shaped[Tensor, " batch height width channels"],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> Shaped[Tensor, " batch height width channels"]:
        """The images in other colours, in their own type."""
        light = between(draws(), 1 - self.brightness, 1 + self.brightness)
        contrast = between(draws(), 1 - self.contrast, 1 + self.contrast)
        colour = between(draws(), 1 - self.saturation, 1 + self.saturation)
        if rows.shape[3] == 1:
            colour = torch.ones_like(colour)
        planes = _planes(rows)
        grey = _grey(planes)
        # What the three steps come to: own * pixel + shade * grey + level, of one image each.
        own = light * contrast * colour
        shade = light * contrast * (1 - colour)
        level = light * (1 - contrast) * _means(grey)
        own, shade, level = (n.to(planes.dtype)[:, None] for n in (own, shade, level))
        planes.mul_(own).add_(grey.mul_(shade).add_(level))
        found = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for place, plane in zip(found.unbind(3), in_type(planes, rows.dtype), strict=True):
            place.copy_(plane.view_as(place))
        return found


def _planes(
    rows: Shaped[Tensor, " batch height width channels"],
) -> Float[Tensor, " channels batch pixels"]:
    """One channel after the other: arithmetic on every third number is slow."""
    batch, height, width, channels = rows.shape
    work = torch.float64 if rows.dtype == torch.float64 else torch.float32
    planes = torch.empty(channels, batch, height, width, dtype=work)
    for plane, channel in zip(planes, rows.unbind(3), strict=True):
        plane.copy_(channel)
    return planes.flatten(2)


def _grey(planes: Float[Tensor, " channels batch pixels"]) -> Float[Tensor, " batch pixels"]:
    count = len(planes)
    weights = LUMA if count == 3 else (1 / count,) * count
    # Not as a product of matrices: its last digit depends on how many rows there are.
    grey = planes[0] * weights[0]
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        grey += plane * weight
    return grey


def _means(grey: Float[Tensor, " batch pixels"]) -> Float64[Tensor, " batch"]:
    # NumPy sums each row alike, however many there are; torch may divide a single one among
    # threads, which moves the last digit.
    return torch.from_numpy(np.mean(grey.numpy(), axis=1, dtype=np.float64))
