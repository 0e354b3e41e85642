"""Classification: one class per row."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from understudy.evaluate.fidelity import agreement_score, divergence_score
from understudy.evaluate.quality import Score, classification_scores
from understudy.tasks.logits import LogitsTask


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification(LogitsTask):
    """One class per row, answered as logits `[batch, classes]`."""

    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The task's name."""
        return "classification"

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
