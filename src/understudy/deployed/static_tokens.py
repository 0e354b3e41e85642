"""Texts to the tokens of a BERT vocabulary, with the standard library alone.

The library `tokenizers` does the same; a static encoder must not need it. A word that was met
before is looked up as a whole, so a text costs about as much as splitting it at its spaces.
"""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError, ModelError

# Words that are kept with their tokens, and how long one may be to be kept.
_KEPT, _WORD = 200_000, 64
_ASCII_MARKS = frozenset(string.punctuation)
# The blocks that BERT writes one by one. The fifth begins where `tokenizers` lets it begin.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieces:
    """BERT's way from a text to token ids: clean, lower, split at marks, longest pieces first.

    It gives what `tokenizers` gives without the tokens that mark the ends, and cuts nothing off.
    Two things may differ: characters that Unicode has had only since 2016, of which that
    library's tables do not know whether they are marks or accents, and half a surrogate pair,
    which it refuses and which is left out here.

    Attributes:
        size: one more than the largest id.

    Example:
        >>> pieces = WordPieces({"[UNK]": 0, "play": 1, "##ing": 2, "!": 3})
        >>> pieces.encode("Playing!")
        [1, 2, 3]
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        *,
        unknown: str = "[UNK]",
        prefix: str = "##",
        longest: int = 100,
        lower: bool = True,
        strip_accents: bool = True,
        ideographs: bool = True,
        special: Mapping[str, int] | None = None,
    ) -> None:
        """Use `WordPieces.read` for a `tokenizer.json`.

        Args:
            vocabulary: the id of every piece.
            unknown: the piece that stands for a word that cannot be put together.
            prefix: what pieces within a word begin with.
            longest: a word of more characters than this is unknown.
            lower: whether words are put in lower case.
            strip_accents: whether accents are left out.
            ideographs: whether Chinese characters are words by themselves.
            special: whole tokens that are looked for in the raw text, by their ids.

        Raises:
            ModelError: the unknown piece is not in the vocabulary.
        """
        if unknown not in vocabulary:
            raise ModelError(
                f"a vocabulary must hold the piece for unknown words, but {unknown!r} is not among "
                f"its {len(vocabulary)}: copy tokenizer.json again"
            )
        marks = dict(special or {})
        self.size = 1 + max(*vocabulary.values(), *marks.values(), 0)
        self._first = dict(vocabulary)
        cut = len(prefix)
        self._inner = {p[cut:]: i for p, i in vocabulary.items() if p.startswith(prefix)}
        self._reach = max(map(len, vocabulary))
        self._unknown, self._longest = (vocabulary[unknown],), longest
        self._lower, self._strip = lower, strip_accents
        self._clean = _Clean(ideographs=ideographs)
        self._special = marks
        ordered = sorted(marks, key=len, reverse=True)
        self._finder = re.compile(f"({'|'.join(map(re.escape, ordered))})") if marks else None
        self._known: dict[str, tuple[int, ...]] = {}

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> "WordPieces":
        """The tokenizer that the content of a `tokenizer.json` describes.

        Raises:
            ModelError: it is not one of BERT's kind, or is damaged.
        """
        try:
            return cls._read(description)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"tokenizer.json must describe a tokenizer, but {error!r} was met: copy it again"
            ) from error

    @classmethod
    def _read(cls, description: Mapping[str, Any]) -> "WordPieces":
        model, normal = description["model"], description["normalizer"] or {}
        kinds = (
            normal.get("type"),
            (description["pre_tokenizer"] or {}).get("type"),
            # Older files leave the type out, and mean the only one that has this entry.
            model.get("type", "WordPiece" if "continuing_subword_prefix" in model else None),
        )
        added = description.get("added_tokens") or []
        plain = not any(
            one["normalized"] or one["lstrip"] or one["rstrip"] or one["single_word"]
            for one in added
        )
        if kinds != ("BertNormalizer", "BertPreTokenizer", "WordPiece") or not (
            plain and normal["clean_text"]
        ):
            raise ModelError(
                "without further libraries only tokenizers of BERT's kind can be read "
                "(BertNormalizer, BertPreTokenizer, WordPiece, plain added tokens), but this one "
                f"is {', '.join(str(kind) for kind in kinds)}: use the ONNX file and `tokenizers`"
            )
        lower = bool(normal["lowercase"])
        strip = normal["strip_accents"]
        return cls(
            {str(piece): int(number) for piece, number in model["vocab"].items()},
            unknown=str(model["unk_token"]),
            prefix=str(model["continuing_subword_prefix"]),
            longest=int(model["max_input_chars_per_word"]),
            lower=lower,
            strip_accents=lower if strip is None else bool(strip),
            ideographs=bool(normal["handle_chinese_chars"]),
            special={str(one["content"]): int(one["id"]) for one in added},
        )

    def encode(self, text: str) -> list[int]:
        """The ids of one text; none where it has no words."""
        if self._finder is not None and self._finder.search(text):
            return self._between(text)
        return self._words(text)

    def flat(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ids of all texts one after the other, and how many each has.

        Raises:
            DataError: it is one text instead of a sequence, or something in it is no text.
        """
        if isinstance(texts, str):
            raise DataError("texts must be a list of texts, but got one text: use `[text]`")
        ids: list[int] = []
        counts = np.empty(len(texts), np.int64)
        before = 0
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"a text must be of type str, but number {place} is of type "
                    f"{type(text).__name__}: convert it, or leave it out"
                )
            ids += self.encode(text)
            counts[place] = len(ids) - before
            before = len(ids)
        return np.array(ids, np.int64), counts

    def _between(self, text: str) -> list[int]:
        assert self._finder is not None
        ids: list[int] = []
        for part in self._finder.split(text):
            mark = self._special.get(part)
            ids += self._words(part) if mark is None else (mark,)
        return ids

    def _words(self, text: str) -> list[int]:
        # What is printable ASCII is clean already, which two fast calls tell.
        if not (text.isascii() and text.isprintable()):
            text = text.translate(self._clean)
        known = self._known
        ids: list[int] = []
        for word in text.split():
            found = known.get(word)
            ids += self._learnt(word) if found is None else found
        return ids

    def _learnt(self, word: str) -> tuple[int, ...]:
        """The pieces of what stands between two spaces."""
        plain = word
        if self._strip:
            plain = unicodedata.normalize("NFD", plain)
            plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        if self._lower:
            # One by one: `str.lower` writes a sigma at the end of a word in its other form.
            plain = "".join(c.lower() for c in plain)
        found = tuple(i for part in _at_marks(plain) for i in self._pieces(part))
        if len(word) <= _WORD:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[word] = found
        return found

    def _pieces(self, word: str) -> tuple[int, ...]:
        if len(word) > self._longest:
            return self._unknown
        ids, start, table = [], 0, self._first
        while start < len(word):
            for end in range(min(len(word), start + self._reach), start, -1):
                number = table.get(word[start:end])
                if number is not None:
                    break
            else:
                return self._unknown
            ids.append(number)
            start, table = end, self._inner
        return tuple(ids)


class _Clean(dict[int, str | None]):
    """What every character becomes before anything else, found when it is first met."""

    def __init__(self, *, ideographs: bool) -> None:
        super().__init__()
        self._ideographs = ideographs

    def __missing__(self, point: int) -> str | None:
        self[point] = self._of(point)
        return self[point]

    def _of(self, point: int) -> str | None:
        letter = chr(point)
        kind = unicodedata.category(letter)
        if letter in "\t\n\r" or kind in ("Zs", "Zl", "Zp"):
            return " "
        if point in (0, 0xFFFD) or kind in ("Cc", "Cf", "Co", "Cs"):
            return None
        if self._ideographs and any(low <= point <= high for low, high in _IDEOGRAPHS):
            return f" {letter} "
        return letter


def _at_marks(word: str) -> list[str]:
    """A word split so that every punctuation mark stands alone."""
    if word.isalnum():
        return [word]
    parts, start = [], 0
    for place, letter in enumerate(word):
        if letter in _ASCII_MARKS or unicodedata.category(letter)[0] == "P":
            parts += [word[start:place], letter]
            start = place + 1
    parts.append(word[start:])
    return [part for part in parts if part]
