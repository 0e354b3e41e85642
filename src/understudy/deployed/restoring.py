"""Case and punctuation as classes of words: how a text is taken apart, and put together again.

A class is a case and the mark behind the word, such as `lower`, `Capitalized,` or `UPPER.`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

LOWER, CAPITALIZED, UPPER = "lower", "Capitalized", "UPPER"
CASES: Final = (LOWER, CAPITALIZED, UPPER)
MARKS: Final = (",", ".", "?", "!", ";", ":")


def restores(classes: Iterable[str]) -> bool:
    """Whether classes are all cases and marks, so that answers can be written as a text."""
    known = {case + mark for case in CASES for mark in ("", *MARKS)}
    return set(classes) <= known


def taken_apart(word: str, marks: Sequence[str] = MARKS) -> tuple[str, str, str]:
    """A word of a written text in lower case without punctuation around it, its case, its mark.

    The mark is the first of `marks` behind the word, or empty. Of punctuation alone nothing is
    left, and the word is empty.

    Example:
        >>> taken_apart('Paris,"')
        ('paris', 'Capitalized', ',')
    """
    start, end = 0, len(word)
    while start < end and not word[start].isalnum():
        start += 1
    while end > start and not word[end - 1].isalnum():
        end -= 1
    core = word[start:end]
    behind = word[end:] if core else word
    mark = next((sign for sign in behind if sign in marks), "")
    letters = [sign for sign in core if sign.isalpha()]
    case = LOWER
    if len(letters) > 1 and all(sign.isupper() for sign in letters):
        case = UPPER
    elif letters and letters[0].isupper():
        case = CAPITALIZED
    return core.lower(), case, mark


def put_together(words: Sequence[str], classes: Sequence[str | None]) -> str:
    """The words as a text, each in the case and with the mark of its class; None leaves it.

    Example:
        >>> put_together(["paris", "is", "far"], ["Capitalized", "lower", "lower."])
        'Paris is far.'
    """
    return " ".join(_written(word, name) for word, name in zip(words, classes, strict=True))


def _written(word: str, name: str | None) -> str:
    if name is None:
        return word
    case = next(case for case in CASES if name.startswith(case))
    mark = name[len(case) :]
    if case == UPPER:
        word = word.upper()
    elif case == CAPITALIZED:
        first = next((at for at, sign in enumerate(word) if sign.isalpha()), 0)
        word = word[:first] + word[first : first + 1].upper() + word[first + 1 :]
    return word if mark and word.endswith(mark) else word + mark
