"""Whether two tokenizers mean the same by a number."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from understudy.errors import ModelError
from understudy.folders import fingerprint


@runtime_checkable
class Tokenizer(Protocol):
    """A tokenizer that tells its vocabulary; `shared_tokens` calls it once."""

    def get_vocab(self) -> Mapping[str, int]:
        """Every token and its number."""


def shared_tokens(student: Tokenizer, teacher: Tokenizer) -> int:
    """How many leading tokens two tokenizers share.

    One may know more at the end, as padding and added tokens do. Otherwise a number must mean the
    same token to both: distributions are compared number by number.

    Args:
        student: its tokenizer.
        teacher: its tokenizer.

    Raises:
        ModelError: a number means one token to the student and another to the teacher.
    """
    own, theirs = _by_number(student), _by_number(teacher)
    shared = min(max(own, default=-1), max(theirs, default=-1)) + 1
    for number in range(shared):
        if own.get(number) != theirs.get(number):
            raise ModelError(
                "student and teacher must have one tokenizer, but token "
                f"{number} is {own.get(number)!r} to the student and {theirs.get(number)!r} to "
                "the teacher: their distributions cannot be compared token by token; take a "
                "teacher of the student's family, or train on texts that the teacher writes"
            )
    return shared


def vocabulary_mark(tokenizer: Tokenizer) -> str:
    """A fingerprint of what its numbers mean."""
    return fingerprint(sorted(tokenizer.get_vocab().items()))


def _by_number(tokenizer: Tokenizer) -> dict[int, str]:
    return {number: token for token, number in tokenizer.get_vocab().items()}
