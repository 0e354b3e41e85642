"""Token classification: one class per word of a text."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from understudy.evaluate.by_row import MACRO_F1
from understudy.evaluate.fidelity import agreement_score, divergence_score
from understudy.evaluate.quality import ACCURACY, CALIBRATION, NLL, Score
from understudy.tasks.logits import LogitsTask


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenClassification(LogitsTask):
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
