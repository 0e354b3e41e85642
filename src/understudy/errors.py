"""Errors that a user can fix: the command line prints them without a traceback and exits with 2.

Every message gives the law, the values and the remedy. What is raised here is never a defect of
Understudy; those stay ordinary exceptions and keep their traceback.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class UnderstudyError(Exception):
    """Something the user can fix."""


class DataError(UnderstudyError):
    """The rows, their labels or their splits cannot be used as they are."""


class ModelError(UnderstudyError):
    """A teacher or a student does not fit: its weights, its answer, its width."""


class TrainingError(UnderstudyError):
    """Training cannot go on: a loss that is not finite, a term that does nothing."""


class DivergedError(TrainingError):
    """A loss is not finite, which another learning rate or weight may mend."""


class StoreError(UnderstudyError):
    """A label store is damaged, or was made for something else."""


class RunError(UnderstudyError):
    """A run folder cannot be used: held by another process, unfinished, not writable."""


class ExportError(UnderstudyError):
    """A model cannot be exported, or its exported form does not answer as it does."""


class MissingExtraError(UnderstudyError):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"this needs the library `{library}`, which is not installed: "
            f'pip install "understudy[{extra}]"'
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One mistake in a recipe.

    Attributes:
        path: where in the recipe, as keys and list positions.
        law: what must hold, the value that was given and the remedy, as one sentence.
        line: 1-based line in the file, where it is known.
    """

    path: tuple[str | int, ...]
    law: str
    line: int | None = None

    def __str__(self) -> str:
        where = dotted(self.path) or "recipe"
        line = f"line {self.line}: " if self.line is not None else ""
        return f"{line}{where}: {self.law}"


class RecipeError(UnderstudyError):
    """Every mistake of one recipe, at once."""

    def __init__(self, mistakes: Iterable[Mistake], source: str = "recipe") -> None:
        self.mistakes = sorted(mistakes, key=lambda m: (m.line is None, m.line or 0))
        self.source = source
        count = len(self.mistakes)
        head = f"{source}: {count} mistake{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {mistake}" for mistake in self.mistakes)]))


def dotted(path: Sequence[str | int]) -> str:
    """`("steps", 0, "kind")` as `steps[0].kind`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt word, and the words there are."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"{hint}known: {', '.join(names) or 'none'}"
