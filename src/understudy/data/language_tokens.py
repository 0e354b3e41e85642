"""Texts as tokens for language models: nothing is lost, and every token knows its bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data import sentence_pieces
from understudy.data.packing import Encoded
from understudy.deployed import definitions
from understudy.deployed.texts import refuse_surrogates
from understudy.errors import DataError

END = "<|endoftext|>"
# What others call the token that ends a text, best first.
_ENDS = (END, "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")
_FILE = "tokenizer.json"
_ABOUT = ("tokenizer_config.json", "special_tokens_map.json", "config.json")
# A document of so many characters at a time: the library takes a hundred bytes for each.
_AT_ONCE = 2_000_000


class Coder:
    """Documents to tokens and back.

    Attributes:
        content: the definition, the JSON text of a `tokenizer.json`.
        end: the token that ends a text.
        begin: the token that begins one, where the tokenizer puts one there.
    """

    def __init__(self, content: str, *, end: int, begin: int | None = None) -> None:
        """Read a definition.

        Args:
            content: the JSON text of a `tokenizer.json`.
            end: the token that ends a text.
            begin: the token that begins one; None where none does.

        Raises:
            DataError: the text is no tokenizer, or it does not know these tokens.
            MissingExtraError: tokenizers is not installed.
        """
        self._tokenizer = definitions.defined(content)
        for name, token in (("end", end), ("begin", begin)):
            if token is not None and self._tokenizer.id_to_token(token) is None:
                raise DataError(f"`{name}` must be a token of the tokenizer, but got {token}")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.content, self.end, self.begin = content, end, begin

    @property
    def vocabulary(self) -> int:
        """The highest token and 1."""
        return definitions.ids(self._tokenizer)

    @property
    def special(self) -> tuple[int, ...]:
        """Tokens that stand for no text, sorted."""
        known = definitions.special(self._tokenizer)
        return tuple(sorted(known | {self.end} | ({self.begin} - {None})))  # type: ignore[operator]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Every text as a document.

        Raises:
            DataError: a text holds half a character.
        """
        return [self._document([part]) for part in self._parts(texts)]

    def encode_pairs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Encoded]:
        """Every prompt and its completion as a document of which the completion is learned.

        Raises:
            DataError: a text holds half a character.
        """
        sides = zip(self._parts(prompts), self._parts(completions), strict=True)
        return [
            self._document([prompt, completion], learned=(0, 1)) for prompt, completion in sides
        ]

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text that is to be continued: begun, and not ended."""
        document = self._document([next(iter(self._parts([text])))])
        return [int(token) for token in document.tokens]

    def decode(self, tokens: Sequence[int] | NDArray[np.int32]) -> str:
        """The text of these tokens, without those that stand for none."""
        return str(self._tokenizer.decode([int(token) for token in tokens]))

    def describe(self) -> dict[str, Any]:
        """Everything it is made of, as plain JSON."""
        return {"content": self.content, "end": self.end, "begin": self.begin}

    def _parts(self, texts: Sequence[str]) -> Iterable[tuple[Any, str]]:
        refuse_surrogates(texts, "document")
        batch: list[str] = []
        size = 0
        for text in texts:
            batch.append(text)
            size += len(text)
            if size > _AT_ONCE:
                yield from self._encoded(batch)
                batch, size = [], 0
        yield from self._encoded(batch)

    def _encoded(self, texts: list[str]) -> Iterable[tuple[Any, str]]:
        return zip(
            self._tokenizer.encode_batch(texts, add_special_tokens=False), texts, strict=True
        )

    def _document(
        self, parts: Sequence[tuple[Any, str]], learned: Sequence[int] | None = None
    ) -> Encoded:
        ids = [np.array(one.ids, np.int32) for one, _ in parts]
        sizes = [bytes_of(one.offsets, text) for one, text in parts]
        which = [np.full(len(own), True) for own in ids]
        if learned is not None:
            which = [np.full(len(own), bool(yes)) for own, yes in zip(ids, learned, strict=True)]
        if self.begin is not None:
            ids.insert(0, np.array([self.begin], np.int32))
            sizes.insert(0, np.zeros(1, np.int32))
            which.insert(0, np.array([False]))
        return Encoded(
            tokens=np.concatenate(ids),
            bytes=np.concatenate(sizes),
            learned=None if learned is None else np.concatenate(which),
        )


def bytes_of(offsets: Sequence[tuple[int, int]], text: str) -> NDArray[np.int32]:
    """How many bytes of a text each token stands for, given where it lies in the text.

    What lies between tokens, such as spaces that a tokenizer drops, counts to the token after it,
    and what lies behind all of them to the last: so bytes sum to the text's, whatever the tokenizer
    does. A character that is split over tokens counts to the first of them.
    """
    if not len(offsets):
        return np.empty(0, np.int32)
    ends = np.maximum.accumulate(np.array(offsets, np.int64)[:, 1])
    ends[-1] = len(text)
    if not text.isascii():
        # UTF-8 takes more bytes for later letters.
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        widths = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
        ends = np.concatenate([[0], np.cumsum(widths)])[ends]
    return np.diff(ends, prepend=0).astype(np.int32)


def train_coder(texts: Iterable[str], *, size: int) -> Coder:
    """A byte-level tokenizer of its own: any text comes back as it was.

    Args:
        texts: to learn from; equal texts in equal order give equal tokenizers.
        size: the most tokens, at least 257: every byte is one, and the end of a text.

    Raises:
        DataError: `size` has no room.
        MissingExtraError: tokenizers is not installed.

    Example:
        >>> coder = train_coder(["to be or not to be"], size=260)
        >>> coder.decode(coder.prompt("to be")), coder.end
        ('to be', 0)
    """
    library = definitions.library()
    if size < 257:
        raise DataError(
            f"`size >= 257` must hold for a tokenizer of bytes, but got {size}: every byte is a "
            "token, and so is the end of a text"
        )
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        min_frequency=2,
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(iter(texts), trainer=trainer)
    told = json.loads(tokenizer.to_str())
    content = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return Coder(content, end=tokenizer.token_to_id(END))


def read_coder(path: Path) -> Coder:
    """The tokenizer of a `tokenizer.json`, or of the folder of a Hugging Face model.

    A folder without one may hold a `vocabulary.json` of pieces and scores in its place.

    Raises:
        DataError: there is none, it is damaged, or nothing says which token ends a text.
        MissingExtraError: tokenizers is not installed.
    """
    library = definitions.library()
    file = path / _FILE if path.is_dir() else path
    if not file.exists() and (path / sentence_pieces.FILE).is_file():
        file = path / sentence_pieces.FILE
    try:
        content = file.read_text(encoding="utf-8")
        if file.name == sentence_pieces.FILE:
            content = sentence_pieces.pieces_definition(content)
        tokenizer = library.Tokenizer.from_str(content)
    except FileNotFoundError as error:
        raise DataError(
            f"a tokenizer must be a `{_FILE}`, but there is no {file}: correct the path, or make "
            f"it with `AutoTokenizer.from_pretrained(...).save_pretrained({str(file.parent)!r})`"
        ) from error
    except DataError:
        raise
    except Exception as error:  # the library's own has no name
        raise DataError(f"{file} cannot be read as a tokenizer ({error}): copy it again") from error
    known: Mapping[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    end = _end(known, [_json(file.parent / name) for name in _ABOUT])
    if end is None:
        raise DataError(
            f"a language model's tokenizer must have a token that ends a text, but {file} has none "
            "that we know, and nothing beside it names one: write `eos_token` into "
            "`tokenizer_config.json`"
        )
    around = tokenizer.encode("", add_special_tokens=True).ids
    begin = int(around[0]) if around and int(around[0]) != end else None
    return Coder(content, end=end, begin=begin)


def _end(known: Mapping[str, int], about: Sequence[Mapping[str, Any]]) -> int | None:
    for told in about:
        named = told.get("eos_token")
        text = named.get("content") if isinstance(named, Mapping) else named
        if isinstance(text, str) and text in known:
            return known[text]
        token = told.get("eos_token_id")
        token = token[0] if isinstance(token, list) and token else token
        if isinstance(token, int) and token in known.values():
            return token
    return next((known[name] for name in _ENDS if name in known), None)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
