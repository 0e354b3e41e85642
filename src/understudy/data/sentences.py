"""Sentences: as padded rows of token ids, in batches of like lengths, and as scored pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from understudy.contracts import Batch
from understudy.data.files import find_file
from understudy.data.loaders import epoch_order
from understudy.errors import DataError

# Columns of the STS benchmark's files, counted from 0.
_SCORE, _FIRST, _SECOND = 4, 5, 6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SentencePairs:
    """Pairs of sentences, and how alike people found them.

    Attributes:
        first: one sentence of each pair.
        second: the other.
        scores: float64 `[pairs]`, 0 (nothing in common) to 5 (the same meaning) in STS.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: Float64[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every sentence once, in the order of its first appearance."""
        return tuple(dict.fromkeys(text for pair in self for text in pair))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(zip(self.first, self.second, strict=True))


def token_rows(
    ids: Sequence[Sequence[int] | NDArray[np.int64]], *, pad: int, length: int | None = None
) -> Int64[np.ndarray, " rows longest"]:
    """Sequences of token ids as rows, filled up at the end; none of them is empty.

    Args:
        ids: one sequence per sentence.
        pad: what rows are filled up with.
        length: where rows are cut; None keeps the longest whole.

    Raises:
        DataError: there are no rows, one is empty, or `length` is below 1.
    """
    if length is not None and length < 1:
        raise DataError(f"`length >= 1` must hold for rows of tokens, but got {length=}")
    empty = [number for number, row in enumerate(ids) if not len(row)]
    if empty or not len(ids):
        what = f"row {empty[0]} of {len(ids)} is empty" if empty else "there are no rows"
        raise DataError(f"rows of tokens must hold a token each, but {what}: leave it out")
    longest = max(len(row) for row in ids)
    rows = np.full((len(ids), min(longest, length or longest)), pad, np.int64)
    for row, one in zip(rows, ids, strict=True):
        kept = one[: len(row)]
        row[: len(kept)] = kept
    return rows


class TokenLoader:
    """Batches of token rows of like lengths, in an order that is a function of seed and epoch.

    A batch is as long as its longest row, so most of the padding of batches drawn at random is
    never computed. Rows are shuffled, sorted by length within groups of `group` batches, and the
    batches shuffled again: which rows meet changes with every epoch. A last batch of a single row
    is left out.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        *,
        pad: int,
        batch_size: int,
        seed: int | None = None,
        length: int | None = None,
        group: int = 16,
    ) -> None:
        """Batches of these sequences; their places are the rows' ids.

        Args:
            ids: one sequence of token ids per sentence.
            pad: what rows are filled up with.
            batch_size: rows per batch.
            seed: of the order; None goes from the shortest to the longest.
            length: where rows are cut.
            group: batches that are sorted together.

        Raises:
            DataError: there are no rows, one is empty, or `length` is below 1.
        """
        token_rows(ids, pad=pad, length=length)  # refuses what is no row before any training
        self._ids = [np.asarray(row, np.int64)[:length] for row in ids]
        self._lengths = np.array([len(row) for row in self._ids])
        self._pad, self._seed, self._group = pad, seed, group
        self.batch_size = batch_size
        self.epoch = 0

    @property
    def sampler(self) -> "TokenLoader":
        """What Lightning calls `set_epoch` on."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self._ids), self.batch_size)
        return full + (rest > 1 or (rest == 1 and (full == 0 or self._seed is None)))

    def __iter__(self) -> Iterator[Batch]:
        for positions in self._batches():
            rows = token_rows([self._ids[place] for place in positions], pad=self._pad)
            yield Batch(inputs=torch.from_numpy(rows), ids=torch.from_numpy(positions))

    def _batches(self) -> list[Int64[np.ndarray, " batch"]]:
        every = np.arange(len(self._ids))
        if self._seed is None:
            order = every[np.argsort(self._lengths, kind="stable")]
            return [
                order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)
            ]
        order = epoch_order(every, seed=self._seed, epoch=self.epoch)
        # What is left over is a batch by itself, or none: it must not be split among groups.
        order = order[: len(self) * self.batch_size]
        batches = []
        size = self._group * self.batch_size
        for start in range(0, len(order), size):
            some = order[start : start + size]
            some = some[np.argsort(self._lengths[some], kind="stable")]
            batches += [
                some[at : at + self.batch_size] for at in range(0, len(some), self.batch_size)
            ]
        turns = epoch_order(np.arange(len(batches)), seed=self._seed, epoch=self.epoch)
        return [batches[turn] for turn in turns]


def read_sts(path: str) -> SentencePairs:
    """The pairs of one file of the STS benchmark, gold score and both sentences.

    Its columns are separated by tabs and nothing is quoted: a quotation mark is a part of its
    sentence, however lonely. What stands behind the seventh column is a source or a licence.

    Raises:
        DataError: there is no such file, or a line is not as it should be; it is named.

    Example:
        >>> pairs = read_sts("stsb/sts-test.csv")  # doctest: +SKIP
    """
    place = find_file(path, "path")
    scores, first, second = [], [], []
    try:
        lines = place.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} must be UTF-8 text, but is not: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) <= _SECOND or not cells[_FIRST].strip() or not cells[_SECOND].strip():
            raise DataError(
                f"{place}, line {number}: a pair must have a score in column {_SCORE + 1} and "
                f"sentences in {_FIRST + 1} and {_SECOND + 1}, but it has {len(cells)} columns: "
                "separate them by tabs"
            )
        scores.append(_score(cells[_SCORE], f"{place}, line {number}"))
        first.append(cells[_FIRST].strip())
        second.append(cells[_SECOND].strip())
    if not scores:
        raise DataError(f"{place} must hold pairs of sentences, but is empty: correct the path")
    return SentencePairs(first=tuple(first), second=tuple(second), scores=np.array(scores))


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not np.isfinite(score):
        raise DataError(f"{where}: a score must be a number, but it is {text!r}: correct the line")
    return score
