"""Regression: one or more real numbers per row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from understudy.evaluate.fidelity import regression_agreement
from understudy.evaluate.quality import Score, regression_scores
from understudy.losses import hard_value


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """Numbers per row, answered in the targets' own units `[batch, targets]`.

    Losses are taken in units of the training labels' standard deviation, so that a weight or a
    learning rate means the same for prices and for shares.

    Attributes:
        targets: their names.
        mean: of the training labels, per target.
        std: of the training labels, per target.
    """

    targets: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The task's name."""
        return "regression"

    @property
    def output(self) -> str:
        """A model's answer as knowledge."""
        return "values"

    @property
    def width(self) -> int:
        """One number per target."""
        return len(self.targets)

    @property
    def scores(self) -> tuple[Score, ...]:
        """How answers are scored; the first is the primary one."""
        return regression_scores()

    def fidelity(self, teacher: NDArray[Any]) -> tuple[Score, ...]:
        """Likeness to a teacher's answers: R2 and RMSE with these for labels."""
        return regression_agreement(teacher)

    def hard_loss(
        self, output: Float[Tensor, " batch targets"], labels: Float[Tensor, " batch targets"]
    ) -> Float[Tensor, " batch"]:
        """Squared error per row of comparable values, 0 where a label is missing (NaN)."""
        return hard_value(output, labels)

    def comparable(
        self, values: Float[Tensor, " batch targets"]
    ) -> Float[Tensor, " batch targets"]:
        """Answers or labels in units of the training labels' standard deviation."""
        if not self.std:
            return values
        return (values - values.new_tensor(self.mean)) / values.new_tensor(self.std)

    def labelled(self, labels: Float[Tensor, " batch targets"]) -> Bool[Tensor, " batch"]:
        """Rows that have every target."""
        return ~labels.isnan().any(dim=1)

    def labelled_rows(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """As `labelled`, for arrays."""
        return np.asarray(~np.isnan(labels).any(axis=1))

    def readable(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """The values themselves."""
        return np.asarray(outputs, np.float64)
