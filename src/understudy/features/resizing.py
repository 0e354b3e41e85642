"""Maps of another size, and tokens laid out as maps and back.

Sizes change by a matrix product per axis. It gives what average pooling and interpolation give, and
has a deterministic gradient on CUDA, where theirs has none.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.features.form import Shape, kind_of

How = Literal["linear", "nearest"]


class Grid(NamedTuple):
    """How tokens lie in an image."""

    height: int
    width: int
    class_token: bool


def resize(
    maps: Float[Tensor, " batch channels height width"], size: tuple[int, int], how: How = "linear"
) -> Float[Tensor, " batch channels new_height new_width"]:
    """Maps `[batch, channels, height, width]` of another size, each axis by itself.

    With "linear" a shrinking axis is averaged, as `adaptive_avg_pool2d` does, and a growing one
    interpolated, as `interpolate(mode="bilinear")` does; "nearest" takes the nearest pixel.
    """
    height, width = size
    if height != maps.shape[2]:
        maps = torch.einsum("ph,bchw->bcpw", _weights(maps, maps.shape[2], height, how), maps)
    if width != maps.shape[3]:
        maps = torch.einsum("qw,bchw->bchq", _weights(maps, maps.shape[3], width, how), maps)
    return maps


class Resize(nn.Module):
    """`resize` to a fixed size, for use between layers."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """The maps at that size."""
        return resize(maps, self.size)

    def extra_repr(self) -> str:
        """Its constant, for printing."""
        return f"size={self.size}"


def smaller(one: Shape, other: Shape) -> tuple[int, int]:
    """The smaller height and the smaller width of two maps."""
    return min(one[-2], other[-2]), min(one[-1], other[-1])


def both_at(size: tuple[int, int], one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps, both averaged down to one size."""
    return resize(one, size), resize(other, size)


def grid_of(tokens: int, other: Shape | None = None) -> Grid | None:
    """How many tokens make a grid, and whether the first is a class token; None where unknown.

    A map on the other side says the grid, whatever its sides. Without one it is taken as square.
    """
    if other is not None and kind_of(other) == "map":
        _, height, width = other
        if tokens - height * width in (0, 1):
            return Grid(height, width, class_token=tokens == height * width + 1)
    for extra in (0, 1):
        side = math.isqrt(max(0, tokens - extra))
        if side and side * side == tokens - extra:
            return Grid(side, side, class_token=bool(extra))
    return None


def need_grid(tokens: int, student: Shape, teacher: Shape) -> Grid:
    """The grid of so many tokens, where a pair of layers cannot do without.

    Raises:
        ModelError: naming both shapes.
    """
    other = teacher if kind_of(student) == "tokens" else student
    grid = grid_of(tokens, other)
    if grid is None:
        raise ModelError(
            f"{tokens} tokens make no square grid, with or without a class token, so a student of "
            f"{list(student)} cannot be brought to a teacher of {list(teacher)} by interpolation: "
            "use the adapter `match` with `projector: attention`, or name layers with as many "
            "tokens"
        )
    return grid


def to_tokens(
    maps: Float[Tensor, " batch channels height width"],
) -> Float[Tensor, " batch places channels"]:
    """Maps as one token per pixel, row by row."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(
    tokens: Float[Tensor, " batch tokens width"], grid: Grid
) -> Float[Tensor, " batch width height image_width"]:
    """Tokens laid out as a map; a class token has no place in it and is left out."""
    places = tokens[:, 1:] if grid.class_token else tokens
    return places.transpose(1, 2).reshape(len(tokens), tokens.shape[2], grid.height, grid.width)


def _weights(like: Tensor, before: int, after: int, how: How) -> Float[Tensor, " after before"]:
    # Thirds in float32 would show in a float64 result.
    exact = torch.promote_types(like.dtype, torch.float32)
    old = torch.arange(before, device=like.device)
    new = torch.arange(after, device=like.device)[:, None]
    if how == "nearest":
        weights = (old == new * before // after).to(exact)
    elif after < before:
        first, last = new * before // after, ((new + 1) * before + after - 1) // after
        weights = ((old >= first) & (old < last)).to(exact) / (last - first)
    else:
        place = ((new.to(exact) + 0.5) * before / after - 0.5).clamp(0, before - 1)
        weights = (1 - (old - place).abs()).clamp(min=0)
    return weights.to(like.dtype)
