"""How this room speaks of many rows at once: a count and a few examples, all problems together."""

from collections.abc import Iterable, Sequence
from itertools import islice

from understudy.errors import DataError

LIMIT = 5


def examples(values: Iterable[object]) -> str:
    """The first few values, and whether there are more."""
    first = list(islice(values, LIMIT + 1))
    more = ", ..." if len(first) > LIMIT else ""
    return ", ".join(str(value) for value in first[:LIMIT]) + more


def quoted(values: Iterable[object]) -> str:
    """As `examples`, each in backquotes."""
    return examples(f"`{value}`" for value in values)


def count_rows(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} row{'' if count == 1 else 's'}"


def rows_at(places: Iterable[int]) -> str:
    """`row 3`, `rows 3, 8`: the first few positions from 0 on as people count, from 1."""
    first = list(islice((place + 1 for place in places), LIMIT + 1))
    return f"row{'' if len(first) == 1 else 's'} {examples(first)}"


def raise_problems(head: str, problems: Sequence[str]) -> None:
    """Raise them all in one error; do nothing where there are none.

    Raises:
        DataError: one line per problem.
    """
    if problems:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        raise DataError("\n".join([f"{head}: {count}", *(f"  {problem}" for problem in problems)]))
