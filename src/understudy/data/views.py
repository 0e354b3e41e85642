"""Views: the augmented forms of a row, each a function of (seed, example id, view number).

Random numbers come from a counter-based hash of these three, not from a generator with a state:
the same view is the same picture in every run, order, worker and process, so it can be replayed.
All operations work on a whole batch of raw rows at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

# SplitMix64's constants (Steele, Lea, Flood 2014, fig. 14), as signed 64-bit integers.
_GOLDEN = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def draw(
    ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"], *, seed: int, stream: int
) -> Int64[Tensor, " batch"]:
    """One non-negative 63-bit random integer per row, a pure function of its arguments."""
    x = _mix(ids * _GOLDEN + seed)
    x = _mix(x + views * _GOLDEN + stream)
    return _shift(_mix(x + _GOLDEN), 1)


@runtime_checkable
class View(Protocol):
    """One random operation. `Views` calls it with a fresh stream of random integers."""

    def __call__(
        self, rows: Shaped[Tensor, " batch ..."], draws: Callable[[], Int64[Tensor, " batch"]]
    ) -> Shaped[Tensor, " batch ..."]:
        """The rows in their new form, the same shape and type."""


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
        padded = torch.nn.functional.pad(rows, (0, 0, p, p, p, p))
        top, left = draws() % (2 * p + 1), draws() % (2 * p + 1)
        y = top[:, None] + torch.arange(height)
        x = left[:, None] + torch.arange(width)
        return padded[torch.arange(batch)[:, None, None], y[:, :, None], x[:, None, :]]


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
        mirror = draws() <= int(self.share * 2**63) - 1  # 2**63 itself is no int64
        return torch.where(mirror[:, None, None, None], rows.flip(2), rows)


CATALOGUE: dict[str, Callable[..., View]] = {"crop": Crop, "flip": Flip}


class Views:
    """A chain of random operations, replayable from (seed, id, view)."""

    def __init__(self, operations: Sequence[View] = (), *, seed: int = 0) -> None:
        self.operations = tuple(operations)
        self.seed = seed

    @property
    def random(self) -> bool:
        """Whether another view is another picture."""
        return bool(self.operations)

    def __call__(
        self,
        rows: Shaped[Tensor, " batch ..."],
        ids: Int64[Tensor, " batch"],
        views: Int64[Tensor, " batch"],
    ) -> Shaped[Tensor, " batch ..."]:
        """The given view of each row."""
        for number, operation in enumerate(self.operations):
            rows = operation(rows, self._draws(ids, views, number))
        return rows

    def _draws(
        self, ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"], number: int
    ) -> Callable[[], Int64[Tensor, " batch"]]:
        # Each operation has 64 streams of its own, so that one more draw in it moves no other's.
        streams = iter(range(number * 64, number * 64 + 64))
        return lambda: draw(ids, views, seed=self.seed, stream=next(streams))
