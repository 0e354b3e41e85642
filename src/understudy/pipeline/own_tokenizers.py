"""Somebody's own tokenizer, whatever library it is of, as one of ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy import build
from understudy.data.tokenizers import USUAL_LENGTH, read_tokenizer
from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError
from understudy.recipe import Source, TokenizerSection

_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>")


def own_tokenizer(given: Any, texts: Sequence[str]) -> Tokenizer:
    """A tokenizer from a path, an object of `tokenizers` or `transformers`, or trained on texts.

    Args:
        given: a `tokenizer.json` or a folder; a `Tokenizer` of ours or of the library; what
            `AutoTokenizer.from_pretrained` gives; the fields of `data.tokenizer` as a mapping; None
            trains one with their defaults.
        texts: the training texts.

    Raises:
        DataError: it is none of these, or nothing says how rows are filled up.
        MissingExtraError: tokenizers is not installed.
    """
    if isinstance(given, Tokenizer):
        return given
    if given is None or isinstance(given, Mapping):
        return _trained({} if given is None else given, texts)
    if isinstance(given, str | Path):
        return read_tokenizer(Source().resolve(str(given)))
    inside = getattr(given, "backend_tokenizer", given)
    if not hasattr(inside, "to_str") or not hasattr(inside, "token_to_id"):
        raise DataError(
            "`tokenizer` must be a path, a tokenizer of the library `tokenizers`, a fast one of "
            f"`transformers`, or a mapping such as {{'train': 'bpe'}}, but got "
            f"{type(given).__name__}"
        )
    pad = getattr(given, "pad_token_id", None)
    if pad is None:
        pad = next((p for p in map(inside.token_to_id, _PADS) if p is not None), None)
    if pad is None:
        raise DataError(
            "a tokenizer must say how rows are filled up, but this one has no token for padding: "
            "set its `pad_token`, or add `[PAD]`"
        )
    bound = getattr(given, "model_max_length", None)
    # Libraries write a number of thirty digits where there is no bound.
    length = int(bound) if isinstance(bound, int) and bound < 100_000 else USUAL_LENGTH
    return Tokenizer(inside.to_str(), pad=int(pad), length=length)


def _trained(given: Mapping[str, Any], texts: Sequence[str]) -> Tokenizer:
    try:
        section = TokenizerSection.model_validate(dict(given))
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        raise DataError(f"`tokenizer`{f', {where}' if where else ''}: {found['msg']}") from None
    return build.tokenizer(section, Source(), texts)
