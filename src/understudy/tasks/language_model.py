"""Language modelling: after every token, what comes next."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from understudy.evaluate.language import (
    NATS_PER_TOKEN,
    Surprise,
    bits_per_byte_score,
    same_token_score,
    surprise_of,
)
from understudy.evaluate.quality import Score
from understudy.tasks.logits import LogitsTask


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModel(LogitsTask):
    """The next token at every position, answered as logits `[batch, length, vocabulary]`.

    Losses and scores are of positions. Scores read two numbers of each, nats and the likeliest
    token, and of what came the token and its bytes: see `evaluate.language`.

    Attributes:
        vocabulary: how many tokens there are.
        end: the token that ends a text.
        special: tokens that stand for no text, `end` among them.
    """

    vocabulary: int
    end: int
    special: tuple[int, ...]

    @property
    def name(self) -> str:
        """The task's name."""
        return "language_model"

    @property
    def each_token(self) -> bool:
        """A model is asked once per token."""
        return True

    @property
    def width(self) -> int:
        """One logit per token of the vocabulary."""
        return self.vocabulary

    @property
    def scores(self) -> tuple[Score, ...]:
        """What a text costs; the first is the primary one. Lower is better."""
        return (bits_per_byte_score(self.special), NATS_PER_TOKEN)

    def fidelity(self, teacher: NDArray[Any]) -> tuple[Score, ...]:
        """How often the same token is the likeliest."""
        return (same_token_score(teacher),)

    def condensed(
        self, answers: Float[Tensor, " positions vocabulary"], labels: Int64[Tensor, " positions"]
    ) -> Float[Tensor, " positions 2"]:
        """Nats of what came, and the likeliest token."""
        return told(surprise_of(answers, labels))


def told(found: Surprise) -> Float[Tensor, " positions 2"]:
    """What scores read of a model: nats of what came, and the likeliest token."""
    return torch.stack([found.nats, found.best.double()], dim=1)
