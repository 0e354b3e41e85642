"""From rows of token ids to what a network of texts takes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError
from understudy.folders import fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFacts:
    """What views, loaders and networks must know of a tokenizer.

    Attributes:
        vocabulary: how many ids there are.
        pad: the id that fills rows up.
        mask: the id that hides a token.
        special: ids that stand for no text, which no view touches.
        length: the most tokens of a row.
        fingerprint: of the tokenizer itself.
    """

    vocabulary: int
    pad: int
    mask: int
    special: tuple[int, ...]
    length: int
    fingerprint: str

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenFacts":
        """What a tokenizer is."""
        return cls(
            vocabulary=tokenizer.vocabulary,
            pad=tokenizer.pad,
            mask=tokenizer.mask,
            special=tokenizer.special,
            length=tokenizer.length,
            fingerprint=fingerprint(tokenizer.describe()),
        )

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"special": list(self.special)}

    def preprocess(self) -> "Tokens":
        """What stands between such rows and a network."""
        return Tokens(length=self.length, vocabulary=self.vocabulary, pad=self.pad)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "TokenFacts":
        """From plain data, as `asdict` gives it."""
        return cls(
            vocabulary=int(data["vocabulary"]),
            pad=int(data["pad"]),
            mask=int(data["mask"]),
            special=tuple(int(token) for token in data["special"]),
            length=int(data["length"]),
            fingerprint=str(data["fingerprint"]),
        )


class Tokens(nn.Module):
    """Rows of token ids as they are, in the type that embeddings take; nothing to learn.

    Rows may have any length: a batch is as long as its longest text.

    Args:
        length: the most tokens of a row.
        vocabulary: how many ids there are.
        pad: the id that fills rows up.

    Raises:
        ValueError: a number is below what it must be.

    Example:
        >>> Tokens(length=16, vocabulary=100, pad=0)(torch.tensor([[7, 8, 0]])).dtype
        torch.int64
    """

    def __init__(self, *, length: int, vocabulary: int, pad: int) -> None:
        super().__init__()
        if length < 1 or not 0 <= pad < vocabulary:
            raise ValueError(
                "`length >= 1` and `0 <= pad < vocabulary` must hold, but got "
                f"{length=}, {pad=}, {vocabulary=}"
            )
        self.form = "text"
        self.length, self.vocabulary, self.pad = length, vocabulary, pad

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "Tokens":
        """What `describe` wrote.

        Raises:
            DataError: it is no such description.
        """
        try:
            told = {name: int(description[name]) for name in ("length", "vocabulary", "pad")}
            return cls(**told)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "a description of preprocessing must be what `describe` writes, but this one does "
                f"not fit ({type(error).__name__}: {error})"
            ) from error

    def describe(self) -> dict[str, Any]:
        """Everything it is made of, as plain JSON."""
        return {"form": "text", **self.facts}

    @property
    def facts(self) -> dict[str, int]:
        """What a network must know of its inputs, by the names of its arguments."""
        return {"length": self.length, "vocabulary": self.vocabulary, "pad": self.pad}

    def forward(self, rows: Shaped[Tensor, " batch longest"]) -> Int64[Tensor, " batch longest"]:
        """The ids.

        Raises:
            ValueError: the rows are no rows of whole numbers.
        """
        if rows.ndim != 2 or rows.is_floating_point():
            raise ValueError(
                "rows of token ids must be whole numbers [batch, length], but got "
                f"{rows.dtype} {list(rows.shape)}: give texts to their tokenizer first"
            )
        return rows.to(torch.int64)
