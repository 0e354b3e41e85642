"""Means and variances of features over many rows, in one pass."""

import torch
from torch import Tensor


class Moments:
    """Sums over rows and positions, for each feature."""

    def __init__(self) -> None:
        self.count = 0
        self._shape: tuple[int, ...] = (1,)
        self._sum = self._squares = self._about = torch.zeros(())

    def add(self, values: Tensor, axis: int, seen: Tensor | None) -> None:
        """Count one batch."""
        self._shape = tuple(values.shape[axis] if n == axis else 1 for n in range(values.ndim))
        flat = values.movedim(axis, -1)
        flat = (flat if seen is None else flat[seen]).reshape(-1, values.shape[axis]).double()
        if not self.count:
            # Near the mean, so that no digits are lost in the difference of large sums.
            self._about = flat.mean(dim=0) if len(flat) else torch.zeros(values.shape[axis])
        self.count += len(flat)
        self._sum = self._sum + (flat - self._about).sum(dim=0)
        self._squares = self._squares + (flat - self._about).square().sum(dim=0)

    def variance(self) -> Tensor:
        """One per feature, float64."""
        mean = self._sum / max(1, self.count)
        return (self._squares / max(1, self.count) - mean.square()).clamp(min=0)

    def shaped(self, values: Tensor) -> Tensor:
        """One number per feature, so that it spreads over `[rows, ...]`."""
        return values.reshape(self._shape)
