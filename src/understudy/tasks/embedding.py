"""Embedding: a vector per row, whose direction says what the row is like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.evaluate.quality import Score
from understudy.evaluate.similarity import COSINE, likeness_score


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """A vector per row, `[batch, dimension]`.

    There are no hard labels: nobody writes down vectors by hand. What a student learns, it learns
    from its teacher, and its control is the network it starts from, untrained: a cut one as it is
    after the cut.

    Attributes:
        dimension: how many numbers a vector has.
    """

    dimension: int

    @property
    def name(self) -> str:
        """The task's name."""
        return "embedding"

    @property
    def output(self) -> str:
        """A model's answer as knowledge."""
        return "embedding"

    @property
    def width(self) -> int:
        """One number per dimension."""
        return self.dimension

    @property
    def scores(self) -> tuple[Score, ...]:
        """How answers are scored, against reference vectors `[rows, dimension]` for labels.

        What the vectors are good for is asked with pairs: `evaluate.similarity`.
        """
        return (COSINE,)

    def fidelity(self, teacher: NDArray[Any]) -> tuple[Score, ...]:
        """Likeness to a teacher's vectors: the mean cosine with them."""
        return (likeness_score(teacher),)

    def hard_loss(
        self, output: Float[Tensor, " batch dimension"], labels: Shaped[Tensor, " batch *axes"]
    ) -> Float[Tensor, " batch"]:
        """0 in every row, whatever the answer: there is nothing to be wrong about."""
        del labels
        # Not zeros as such: whoever trains with it finds a graph, and no gradient in it.
        return torch.where(torch.zeros_like(output, dtype=torch.bool), output, 0.0).sum(dim=1)

    def comparable(
        self, values: Float[Tensor, " batch dimension"]
    ) -> Float[Tensor, " batch dimension"]:
        """Vectors as they are."""
        return values

    def labelled(self, labels: Shaped[Tensor, " batch *axes"]) -> Bool[Tensor, " batch"]:
        """No row has a hard label."""
        return torch.zeros(len(labels), dtype=torch.bool, device=labels.device)

    def labelled_rows(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """As `labelled`, for arrays."""
        return np.zeros(len(labels), np.bool_)

    def readable(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """The vectors themselves."""
        return np.asarray(outputs, np.float64)
