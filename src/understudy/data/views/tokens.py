"""Views of texts: tokens hidden or left out, and random pieces of long texts.

A recipe says how much; which ids are padding, masks and ends is told by the tokenizer of the data.
Neither padding nor any other token that stands for no text is touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.data.views.chain import View
from understudy.data.views.numbers import hashed

Ids = Shaped[Tensor, " batch longest"]


@runtime_checkable
class OfTokens(Protocol):
    """An operation on texts, before it knows the tokenizer. `build` tells it."""

    def told(self, *, pad: int, mask: int, special: Sequence[int]) -> View:
        """The operation for the ids of one tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenDropout:
    """Every token of a text is dropped with the same probability, each by itself.

    Attributes:
        share: of the tokens, above 0 and below 1.
        by: `mask` puts the mask (or the unknown token) in its place, `delete` closes the gap.
        least: texts of fewer tokens than this stay as they are.
    """

    share: float = 0.1
    by: Literal["mask", "delete"] = "mask"
    least: int = 0

    def __post_init__(self) -> None:
        _check_least(self.least)
        if not 0 < self.share < 1:
            raise ValueError(f"`0 < share < 1` must hold, but got {self.share}: usual is 0.1")
        if self.by not in ("mask", "delete"):
            raise ValueError(f"`by` must be `mask` or `delete`, but got {self.by!r}")

    def told(self, *, pad: int, mask: int, special: Sequence[int]) -> View:
        """The operation for the ids of one tokenizer."""
        return Dropping(
            share=self.share,
            by=self.by,
            least=self.least,
            pad=pad,
            mask=mask,
            special=tuple(sorted({*special, pad})),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCrop:
    """One piece of a text stays, what is before and behind it goes.

    Its length is a share of the text's, uniform between `smallest` and 1 and rounded up; it begins
    anywhere. Of a pair of texts the piece is of both together.

    Attributes:
        smallest: the shortest piece, as a share of the text, above 0 and below 1.
        least: texts of fewer tokens than this stay as they are.
    """

    smallest: float = 0.5
    least: int = 0

    def __post_init__(self) -> None:
        _check_least(self.least)
        if not 0 < self.smallest < 1:
            raise ValueError(f"`0 < smallest < 1` must hold, but got {self.smallest}")

    def told(self, *, pad: int, mask: int, special: Sequence[int]) -> View:
        """The operation for the ids of one tokenizer."""
        del mask
        return Cropping(
            smallest=self.smallest,
            least=self.least,
            pad=pad,
            special=tuple(sorted({*special, pad})),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropping:
    """`TokenDropout` for the ids of one tokenizer. A text keeps one token at least."""

    share: float
    by: Literal["mask", "delete"]
    least: int
    pad: int
    mask: int
    special: tuple[int, ...]

    def __call__(self, rows: Ids, draws: Callable[[], Int64[Tensor, " batch"]]) -> Ids:
        """The rows with fewer tokens to read."""
        words = _words(rows, self.special)
        numbers = hashed(draws(), rows.shape[1])
        gone = words & torch.from_numpy(numbers < int(self.share * 2**63))
        gone &= (words.sum(dim=1) >= self.least)[:, None]
        all_gone = words.any(dim=1) & ~(words & ~gone).any(dim=1)
        if bool(all_gone.any()):
            # The one that came closest to staying.
            most = np.where(words.numpy(), numbers, -1).argmax(axis=1)
            gone[all_gone, torch.from_numpy(most)[all_gone]] = False
        if self.by == "mask":
            return rows.masked_fill(gone, self.mask)
        return _closed(rows, ~gone, self.pad)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cropping:
    """`TokenCrop` for the ids of one tokenizer."""

    smallest: float
    least: int
    pad: int
    special: tuple[int, ...]

    def __call__(self, rows: Ids, draws: Callable[[], Int64[Tensor, " batch"]]) -> Ids:
        """The rows with one piece of each text."""
        words = _words(rows, self.special)
        count = words.sum(dim=1)
        shares = self.smallest + (1 - self.smallest) * ((draws() >> 11).double() * 2.0**-52)
        length = torch.minimum((shares * count).ceil().long(), count)
        length = length.where(count >= self.least, count)
        first = draws() % (count - length + 1)
        place = words.long().cumsum(dim=1) - 1
        inside = (place >= first[:, None]) & (place < (first + length)[:, None])
        return _closed(rows, inside | ~words, self.pad)


def _check_least(least: int) -> None:
    if least < 0:
        raise ValueError(f"`least >= 0` must hold, but got {least}: 0 is every text")


def _words(rows: Ids, special: tuple[int, ...]) -> Bool[Tensor, " batch longest"]:
    found: NDArray[np.bool_] = np.isin(rows.numpy(), special, invert=True)
    return torch.from_numpy(found)


def _closed(rows: Ids, kept: Bool[Tensor, " batch longest"], pad: int) -> Ids:
    """What is kept, moved together at the front, and padding behind it."""
    order = (~kept).long().argsort(dim=1, stable=True)
    moved = rows.masked_fill(~kept, pad)
    return moved.gather(1, order)
