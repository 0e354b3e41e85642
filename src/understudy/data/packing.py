"""Documents of tokens, end to end in rows of one length: what a language model learns from.

A row is `context` tokens of the stream `document, end of text, document, ...`, and its labels are
the tokens after them, so that every token is predicted once. The position before the first token of
another document predicts nothing: its label is -1. The model sees the ends of texts and looks back
to the last one, and no further.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoded:
    """One document as tokens.

    Attributes:
        tokens: int32 `[tokens]`.
        bytes: int32 `[tokens]`, how many bytes of the text each stands for; they sum to the text's.
        learned: bool `[tokens]`, which are to be predicted, such as those of a completion; None:
            all of them.
    """

    tokens: NDArray[np.int32]
    bytes: NDArray[np.int32]
    learned: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packed:
    """Rows of tokens, and what each position predicts.

    Attributes:
        tokens: int32 `[rows, context]`; what is left of a row is filled up with ends of text.
        labels: int32 `[rows, context]`, the next token, or -1 where a position predicts nothing.
        bytes: int32 `[rows, context]`, how many bytes of text each label stands for.
        cut: how many documents lost their end, since they may not go on in another row.
    """

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    bytes: NDArray[np.int32]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def counted(self) -> int:
        """How many positions predict something."""
        return int((self.labels >= 0).sum())

    def fingerprint(self) -> str:
        """SHA-256 over rows, labels and bytes, in hex."""
        digest = hashlib.sha256(str(self.tokens.shape).encode())
        for array in (self.tokens, self.labels, self.bytes):
            digest.update(np.ascontiguousarray(array, "<i4").data)
        return digest.hexdigest()


def pack(documents: Sequence[Encoded], *, context: int, end: int, whole: bool = False) -> Packed:
    """Rows of `context` tokens; equal documents in equal order give equal rows.

    Args:
        documents: in order; empty ones are left out.
        context: tokens per row.
        end: the token that stands behind every document, and that rows are filled up with. It is
            predicted too: so a model learns to stop.
        whole: whether a document must lie in one row, since what is learned of it makes no sense
            without its beginning; one that is longer than a row loses its end. Otherwise it goes on
            in the next row, which does not see what came before.

    Raises:
        DataError: `context` is below 2, documents have no token to predict, or `end` or a token is
            negative.

    Example:
        >>> one = Encoded(tokens=np.int32([5, 6, 7]), bytes=np.int32([1, 1, 1]))
        >>> rows = pack([one, one], context=4, end=0)
        >>> rows.tokens.tolist(), rows.labels.tolist()
        ([[5, 6, 7, 0], [5, 6, 7, 0]], [[6, 7, 0, -1], [6, 7, 0, -1]])
    """
    if context < 2:
        raise DataError(
            f"`context >= 2` must hold, but got {context}: a token is learned from those before it"
        )
    _check(documents, end)
    kept = [document for document in documents if len(document)]
    streams, cut = _whole(kept, context, end) if whole else ([_stream(kept, end)], 0)
    tokens, labels, sizes = (np.concatenate(parts) for parts in zip(*streams, strict=True))
    rows = -(-len(tokens) // context)
    short = rows * context - len(tokens)
    table = np.pad(tokens, (0, short), constant_values=end).reshape(rows, context)
    goals = np.pad(labels, (0, short), constant_values=-1).reshape(rows, context)
    bytes_ = np.pad(sizes, (0, short)).reshape(rows, context)
    some = (goals >= 0).any(axis=1)
    if not some.any():
        raise DataError(
            f"documents must have tokens to predict, but {len(documents)} documents have none: "
            "a document needs two tokens, and a completion one that fits beside its prompt"
        )
    return Packed(
        tokens=np.ascontiguousarray(table[some]),
        labels=np.ascontiguousarray(goals[some]),
        bytes=np.ascontiguousarray(bytes_[some], np.int32),
        cut=cut,
    )


_Stream = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


def _stream(documents: Sequence[Encoded], end: int) -> _Stream:
    """Documents end to end: tokens, what each predicts, and the bytes of what it predicts."""
    if not documents:
        empty = np.empty(0, np.int32)
        return empty, empty, empty
    stop = np.array([end], np.int32)
    tokens = np.concatenate([p for d in documents for p in (d.tokens, stop)]).astype(np.int32)
    sizes = np.concatenate([p for d in documents for p in (d.bytes, stop * 0)]).astype(np.int32)
    learned = np.concatenate([_learned(document) for document in documents])
    # The first token of a document is nobody's to predict.
    first = np.cumsum([0, *(len(document) + 1 for document in documents[:-1])])
    learned[first] = False
    labels = np.where(learned, tokens, -1)
    return (
        tokens,
        np.append(labels[1:], -1).astype(np.int32),
        np.append(np.where(learned, sizes, 0)[1:], 0).astype(np.int32),
    )


def _learned(document: Encoded) -> NDArray[np.bool_]:
    """Which of a document's tokens are predicted, and of its end whether it is."""
    if document.learned is None:
        return np.ones(len(document) + 1, np.bool_)
    return np.append(document.learned, document.learned[-1:])


