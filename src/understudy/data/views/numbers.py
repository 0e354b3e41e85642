"""Random integers that are a function of (seed, id, view, stream), and what is made of them.

SplitMix64's finalizer (Steele, Lea, Flood 2014, fig. 14) over these four, as a counter-based hash:
no generator with a state, so nothing depends on what was drawn before. NumPy, because on a batch
of a few dozen rows the calls cost more than the arithmetic, and its calls are the cheaper ones.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

STREAMS = 64  # per operation, so that one more draw in it moves no other's
_AHEAD = 8  # made for all operations in one go; the rare further ones one by one
_MASK = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def _keys(
    ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"], seed: int
) -> NDArray[np.uint64]:
    x = _mix(ids.numpy().astype(np.uint64) * _GOLDEN + np.uint64(seed & _MASK))
    return x + views.numpy().astype(np.uint64) * _GOLDEN


def _values(keys: NDArray[np.uint64], streams: NDArray[np.uint64]) -> NDArray[np.int64]:
    """`[streams, batch]`, 63 bits each."""
    x = _mix(_mix(keys + streams[:, None]) + _GOLDEN) >> np.uint64(1)
    return x.view(np.int64)


def draw(
    ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"], *, seed: int, stream: int
) -> Int64[Tensor, " batch"]:
    """One non-negative 63-bit random integer per row, a pure function of its arguments."""
    streams = np.array([stream & _MASK], np.uint64)
    return torch.from_numpy(_values(_keys(ids, views, seed), streams)[0])


class Draws:
    """The random integers of one batch, by operation of a chain and number of the draw."""

    def __init__(
        self,
        ids: Int64[Tensor, " batch"],
        views: Int64[Tensor, " batch"],
        *,
        seed: int,
        operations: range,
    ) -> None:
        """Make the first few of each operation.

        Args:
            ids: the rows' identities.
            views: which view of each.
            seed: of the chain.
            operations: places in the chain; each has streams of its own.
        """
        self._keys = _keys(ids, views, seed)
        starts = np.arange(operations.start, operations.stop) * STREAMS
        streams = starts[:, None] + np.arange(_AHEAD)
        self._made = _values(self._keys, streams.reshape(-1).astype(np.uint64))
        self._first = operations.start

    def of(self, operation: int) -> Callable[[], Int64[Tensor, " batch"]]:
        """What gives this operation one fresh integer per row at every call, up to 64 times."""
        # No function defined here: its annotations would be evaluated for every batch.
        return partial(self._following, operation, count())

    def _following(self, operation: int, numbers: Iterator[int]) -> Int64[Tensor, " batch"]:
        number = next(numbers)
        if number < _AHEAD:
            return torch.from_numpy(self._made[(operation - self._first) * _AHEAD + number])
        if number >= STREAMS:
            raise ValueError(
                f"an operation may draw {STREAMS} integers per row, but number {operation} "
                "asks for more: hash further ones out of those"
            )
        stream = np.array([operation * STREAMS + number], np.uint64)
        return torch.from_numpy(_values(self._keys, stream)[0])


def hashed(integers: Int64[Tensor, " batch"], count: int) -> Int64[np.ndarray, " batch count"]:
    """Further non-negative 63-bit integers out of one draw per row, `count` of each."""
    keys = integers.numpy().astype(np.uint64)[:, None]
    places = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(keys + places) >> np.uint64(1)).view(np.int64)


def uniform(integers: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """Draws as numbers between 0 and 1, both left out, in steps of 2**-52."""
    return ((integers >> 11).double() + 0.5) * 2.0**-52


def between(
    integers: Int64[Tensor, " batch"], low: float | Tensor, high: float | Tensor
) -> Float64[Tensor, " batch"]:
    """Draws as numbers between two bounds, for all rows or for each."""
    return low + (high - low) * uniform(integers)
