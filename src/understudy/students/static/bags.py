"""Texts as weighted means of tokens: a sparse matrix with a row per text, and its products.

Both products are sums of picked rows, which `embedding_bag` takes without ever making what it
picked: by text for the matrix, by token for its transpose.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.errors import DataError


class Bags:
    """The matrix `[texts, vocabulary]` whose row is the share of every token in its text.

    A token's share is its weight, once per time it stands there, divided by the sum of the row.
    A row without tokens, or whose tokens all weigh nothing, is zero.

    Attributes:
        texts: the number of rows.
        vocabulary: the number of columns.
        counts: int64 `[vocabulary]`, how often every token stands in all texts.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        *,
        vocabulary: int,
        weights: Float32[np.ndarray, " vocabulary"] | None = None,
    ) -> None:
        """Lay the matrix out both ways.

        Args:
            ids: the tokens of every text, without those that mark its ends.
            vocabulary: how many tokens there are.
            weights: 0 or more per token; None weighs all alike.

        Raises:
            DataError: no text has a token, or one is not in the vocabulary.
            ValueError: there is not one weight of 0 or more per token.
        """
        sizes = np.array([len(row) for row in ids], np.int64)
        flat = np.array([token for row in ids for token in row], np.int64)
        _check_ids(flat, vocabulary)
        weights = np.ones(vocabulary, np.float32) if weights is None else weights
        _check_weights(weights, vocabulary)
        self.texts, self.vocabulary = len(sizes), vocabulary
        self.counts: Int64[np.ndarray, " vocabulary"] = np.bincount(flat, minlength=vocabulary)
        rows = np.repeat(np.arange(self.texts), sizes)
        sums = np.bincount(rows, weights[flat], minlength=self.texts)
        shares = weights[flat] / np.where(sums > 0, sums, 1)[rows]
        order = np.argsort(flat, kind="stable")
        self._by_text = _Picks(flat, sizes, shares)
        self._by_token = _Picks(rows[order], self.counts, shares[order])

    def of_tokens(self, vectors: Float[Tensor, " vocabulary width"]) -> Float[Tensor, " texts _"]:
        """The product with a vector per token: the weighted mean of every text."""
        return self._by_text.sums(vectors)

    def of_texts(self, vectors: Float[Tensor, " texts width"]) -> Float[Tensor, " vocabulary _"]:
        """The product of the transpose with a vector per text."""
        return self._by_token.sums(vectors)

    def squares(self) -> Float32[Tensor, " vocabulary"]:
        """The sum of the squares of every column, without joining a text's equal tokens.

        So it is a little below the diagonal of the matrix's square where tokens repeat.
        """
        return self._by_token.squares()


class _Picks:
    """Which rows are added up, each times a share, and where one sum ends and the next begins."""

    def __init__(
        self, rows: NDArray[np.int64], sizes: NDArray[np.int64], shares: NDArray[np.float64]
    ) -> None:
        self._rows = torch.from_numpy(rows)
        self._starts = torch.from_numpy(np.cumsum(sizes) - sizes)
        self._shares = torch.from_numpy(shares.astype(np.float32))

    def sums(self, vectors: Tensor) -> Tensor:
        return nn.functional.embedding_bag(
            self._rows,
            vectors,
            self._starts,
            mode="sum",
            per_sample_weights=self._shares.to(vectors.dtype),
        )

    def squares(self) -> Tensor:
        return nn.functional.embedding_bag(
            torch.arange(len(self._shares)),
            self._shares.square()[:, None],
            self._starts,
            mode="sum",
        )[:, 0]


def _check_ids(flat: NDArray[np.int64], vocabulary: int) -> None:
    if not len(flat):
        raise DataError(
            "token vectors are fitted to texts with tokens, but no text has any: check that they "
            "are not empty"
        )
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= vocabulary:
        raise DataError(
            f"`0 <= token < {vocabulary}` must hold, but tokens go from {low} to {high}: use the "
            "tokenizer that the vectors belong to"
        )


def _check_weights(weights: Float32[np.ndarray, " _"], vocabulary: int) -> None:
    if len(weights) != vocabulary or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"`weights` must be {vocabulary} numbers of 0 or more, but got {len(weights)} from "
            f"{weights.min(initial=np.inf)} to {weights.max(initial=-np.inf)}: use `sif_weights`"
        )