def _whole(documents: Sequence[Encoded], context: int, end: int) -> tuple[list[_Stream], int]:
    """Streams of whole rows: a document that does not fit begins another."""
    streams, cut = [], 0
    row: list[Encoded] = []
    used = 0
    for document in documents:
        fits = _shortened(document, context)
        cut += len(fits) < len(document)
        if row and used + len(fits) > context:
            streams.append(_filled(row, context, end))
            row, used = [], 0
        row.append(fits)
        used += len(fits) + 1
    streams.append(_filled(row, context, end))
    return streams, cut


def _shortened(document: Encoded, context: int) -> Encoded:
    # One more than a row holds: its last token predicts it.
    most = context + 1
    if len(document) <= most:
        return document
    return replace(
        document,
        tokens=document.tokens[:most],
        bytes=document.bytes[:most],
        learned=None if document.learned is None else document.learned[:most],
    )


def _filled(documents: Sequence[Encoded], context: int, end: int) -> _Stream:
    tokens, labels, sizes = (part[:context] for part in _stream(documents, end))
    short = context - len(tokens)
    return (
        np.pad(tokens, (0, short), constant_values=end),
        np.pad(labels, (0, short), constant_values=-1),
        np.pad(sizes, (0, short)),
    )


def _check(documents: Sequence[Encoded], end: int) -> None:
    if end < 0:
        raise DataError(f"`end >= 0` must hold, but got {end}: name the token that ends a text")
    for number, document in enumerate(documents):
        sides = {"bytes": document.bytes, "learned": document.learned}
        odd = [n for n, side in sides.items() if side is not None and len(side) != len(document)]
        if odd:
            raise DataError(
                f"a document must have one entry of `{odd[0]}` per token, but document {number} "
                f"has {len(document)} tokens and not as many"
            )
        if len(document) and int(document.tokens.min()) < 0:
            raise DataError(f"tokens must be 0 or more, but document {number} holds others")


def documents_of(
    tokens: NDArray[Any], scored: NDArray[np.bool_], *, end: int
) -> NDArray[np.int64] | None:
    """How many scored positions each document of some rows of `pack` has, in order.

    Args:
        tokens: `[rows, context]`, in the order of the documents.
        scored: bool, of the same shape.
        end: the token that ends a text.

    Returns:
        `[documents]`; None where there are not fewer of them than rows, or but one: then it is
        rows that differ most, or all that can be told apart.
    """
    over = tokens.ravel() == end
    owner = np.cumsum(over) - over
    _, counts = np.unique(owner[scored.ravel()], return_counts=True)
    return counts.astype(np.int64) if 2 <= len(counts) < len(tokens) else None


def crossing(labels: NDArray[np.int32], tokens: NDArray[np.int32], *, end: int) -> int:
    """How many positions predict what stands behind an end of text: 0 in rows of `pack`.

    Args:
        labels: `[rows, context]`.
        tokens: `[rows, context]`.
        end: the token that ends a text.
    """
    return int(((tokens == end) & (labels >= 0)).sum())


def stretches(text: str, shares: Sequence[float]) -> Iterator[str]:
    """One text as contiguous parts of these shares, cut behind a line, or a word of a long one.

    Args:
        text: of one document.
        shares: of the parts, in order; they sum to 1.

    Raises:
        DataError: a part would be empty.
    """
    start, target = 0, 0.0
    for number, share in enumerate(shares):
        target += share
        last = number == len(shares) - 1
        stop = len(text) if last else _behind(text, round(target * len(text)), start)
        if not text[start:stop].strip():
            raise DataError(
                f"a text of {len(text):,} characters must be long enough to be divided into "
                f"{len(shares)} parts, but part {number + 1} would be empty: give more text"
            )
        yield text[start:stop]
        start = stop


def _behind(text: str, place: int, least: int) -> int:
    """The end of the line at a place, or of the word where the line is long."""
    far = min(len(text), place + 2000)
    for mark in ("\n", " "):
        found = text.find(mark, max(place, least), far)
        if found >= 0:
            return found + 1
    return max(place, least)
