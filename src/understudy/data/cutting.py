"""How a tokenizer cuts texts: which token stands for which bytes of which text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from understudy.deployed.texts import refuse_surrogates
from understudy.errors import DataError, MissingExtraError

# What `str.isspace` knows.
_SPACES: Final = np.array(
    [ord(letter) for letter in map(chr, range(0x3001)) if letter.isspace()], np.uint32
)
_UNKNOWN: Final = ("[UNK]", "<unk>", "<|unk|>")
_SPACE: Final = "\u2581"  # how some tokenizers write a space


@dataclass(frozen=True, kw_only=True, slots=True)
class Letters:
    """Places in some texts, which are joined with one space after each.

    Attributes:
        first: int64 `[texts + 1]`, the first character of every text, and the end.
        exact: int64 `[characters + 1]`, bytes before every character.
        solid: int64 `[characters + 1]`, bytes before it that are not of spaces.
        words: int64 `[words]`, the first character of every word: what spaces stand between.
    """

    first: NDArray[np.int64]
    exact: NDArray[np.int64]
    solid: NDArray[np.int64]
    words: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Letters":
        """Count the texts' bytes.

        Raises:
            DataError: a text holds half a character, a lone surrogate.
        """
        refuse_surrogates(texts)
        joined = "".join(f"{text}\n" for text in texts)
        codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        wide = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
        space = np.isin(codes, _SPACES)
        before = np.concatenate([[True], space[:-1]]) if len(codes) else space
        return cls(
            first=_sums([len(text) + 1 for text in texts]),
            exact=_sums(wide),
            solid=_sums(np.where(space, 0, wide)),
            words=np.flatnonzero(before & ~space).astype(np.int64),
        )

    def text_of(self, characters: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which text each character belongs to."""
        found: NDArray[np.int64] = np.searchsorted(self.first, characters, side="right") - 1
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuts:
    """The tokens of some texts, text after text.

    Attributes:
        ids: int64 `[tokens]`, their numbers.
        counts: int64 `[texts]`, tokens per text, those that mark its ends counted.
        rows: int64 `[tokens]`, which text each belongs to.
        places: int64 `[tokens]`, the how manieth of its text it is.
        starts: int64 `[tokens]`, its first character among those of all texts.
        ends: int64 `[tokens]`, the character behind its last one.
        real: bool `[tokens]`, whether it stands for a part of its text.
        unknown: bool `[tokens]`, whether it stands for anything that the tokenizer lacks.
        cut: bool `[texts]`, whether a text was longer than a row and has lost its end.
        kept: bool `[texts]`, whether its tokens say all of a text, letter by letter and space by
            space, as far as they go: not where a tokenizer puts all in lower case.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    real: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    def laid_out(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """One value per token as `[texts, longest]`, -1 behind a text's last token."""
        table = np.full((len(self.counts), int(self.counts.max(initial=0))), -1, np.int64)
        table[self.rows, self.places] = values
        return table


