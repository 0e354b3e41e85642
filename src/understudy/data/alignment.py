"""Tokens of two tokenizers, brought together through the bytes of the text that both read.

Words are for encoders: each side's tokens of a word are found, and their features can be averaged.
Chunks are for causal models: the smallest parts of a text that both sides begin and end at the same
byte, so that both give the same part a probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from understudy.data.cutting import Cuts, Cutter, Letters, marked
from understudy.errors import DataError

LEAST: Final = 0.8
"""A smaller share of a text than this says little of the rest."""

LONGEST: Final = 8
"""Tokens of a chunk: the probability of a longer one is 0 for all that can be learned from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedWords:
    """The words that both tokenizers see whole.

    Attributes:
        student: int64 `[texts, tokens]`, the number of each token's word among its text's shared
            ones; -1 where it has none: marks, padding, words that one side does not see whole.
        teacher: likewise, `[texts, its tokens]`.
        counts: int64 `[texts]`, how many words are shared.
        coverage: the share of all words that are.
        cut: how many texts the student's tokenizer has cut off, and the teacher's.
    """

    student: NDArray[np.int64]
    teacher: NDArray[np.int64]
    counts: NDArray[np.int64]
    coverage: float
    cut: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """The parts of texts that both tokenizers begin and end at the same byte.

    Attributes:
        student: int64 `[texts, tokens]`, the number of each token's chunk in its text; -1: none.
        teacher: likewise, `[texts, its tokens]`.
        student_begins: int64 `[texts, chunks]`, the place of each chunk's first token; -1 behind
            the last chunk. The token before it has the distribution of what comes next.
        teacher_begins: likewise.
        counts: int64 `[texts]`, how many chunks there are.
        coverage: the share of the texts' bytes that lie in them.
        cut: how many texts the student's tokenizer has cut off, and the teacher's.
    """

    student: NDArray[np.int64]
    teacher: NDArray[np.int64]
    student_begins: NDArray[np.int64]
    teacher_begins: NDArray[np.int64]
    counts: NDArray[np.int64]
    coverage: float
    cut: tuple[int, int]


def shared_words(
    texts: Sequence[str], student: Cutter, teacher: Cutter, *, least: float = LEAST
) -> SharedWords:
    """The words of texts that both tokenizers see whole.

    A word is what stands between spaces. A side sees it whole where its tokens cover every byte of
    it, and none of them reaches into another word. A text that is cut has lost the words behind the
    cut, and they count as words.

    Args:
        texts: that both read.
        student: its tokenizer.
        teacher: its tokenizer.
        least: the smallest share of words that must be shared.

    Raises:
        DataError: less is; or a text holds a lone surrogate.
    """
    letters = Letters.of(texts)
    sides = [cutter(texts) for cutter in (student, teacher)]
    spans = [_word_spans(letters, cuts) for cuts in sides]
    whole = [_whole(letters, cuts, *span) for cuts, span in zip(sides, spans, strict=True)]
    both = whole[0] & whole[1]
    owners = letters.text_of(letters.words)
    counts = np.bincount(owners[both], minlength=len(texts)).astype(np.int64)
    within = np.cumsum(both) - 1 - (np.cumsum(counts) - counts)[owners]
    numbers = np.where(both, within, -1)
    coverage = float(both.mean()) if len(both) else 0.0
    cut = int(sides[0].cut.sum()), int(sides[1].cut.sum())
    if coverage < least:
        shares = [float(one.mean()) if len(one) else 0.0 for one in whole]
        raise DataError(
            f"`coverage >= {least}` must hold, but both tokenizers see {coverage:.1%} of "
            f"{len(both)} words whole (the student {shares[0]:.1%}, the teacher {shares[1]:.1%}; "
            f"cut off are {cut[0]} and {cut[1]} of {len(texts)} texts): raise `max_length`, take "
            "tokenizers that split at spaces, or set a lower limit"
        )
    made = [
        _laid_words(cuts, first, numbers) for cuts, (first, _) in zip(sides, spans, strict=True)
    ]
    return SharedWords(student=made[0], teacher=made[1], counts=counts, coverage=coverage, cut=cut)


