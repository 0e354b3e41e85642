"""What tasks have in common whose answer is logits, one per class or token."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.losses import hard_label


class LogitsTask(ABC):
    """A class or a token is chosen: once per row, or once per position of a row.

    A label of -1 is none. Losses and scores are of the rows or positions that were asked, end to
    end, as `[asked, width]`.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def width(self) -> int:
        """How many logits an answer has."""

    @property
    def output(self) -> str:
        """A model's answer as knowledge."""
        return "logits"

    def hard_loss(
        self, output: Float[Tensor, " asked width"], labels: Int64[Tensor, " asked"]
    ) -> Float[Tensor, " asked"]:
        """Cross-entropy of each in nats, 0 where the label is -1."""
        return hard_label(output, labels)

    def comparable(self, values: Float[Tensor, " asked width"]) -> Float[Tensor, " asked width"]:
        """Logits as they are."""
        return values

    def labelled(self, labels: Int64[Tensor, " batch *length"]) -> Bool[Tensor, " batch *length"]:
        """Whose label is not -1."""
        return labels >= 0

    def labelled_rows(self, labels: Shaped[np.ndarray, " rows *length"]) -> NDArray[np.bool_]:
        """Which rows have a label, or a position with one, bool `[rows]`."""
        return np.asarray((labels >= 0).any(axis=tuple(range(1, labels.ndim))))

    def readable(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Logits `[..., width]` as probabilities, for people."""
        shifted = np.asarray(outputs, np.float64) - outputs.max(axis=-1, keepdims=True)
        powers = np.exp(shifted)
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
