"""The words of a text, and which token each of them begins with.

Words are what white space separates. A model that classifies words is asked at the first token of
each; a tokenizer says from where to where in the text a token reaches.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]

_WORD = re.compile(r"\S+")


def word_spans(text: str) -> list[Span]:
    """Where the words of a text begin and end, in characters.

    Example:
        >>> word_spans("so it  goes")
        [(0, 2), (3, 5), (7, 11)]
    """
    return [found.span() for found in _WORD.finditer(text)]


def first_tokens(
    text: str, words: Sequence[Span], tokens: Sequence[Span], special: Sequence[int]
) -> NDArray[np.int64]:
    """The first token of each word; -1 of a word that has none, since the text was cut before it.

    A token may begin with the space before its word. One that reaches over several words counts for
    the first of them.

    Args:
        text: the text.
        words: where its words begin and end.
        tokens: where its tokens begin and end, in characters.
        special: 1 for tokens that stand for no text.
    """
    found = np.full(len(words), -1, np.int64)
    word = 0
    for place, ((begin, end), marks) in enumerate(zip(tokens, special, strict=True)):
        if marks:
            continue
        start = begin
        while start < end and text[start].isspace():
            start += 1
        while word < len(words) and words[word][1] <= start:
            word += 1
        if start < end and word < len(words) and found[word] < 0 and start >= words[word][0]:
            found[word] = place
    return found