def shared_chunks(
    texts: Sequence[str],
    student: Cutter,
    teacher: Cutter,
    *,
    least: float = LEAST,
    longest: int = LONGEST,
) -> Chunks:
    """The parts of texts that both tokenizers begin and end at the same byte.

    Left out are chunks of more than `longest` tokens on either side, chunks with an unknown token
    (its probability is that of anything unknown), the first token of a text without a mark before
    it (nothing predicts it), and texts that a side's tokens do not give back letter by letter.

    Args:
        texts: that both read.
        student: its tokenizer.
        teacher: its tokenizer.
        least: the smallest share of the texts' bytes that chunks must cover.
        longest: the most tokens of a chunk.

    Raises:
        DataError: they cover less; or a text holds a lone surrogate.
    """
    letters = Letters.of(texts)
    sides = [cutter(texts) for cutter in (student, teacher)]
    ends = np.intersect1d(_boundaries(letters, sides[0]), _boundaries(letters, sides[1]))
    # The bytes of the separators lie between texts, so no end is that of two.
    edges = letters.exact[letters.first[:-1]]
    owners = np.searchsorted(edges, ends, side="left") - 1
    good = np.ones(len(ends), np.bool_)
    at = [_chunk_of(letters, cuts, ends, owners) for cuts in sides]
    for cuts, numbers in zip(sides, at, strict=True):
        good &= _sound(cuts, numbers, owners, longest)
    starts = np.maximum(edges[owners], np.concatenate([[0], ends[:-1]])) if len(ends) else ends
    counts = np.bincount(owners[good], minlength=len(texts)).astype(np.int64)
    renumbered = np.cumsum(good) - 1 - (np.cumsum(counts) - counts)[owners]
    numbers = np.append(np.where(good, renumbered, -1), -1)  # the last stands for none
    total = int(letters.exact[-1]) - len(texts)
    coverage = float((ends - starts)[good].sum() / total) if total else 0.0
    cut = int(sides[0].cut.sum()), int(sides[1].cut.sum())
    if coverage < least:
        lost = [int((~cuts.kept).sum()) for cuts in sides]
        raise DataError(
            f"`coverage >= {least}` must hold, but chunks of at most {longest} tokens that both "
            f"tokenizers cut out cover {coverage:.1%} of the texts' bytes (of {len(texts)} texts "
            f"the student's tokens do not give {lost[0]} back and the teacher's {lost[1]}; cut "
            f"off are {cut[0]} and {cut[1]}): take a teacher with a tokenizer more alike, let it "
            "write texts to train on, or set a lower limit"
        )
    made = [cuts.laid_out(numbers[where]) for cuts, where in zip(sides, at, strict=True)]
    return Chunks(
        student=made[0],
        teacher=made[1],
        student_begins=_begins(made[0], counts),
        teacher_begins=_begins(made[1], counts),
        counts=counts,
        coverage=coverage,
        cut=cut,
    )


def _word_spans(letters: Letters, cuts: Cuts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last word that each token reaches into; -1 where it reaches into none."""
    heads = letters.solid[letters.words]
    start, end = letters.solid[cuts.starts], letters.solid[cuts.ends]
    some = cuts.real & (end > start)
    first, last = (np.searchsorted(heads, at, side="right") - 1 for at in (start, end - 1))
    return np.where(some, first, -1), np.where(some, last, -1)


def _whole(
    letters: Letters, cuts: Cuts, first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which words a side sees whole."""
    count, some = len(letters.words), first >= 0
    covered = marked(letters.solid[cuts.starts][some], letters.solid[cuts.ends][some],
                      int(letters.solid[-1]))  # fmt: skip
    whole: NDArray[np.bool_] = np.zeros(count, np.bool_)
    if count:
        heads = letters.solid[letters.words]
        whole = np.minimum.reduceat(covered, heads).astype(np.bool_)
    torn = some & (first != last)
    return whole & ~marked(first[torn], last[torn] + 1, count)


def _laid_words(
    cuts: Cuts, first: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    # A token of a shared word reaches into that word alone, so its first word is its word.
    known = np.append(numbers, -1)
    return cuts.laid_out(known[first])


def _boundaries(letters: Letters, cuts: Cuts) -> NDArray[np.int64]:
    """The bytes behind which a token ends and the next one begins."""
    rows, starts, ends = (x[cuts.real] for x in (cuts.rows, cuts.starts, cuts.ends))
    # Bytes of one character in two tokens: no boundary between them that both could have.
    last = np.append(rows[1:] != rows[:-1], True) if len(rows) else rows.astype(np.bool_)
    free = last | (np.append(starts[1:], 0) >= ends)
    return letters.exact[ends[free & (ends > starts)]]


def _chunk_of(
    letters: Letters, cuts: Cuts, ends: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The chunk of each token, counted through all texts; as many as there are chunks for none."""
    found = np.searchsorted(ends, letters.exact[cuts.starts], side="right")
    inside = cuts.real & (found < len(ends))
    inside[inside] = owners[found[inside]] == cuts.rows[inside]
    return np.where(inside, found, len(ends)).astype(np.int64)


def _sound(
    cuts: Cuts, numbers: NDArray[np.int64], owners: NDArray[np.int64], longest: int
) -> NDArray[np.bool_]:
    """Which chunks have a probability that means what the other side's means."""
    count = len(owners)
    sizes = np.bincount(numbers, minlength=count + 1)[:count]
    odd = cuts.unknown | (cuts.places == 0)
    spoilt = np.bincount(numbers[odd], minlength=count + 1)[:count]
    good: NDArray[np.bool_] = (sizes <= longest) & (spoilt == 0) & cuts.kept[owners]
    return good


def _begins(numbers: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of every chunk's first token."""
    table = np.full((len(counts), int(counts.max(initial=0))), -1, np.int64)
    rows, places = np.nonzero(numbers >= 0)
    chunks = numbers[rows, places]
    _, first = np.unique(rows * max(1, table.shape[1]) + chunks, return_index=True)
    table[rows[first], chunks[first]] = places[first]
    return table
