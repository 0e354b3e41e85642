"""Tokenizers that a recipe names by a folder, a file, or a model of the Hugging Face hub."""

import re
from pathlib import Path
from typing import Final

from understudy.recipe import Source, TokenizerSection
from understudy.teachers.hf_model import fetched

_NAME: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")
FILES: Final = (
    "config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""What a tokenizer is read from beside its definition."""
DEFINITIONS: Final = ("tokenizer.json", "vocabulary.json")


def is_hub_name(value: str, place: Source) -> bool:
    """Whether a text can only be a name, `owner/model`: no folder here begins like it."""
    path = value.endswith(".json") or place.resolve(value.partition("/")[0]).exists()
    return _NAME.fullmatch(value) is not None and not path


def tokenizer_home(section: TokenizerSection, place: Source) -> Path:
    """Where the tokenizer that a recipe names lies: its path, or what the hub has of a name.

    Raises:
        ModelError: there is no such name.
        MissingExtraError: a name was given, and transformers is not installed.
    """
    value = section.file or ""
    if not is_hub_name(value, place):
        return place.resolve(value)
    return fetched(value, patterns=(*DEFINITIONS, *FILES))
