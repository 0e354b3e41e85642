"""Token classification: one class per word of a text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.evaluate.by_row import MACRO_F1
from understudy.evaluate.fidelity import agreement_score, divergence_score
from understudy.evaluate.quality import ACCURACY, CALIBRATION, NLL, Score
from understudy.losses import hard_label


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenClassification:
    """One class per word, answered as logits `[batch, length, classes]` at its first token.

    Scores and losses are of positions, one per word, as `[positions, classes]`.
    """

    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The task's name."""
        return "token_classification"

    @property
    def each_token(self) -> bool:
        """A model is asked once per token."""
        return True

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
        """How answers at words are scored; the first is the primary one: every class counts."""
        return (MACRO_F1, ACCURACY, NLL, CALIBRATION)

    def fidelity(self, teacher: NDArray[Any]) -> tuple[Score, ...]:
        """Likeness to a teacher's answers: how often the same class, and how far apart."""
        return (agreement_score(teacher), divergence_score(teacher))

    def condensed(
        self, answers: Float[Tensor, " positions classes"], labels: Int64[Tensor, " positions"]
    ) -> Float[Tensor, " positions classes"]:
        """The logits themselves: classes are few."""
        del labels
        return answers

    def hard_loss(
        self, output: Float[Tensor, " positions classes"], labels: Int64[Tensor, " positions"]
    ) -> Float[Tensor, " positions"]:
        """Cross-entropy per word in nats, 0 where the label is -1."""
        return hard_label(output, labels)

    def comparable(
        self, values: Float[Tensor, " positions classes"]
    ) -> Float[Tensor, " positions classes"]:
        """Logits as they are."""
        return values

    def labelled(self, labels: Int64[Tensor, " batch *length"]) -> Bool[Tensor, " batch *length"]:
        """Words whose label is not -1."""
        return labels >= 0

    def labelled_rows(self, labels: Shaped[np.ndarray, " rows *longest"]) -> NDArray[np.bool_]:
        """Which texts have a word with a label, bool `[rows]`; of single positions, which do."""
        return np.asarray((labels >= 0).any(axis=tuple(range(1, labels.ndim))))

    def readable(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Logits `[..., classes]` as probabilities, for people."""
        shifted = np.asarray(outputs, np.float64) - outputs.max(axis=-1, keepdims=True)
        powers = np.exp(shifted)
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
