"""Sentences to the token ids that an encoder was trained on, through the library `tokenizers`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from understudy.data.sentences import token_rows
from understudy.errors import MissingExtraError, ModelError

_DESCRIPTION = ("tokenizer_config.json", "special_tokens_map.json")


class SentenceTokenizer:
    """Sentences to the token ids that an encoder was trained on.

    Attributes:
        length: the most tokens that a sentence keeps, with those that mark its ends.
        pad: the id that fills rows up.
        description: the JSON files that tell other libraries about the tokenizer, by name.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        length: int,
        pad: int,
        lower: bool = False,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        """Use `read_tokenizer`.

        Args:
            tokenizer: of the library `tokenizers`; it is set to truncate and not to pad.
            length: the most tokens of a sentence.
            pad: the id that fills rows up.
            lower: whether sentences are put in lower case before.
            description: what is written beside it.
        """
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        self.length, self.pad = length, pad
        self.description: Mapping[str, Any] = dict(description or {})
        self._tokenizer, self._lower = tokenizer, lower

    def cut_at(self, length: int) -> "SentenceTokenizer":
        """The same tokenizer with rows of at most so many tokens."""
        return SentenceTokenizer(
            self._tokenizer,
            length=min(length, self.length),
            pad=self.pad,
            lower=self._lower,
            description=self.description,
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, as many as it has."""
        plain = [text.strip() for text in texts]
        if self._lower:
            plain = [text.lower() for text in plain]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(plain)]

    def __call__(self, texts: Sequence[str], *, length: int | None = None) -> NDArray[np.int64]:
        """Padded rows `[rows, longest]`, cut at `length` tokens where that is given."""
        return token_rows(self.encode(texts), pad=self.pad, length=length)

    def files(self) -> dict[str, Any]:
        """What describes it on disk, by file name."""
        return {**self.description, "tokenizer.json": json.loads(self._tokenizer.to_str())}

    @property
    def lower(self) -> bool:
        """Whether sentences are put in lower case before."""
        return self._lower


def read_tokenizer(home: Path) -> SentenceTokenizer:
    """The tokenizer in a transformer's folder.

    Raises:
        ModelError: `tokenizer.json` is missing or damaged, or nothing names a token for padding.
        MissingExtraError: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError("tokenizers", "hf") from error
    path = home / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"an encoder needs its `tokenizer.json`, but {home} has none: make it with "
            f"`AutoTokenizer.from_pretrained({str(home)!r}).save_pretrained(...)`"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library's own has no name
        raise ModelError(
            f"{path} cannot be read as a tokenizer ({error}): copy it again"
        ) from error
    about = {n: read_file(home / n) for n in _DESCRIPTION if (home / n).is_file()}
    config, limits = read_file(home / "config.json"), _limits(home)
    bounds = (
        limits.get("max_seq_length"),
        about.get("tokenizer_config.json", {}).get("model_max_length"),
        config.get("max_position_embeddings"),
    )
    return SentenceTokenizer(
        tokenizer,
        length=int(next(bound for bound in (*bounds, 512) if bound)),
        pad=_pad_of(tokenizer, about, config, path),
        lower=bool(limits.get("do_lower_case")),
        description=about,
    )


def _limits(home: Path) -> Mapping[str, Any]:
    path = home / "sentence_bert_config.json"
    return cast(Mapping[str, Any], read_file(path)) if path.is_file() else {}


def _pad_of(tokenizer: Any, about: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> int:
    named = about.get("tokenizer_config.json", {}).get("pad_token")
    text = named.get("content") if isinstance(named, Mapping) else named
    known = None if text is None else tokenizer.token_to_id(text)
    known = config.get("pad_token_id") if known is None else known
    if known is None:
        raise ModelError(
            f"an encoder must know how rows are filled up, but neither {path} nor the "
            "configuration beside it names a `pad_token`: write one into `tokenizer_config.json`"
        )
    return int(known)


def read_file(path: Path) -> Any:
    """What a JSON file of a model's folder says.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): copy the folder again") from error
