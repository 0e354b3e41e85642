"""Language modelling: after every token, what comes next."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
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
from understudy.losses import hard_label


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModel:
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
    def output(self) -> str:
        """A model's answer as knowledge."""
        return "logits"

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

    def hard_loss(
        self, output: Float[Tensor, " positions vocabulary"], labels: Int64[Tensor, " positions"]
    ) -> Float[Tensor, " positions"]:
        """Cross-entropy per position in nats, 0 where the label is -1."""
        return hard_label(output, labels)

    def comparable(
        self, values: Float[Tensor, " positions vocabulary"]
    ) -> Float[Tensor, " positions vocabulary"]:
        """Logits as they are."""
        return values

    def labelled(self, labels: Int64[Tensor, " batch *length"]) -> Bool[Tensor, " batch *length"]:
        """Positions that predict something."""
        return labels >= 0

    def labelled_rows(self, labels: Shaped[np.ndarray, " rows *length"]) -> NDArray[np.bool_]:
        """Which rows have a position that predicts something, bool `[rows]`."""
        return np.asarray((labels >= 0).reshape(len(labels), -1).any(axis=1))

    def readable(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Logits `[..., vocabulary]` as probabilities, for people."""
        shifted = np.asarray(outputs, np.float64) - outputs.max(axis=-1, keepdims=True)
        powers = np.exp(shifted)
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def told(found: Surprise) -> Float[Tensor, " positions 2"]:
    """What scores read of a model: nats of what came, and the likeliest token."""
    return torch.stack([found.nats, found.best.double()], dim=1)