class Cutter:
    """Cuts texts as a tokenizer does, and says where.

    Example:
        >>> from understudy.data.tokenizers import train_tokenizer
        >>> cutter = Cutter(train_tokenizer(["a fine film", "a dull film"], size=60))
        >>> cuts = cutter(["a film"])
        >>> list(zip(cuts.starts.tolist(), cuts.ends.tolist()))[0]
        (0, 1)
    """

    def __init__(self, tokenizer: Any, *, length: int | None = None, marks: bool = True) -> None:
        """Make a copy of a tokenizer that keeps spaces in sight.

        Args:
            tokenizer: ours, one of the library `tokenizers`, or a fast one of transformers.
            length: the most tokens of a text; None for what a tokenizer of ours says, else any.
            marks: whether tokens that mark a text's ends are added.

        Raises:
            DataError: it is none of these.
            MissingExtraError: tokenizers is not installed.
        """
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise MissingExtraError("tokenizers", "text") from error
        inside = getattr(tokenizer, "backend_tokenizer", tokenizer)
        content = getattr(inside, "content", None)
        if content is None and isinstance(inside, Library):
            content = inside.to_str()
        if not isinstance(content, str):
            raise DataError(
                "a tokenizer must say where its tokens lie, but this one is a "
                f"{type(tokenizer).__name__}: give one of the library `tokenizers`, or a fast one "
                "of transformers (`use_fast=True`)"
            )
        told = json.loads(content)
        _untrim(told)
        self._tokenizer = Library.from_str(json.dumps(told))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        bound = length if length is not None else getattr(inside, "length", None)
        if bound is not None:
            self._tokenizer.enable_truncation(int(bound))
        self._marks = marks
        named = told["model"].get("unk_token") if isinstance(told["model"], dict) else None
        numbers = {self._tokenizer.token_to_id(text) for text in (named, *_UNKNOWN) if text}
        self._unknown = np.array(sorted(n for n in numbers if n is not None), np.int64)

    def __call__(self, texts: Sequence[str]) -> Cuts:
        """Cut texts.

        Raises:
            DataError: a text holds half a character, a lone surrogate.
        """
        refuse_surrogates(texts)
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=self._marks)
        counts = np.array([len(one.ids) for one in found], np.int64)
        ids = np.array([at for one in found for at in one.ids], np.int64)
        spans = np.array([s for one in found for s in one.offsets], np.int64).reshape(-1, 2)
        marks = [at for one in found for at in one.special_tokens_mask]
        # An unknown part of the text is marked as special by some tokenizers.
        unknown = np.isin(ids, self._unknown) & (spans[:, 1] > spans[:, 0])
        rows = np.repeat(np.arange(len(texts)), counts)
        first = _sums([len(text) + 1 for text in texts])[:-1]
        real = ~np.array(marks, np.bool_) | unknown
        starts, ends = spans[:, 0] + first[rows], spans[:, 1] + first[rows]
        kept = _without_gaps(rows[real], starts[real], ends[real], len(texts))
        return Cuts(
            ids=ids,
            counts=counts,
            rows=rows,
            places=np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts),
            starts=starts,
            ends=ends,
            real=real,
            unknown=unknown,
            cut=np.array([bool(one.overflowing) for one in found], np.bool_),
            kept=kept & np.array([self._keeps(text) for text in texts], np.bool_),
        )

    def _keeps(self, text: str) -> bool:
        """Whether a text is cut as it is, and not another one that looks like it."""
        normalizer = self._tokenizer.normalizer
        if normalizer is None:
            return True
        found = str(normalizer.normalize_str(text))
        return found.replace(_SPACE, " ").strip() == text.replace(_SPACE, " ").strip()


def marked(starts: NDArray[np.int64], ends: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which of so many places lie in one of the spans."""
    steps = np.bincount(starts, minlength=count + 1) - np.bincount(ends, minlength=count + 1)
    found: NDArray[np.bool_] = np.cumsum(steps)[:count] > 0
    return found


def _without_gaps(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], texts: int
) -> NDArray[np.bool_]:
    """Which texts' tokens leave nothing out between the first of them and the last."""
    kept = np.ones(texts, np.bool_)
    if len(rows):
        gaps = _sums(~marked(starts, ends, int(ends.max())))
        first = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        last = np.append(first[1:], len(rows)) - 1
        kept[rows[first]] = gaps[ends[last]] == gaps[starts[first]]
    return kept


def _untrim(told: Any) -> None:
    """Leave spaces inside the places of tokens: some tokenizers take them out of sight."""
    if isinstance(told, dict):
        if "trim_offsets" in told:
            told["trim_offsets"] = False
        for value in told.values():
            _untrim(value)
    elif isinstance(told, list):
        for value in told:
            _untrim(value)


def _sums(sizes: Any) -> NDArray[np.int64]:
    """0, the first, the first two, ..., all."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
