"""A tokenizer's definition as the library `tokenizers` reads it: what all that read one ask of it.

That library alone, no torch.
"""

import json
from collections.abc import Mapping
from typing import Any

from understudy.errors import DataError, MissingExtraError


def library() -> Any:
    """The library itself.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text") from error
    return tokenizers


def defined(content: str) -> Any:
    """The library's tokenizer of a definition, the JSON text of a `tokenizer.json`.

    Raises:
        DataError: the text is no tokenizer.
        MissingExtraError: tokenizers is not installed.
    """
    known = library()
    try:
        return known.Tokenizer.from_str(content)
    except Exception as error:  # the library's own has no name
        raise DataError(
            f"this is no definition of a tokenizer ({error}): copy its `tokenizer.json` again"
        ) from error


def plain(content: str) -> dict[str, Any]:
    """A definition without how rows are cut and filled up, which whoever reads it says anew."""
    told: dict[str, Any] = json.loads(content)
    return {k: v for k, v in told.items() if k not in ("truncation", "padding", "version")}


def ids(tokenizer: Any) -> int:
    """How many ids there are, those without a token counted: the highest one and 1."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1


def special(tokenizer: Any) -> set[int]:
    """The ids of tokens that stand for no text."""
    added: Mapping[int, Any] = tokenizer.get_added_tokens_decoder()
    return {at for at, token in added.items() if token.special}
