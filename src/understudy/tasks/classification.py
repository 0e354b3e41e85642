"""Classification: one class per row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from understudy.evaluate.fidelity import agreement_score, divergence_score
from understudy.evaluate.quality import Score, classification_scores
from understudy.losses import hard_label


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """One class per row, answered as logits `[batch, classes]`."""

    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The task's name."""
        return "classification"

    @property
    def output(self) -> str:
        """A model's answer as knowledge."""
        return "logits"

    @property
    def width(self) -> int:
        """One logit per class."""
        return len(self.classes)

    @property
    def scores(self) -> tuple[Score, ...]:
        """How answers are scored; the first is the primary one."""
        return classification_scores(self.width)

    def fidelity(self, teacher: NDArray[Any]) -> tuple[Score, ...]:
        """Likeness to a teacher's answers: how often the same class, and how far apart."""
        return (agreement_score(teacher), divergence_score(teacher))

    def hard_loss(
        self, output: Float[Tensor, " batch classes"], labels: Int64[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Cross-entropy per row in nats, 0 where the label is -1."""
        return hard_label(output, labels)

    def comparable(
        self, values: Float[Tensor, " batch classes"]
    ) -> Float[Tensor, " batch classes"]:
        """Logits as they are."""
        return values

    def labelled(self, labels: Int64[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Rows whose label is not -1."""
        return labels >= 0

    def labelled_rows(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """As `labelled`, for arrays."""
        return np.asarray(labels >= 0)

    def readable(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Logits `[..., classes]` as probabilities, for people."""
        shifted = np.asarray(outputs, np.float64) - outputs.max(axis=-1, keepdims=True)
        powers = np.exp(shifted)
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
