"""Means and standard deviations of many rows, in float64, without a float copy of them all."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_NUMBERS = 1 << 20
# A spread below what float32 resolves is no spread.
_CONSTANT = 1e-7


def moments(
    inputs: NDArray[Any], positions: NDArray[np.int64], *, scale: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of `inputs / scale` over all axes but the last, `[channels]`.

    A channel that never changes has the standard deviation 1. At least one position is needed.
    """
    step = max(1, _CHUNK_NUMBERS // math.prod(inputs.shape[1:]))
    count, mean = 0, np.zeros(inputs.shape[-1])
    spread = np.zeros_like(mean)
    for start in range(0, len(positions), step):
        piece = inputs[positions[start : start + step]].astype(np.float64)
        piece = piece.reshape(-1, piece.shape[-1])
        # Chan, Golub and LeVeque 1979, eq. 2.1: two sets' squared deviations joined exactly.
        here, size = piece.mean(axis=0), len(piece)
        apart = here - mean
        spread += ((piece - here) ** 2).sum(axis=0) + apart**2 * count * size / (count + size)
        mean += apart * size / (count + size)
        count += size
    std = np.sqrt(spread / count)
    return mean / scale, np.where(std <= _CONSTANT * np.abs(mean), 1.0, std / scale)
