"""What a teacher says of every token alone."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from understudy.errors import ModelError


def single_token_vectors(
    teacher: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    *,
    vocabulary: int,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    batch: int = 256,
) -> Float32[np.ndarray, " vocabulary width"]:
    """The teacher's vector of a text of one token, for every token.

    It is all that can be said without any text, and what a token keeps that no text has.

    Args:
        teacher: rows of token ids `[batch, length]` to vectors `[batch, width]`.
        vocabulary: how many tokens there are.
        before: ids that the teacher's tokenizer puts before every text, such as `[CLS]`.
        after: ids that it puts behind, such as `[SEP]`.
        batch: tokens per call of the teacher.

    Raises:
        ModelError: the teacher does not give one row of finite numbers per token.

    Paper:
        None; Tulkens and van Dongen 2024, "Model2Vec: Fast State-of-the-Art Static Embeddings"
        (software), begin so.
    """
    found = []
    for start in range(0, vocabulary, batch):
        tokens = np.arange(start, min(start + batch, vocabulary))
        vectors = teacher(_framed(tokens, before, after))
        if vectors.ndim != 2 or len(vectors) != len(tokens) or not np.isfinite(vectors).all():
            raise ModelError(
                "a teacher must give one row of finite numbers per text, but for "
                f"{len(tokens)} texts it gave {list(vectors.shape)} or numbers that are not "
                "finite: pool its states to one vector first"
            )
        found.append(np.asarray(vectors, np.float32))
    return np.concatenate(found)


def _framed(
    tokens: NDArray[np.int64], before: Sequence[int], after: Sequence[int]
) -> Int64[np.ndarray, " batch length"]:
    rows = np.empty((len(tokens), len(before) + 1 + len(after)), np.int64)
    rows[:, : len(before)] = before
    rows[:, len(before)] = tokens
    rows[:, len(before) + 1 :] = after
    return rows
