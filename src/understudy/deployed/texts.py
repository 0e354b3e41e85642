"""Texts become rows of token ids, by the tokenizer that a model's file carries with it.

The library `tokenizers` and NumPy, no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed import definitions
from understudy.deployed.lengths import padded
from understudy.deployed.session import Deployed
from understudy.deployed.words import first_tokens, word_spans
from understudy.errors import DataError

_SHOWN = 5


class Tokenizer:
    """Texts to token ids, cut at a length and filled up at the end.

    Attributes:
        content: its definition, the JSON text of a `tokenizer.json`.
        pad: the id that fills rows up.
        length: the most tokens of a row, with those that mark its ends.
    """

    def __init__(self, content: str, *, pad: int, length: int) -> None:
        """Read a definition.

        Args:
            content: the JSON text of a `tokenizer.json`.
            pad: the id that fills rows up.
            length: the most tokens of a row.

        Raises:
            DataError: the text is no tokenizer, or the length leaves no room for a token.
            MissingExtraError: tokenizers is not installed.
        """
        self._tokenizer = definitions.defined(content)
        marks = self._tokenizer.num_special_tokens_to_add(True)
        if length <= marks:
            raise DataError(
                f"rows must have room for a token beside the {marks} that mark their ends, but "
                f"`max_length` is {length}: raise it"
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length)
        self.content, self.pad, self.length = content, pad, length

    @property
    def vocabulary(self) -> int:
        """How many ids there are, those without a token counted: the highest one and 1."""
        return definitions.ids(self._tokenizer)

    @property
    def special(self) -> tuple[int, ...]:
        """The ids of tokens that stand for no text, sorted: padding, ends, masks."""
        return tuple(sorted({self.pad} | definitions.special(self._tokenizer)))

    @property
    def mask(self) -> int:
        """The id that hides a token: the mask, or what stands for the unknown, or padding."""
        for name in ("[MASK]", "<mask>", "[UNK]", "<unk>"):
            found = self._tokenizer.token_to_id(name)
            if found is not None:
                return int(found)
        return self.pad

    def written(self, token: int) -> str:
        """A token as a text, without what marks that it goes on a word; empty where it has none."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text.removeprefix("##").replace("\u0120", " ").strip()

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[NDArray[np.int32]]:
        """The ids of each text, or of each text and its pair, as many as there are.

        Raises:
            DataError: a text holds half a character, a lone surrogate.
        """
        return [np.array(one.ids, np.int32) for one in self._encodings(texts, pairs)]

    def words(
        self, texts: Sequence[str]
    ) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int64]]]:
        """The ids of each text, and for each of its words the place of its first token.

        The place is -1 where a word has no token: the text was cut, or nothing is left of the word.

        Raises:
            DataError: a text holds half a character, a lone surrogate.
        """
        refuse_surrogates(texts)
        # Not the fast way, which keeps no places in the text.
        found = self._tokenizer.encode_batch(list(texts))
        places = [
            first_tokens(text, word_spans(text), one.offsets, one.special_tokens_mask)
            for text, one in zip(texts, found, strict=True)
        ]
        return [np.array(one.ids, np.int32) for one in found], places

    def cut(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> int:
        """How many of the texts are longer than a row and lose their end."""
        return sum(bool(one.overflowing) for one in self._encodings(texts, pairs))

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.int32]:
        """Rows of ids, `[texts, longest]`, filled up at the end."""
        return padded(self.encode(texts, pairs), pad=self.pad, length=self.length)

    def _encodings(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Any]:
        refuse_surrogates(texts)
        refuse_surrogates(pairs or ())
        fed = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        found: list[Any] = self._tokenizer.encode_batch_fast(fed)
        return found

    def describe(self) -> dict[str, Any]:
        """Everything it is made of, as plain JSON; what the metadata of a file holds."""
        return {"content": self.content, "pad": self.pad, "length": self.length}


def refuse_surrogates(texts: Sequence[str], what: str = "text") -> None:
    """Refuse half characters, which no UTF-8 text holds; files of other encodings leave them.

    Raises:
        DataError: with the places of the first few, counted from 1.
    """
    found = [at + 1 for at, text in enumerate(texts) if _torn(text)]
    if found:
        shown = ", ".join(map(str, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
        raise DataError(
            f"every text must be whole characters, but {len(found)} of {len(texts)} hold lone "
            f"surrogates ({what} {shown}): they were read in another encoding, so read them anew"
        )


def _torn(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two make the same tokens of a text, however each cuts rows and fills them up."""
    sides = [(it.pad, definitions.plain(it.content)) for it in (one, other)]
    return sides[0] == sides[1]


def tokenizer_of(deployed: Deployed) -> Tokenizer:
    """The tokenizer in a file's metadata.

    Raises:
        DataError: the model takes no texts.
        MissingExtraError: tokenizers is not installed.
    """
    told = deployed.metadata.get("tokenizer")
    if not isinstance(told, Mapping):
        raise DataError(
            f"{deployed.path.name} takes {list(deployed.input_shape)} numbers per row and has no "
            "tokenizer, so it cannot be given a text; use a file of rows"
        )
    return Tokenizer(str(told["content"]), pad=int(told["pad"]), length=int(told["length"]))


def text_rows(
    texts: Sequence[str], deployed: Deployed, *, pairs: Sequence[str] | None = None
) -> NDArray[np.int32]:
    """Rows of token ids for a model of texts, `[texts, longest]`.

    Raises:
        DataError: the model takes no texts, or pairs of them, or single ones; or one is empty.
        MissingExtraError: tokenizers is not installed.

    Example:
        >>> deployed = Deployed.open("student.onnx")  # doctest: +SKIP
        >>> deployed.predict(text_rows(["a fine film"], deployed))  # doctest: +SKIP
    """
    tokenizer = tokenizer_of(deployed)
    wanted = len(deployed.columns or ()) or 1
    if wanted != (1 if pairs is None else 2):
        raise DataError(
            f"{deployed.path.name} takes {'pairs of texts' if wanted == 2 else 'single texts'}, "
            f"but got {'single ones' if wanted == 2 else 'pairs'}: give "
            + ("both texts of every pair" if wanted == 2 else "one text per row")
        )
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(
            f"every text must have its pair, but got {len(texts)} texts and {len(pairs)} pairs"
        )
    empty = [at + 1 for at, text in enumerate(texts) if not text.strip()]
    if empty:
        raise DataError(
            f"every text must hold something to read, but {len(empty)} of {len(texts)} are empty "
            f"(the first is number {empty[0]}): leave them out"
        )
    return tokenizer(texts, pairs)
