"""Pairs of texts with people's scores, from columns by name or by number."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.files import find_file
from understudy.data.sentences import SentencePairs
from understudy.data.text_files import read_columns
from understudy.errors import DataError, did_you_mean

FEWEST = 3


def read_pairs(
    path: str,
    *,
    first: str | int,
    second: str | int,
    score: str | int,
    delimiter: str | None = None,
    quoted: bool = True,
    encoding: str = "utf-8",
) -> SentencePairs:
    """The pairs of a file.

    Args:
        path: CSV, TSV, JSON lines or Parquet, as its ending says. With numbers for columns it is
            cells apart by `delimiter` (a tab), nothing is quoted, and the first line is a pair.
        first: the column of one text of each pair, by name, or by number from 1.
        second: of the other.
        score: of how alike people found them; larger is more alike.
        delimiter: what separates cells.
        quoted: whether quotation marks around a cell are no part of it.
        encoding: of the file.

    Raises:
        DataError: the file or a column is absent, a text is empty, a score is no number, or there
            are fewer than three pairs or no two scores.

    Example:
        >>> read_pairs("stsb/sts-test.csv", first=6, second=7, score=5)  # doctest: +SKIP
    """
    place = find_file(path, "path")
    wanted = (first, second, score)
    if isinstance(first, int):
        columns = _by_number(place, [int(at) for at in wanted], delimiter or "\t", encoding)
    else:
        found = read_columns(place, delimiter=delimiter, quoted=quoted, encoding=encoding)
        absent = [name for name in wanted if name not in found]
        if absent:
            raise DataError(
                f"{place}: column `{absent[0]}` of the pairs is not there: "
                f"{did_you_mean(str(absent[0]), found)}"
            )
        columns = [list(found[str(name)]) for name in wanted]
    texts = [_texts(place, column) for column in columns[:2]]
    scores = np.array([_number(place, at + 1, value) for at, value in enumerate(columns[2])])
    if len(scores) < FEWEST or len(np.unique(scores)) < 2:
        raise DataError(
            f"{place}: a rank correlation needs {FEWEST} pairs and two different scores, but got "
            f"{len(scores)} pairs and {len(np.unique(scores))} scores"
        )
    return SentencePairs(first=texts[0], second=texts[1], scores=scores)


def _by_number(
    place: Path, wanted: Sequence[int], delimiter: str, encoding: str
) -> list[list[Any]]:
    try:
        text = place.read_text(encoding=encoding)
    except (LookupError, UnicodeError) as error:
        raise DataError(f"{place} must be {encoding} text, but is not: {error}") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split(delimiter)
        if len(cells) < max(wanted):
            raise DataError(
                f"{place}, line {number}: column {max(wanted)} of the pairs is not there, the line "
                f"has {len(cells)}: correct the numbers, or `delimiter` ({delimiter!r})"
            )
        rows.append([cells[at - 1] for at in wanted])
    return [list(column) for column in zip(*rows, strict=True)] or [[], [], []]


def _texts(place: Path, column: Sequence[Any]) -> tuple[str, ...]:
    found = []
    for at, value in enumerate(column):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{place}: both texts of a pair must hold something to read, but one of pair "
                f"{at + 1} is {value!r}: leave the pair out"
            )
        found.append(value.strip())
    return tuple(found)


def _number(place: Path, pair: int, value: Any) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise DataError(
            f"{place}: the score of pair {pair} must be a number, but is {value!r}: correct it, or "
            "name another column"
        )
    return score
