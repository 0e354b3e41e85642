"""Written text becomes rows of its words in lower case, with case and punctuation for labels.

Nobody has to label anything: the text itself knows. The quirks of tokenised collections (WikiText,
Penn Treebank) are taken back: marks that stand alone, `@-@`, split contractions, headings.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from understudy.data.files import find_file
from understudy.data.rows import Rows
from understudy.data.text_files import decoded
from understudy.data.words import Sentence, word_rows
from understudy.deployed.restoring import CAPITALIZED, CASES, LOWER, MARKS, UPPER, taken_apart
from understudy.errors import DataError

_HEADING = re.compile(r"^\s*(=+)\s.*\s\1\s*$")
# `@-@`, `@,@` and `@.@` are marks inside a word, with spaces around them that the text has not.
_INSIDE = re.compile(r"\s+@(\S)@\s+")
# Contractions that a tokeniser has cut off: player 's, did n't.
_CUT_OFF = re.compile(r"\s+(n't|'(?:s|t|d|m|ll|re|ve))\b", re.IGNORECASE)
_UNKNOWN = "<unk>"

Word = tuple[str, str, str]


def restoring(
    *,
    path: str,
    test_path: str | None = None,
    words: int = 64,
    least: int = 50,
    marks: list[str] | None = None,
    encoding: str = "utf-8",
) -> Rows:
    """Rows for restoring case and punctuation, from a file of written text with a paragraph a line.

    A row is the beginning of a paragraph: its first words in lower case, without punctuation around
    them. A word's class joins its case (`lower`, `Capitalized`, `UPPER`) and the mark behind it.
    Headings (`= Title =`) and lines without a word are left out; `<unk>` stays as a word without a
    label. A row is a whole paragraph's, so splits never share one.

    Args:
        path: a file of plain text, or several by a pattern with `*`.
        test_path: a file with the source's own test paragraphs.
        words: the most words of a row; what is behind them in its paragraph is left out.
        least: a class with fewer training words than this loses its mark, and if it is still as
            rare its case becomes the next commoner one.
        marks: which marks count, of `, . ? ! ; :`; by default the first three.
        encoding: of the files.

    Raises:
        DataError: a file is absent or in another encoding, a number is too small, a mark is not
            known, or there is no paragraph.
    """
    chosen = tuple(marks) if marks is not None else MARKS[:3]
    if words < 2 or least < 1:
        raise DataError(f"`words >= 2` and `least >= 1` must hold, but got {words=}, {least=}")
    unknown = [mark for mark in chosen if mark not in MARKS]
    if unknown or not chosen:
        raise DataError(
            f"`marks` must be some of {' '.join(MARKS)}, but got {list(chosen)}: others cannot be "
            "written back"
        )
    train = list(_paragraphs(path, "path", words, chosen, encoding))
    test = None
    if test_path is not None:
        test = list(_paragraphs(test_path, "test_path", words, chosen, encoding))
    for part, name in ((train, path), (test, test_path)):
        if part is not None and not part:
            raise DataError(f"{name} must hold paragraphs of text, one per line, but holds none")
    classes = _classes(train, least)
    return word_rows(
        _sentences(train, classes),
        None if test is None else _sentences(test, classes),
        classes=sorted(set(classes.values()), key=_rank),
    )


def joined(line: str) -> str:
    """A line whose words are whole again; nothing of a heading. Marks still stand alone.

    Example:
        >>> joined("The player 's role @-@ playing game , said Ann .")
        "The player's role-playing game , said Ann ."
    """
    if not line.strip() or _HEADING.match(line):
        return ""
    return _CUT_OFF.sub(r"\1", _INSIDE.sub(r"\1", line))


def paragraph(line: str, marks: Sequence[str] = MARKS) -> list[Word]:
    """The words of one line, each in lower case, with its case and its mark; none of a heading.

    Example:
        >>> paragraph("The player 's role @-@ playing game , said Ann .")[:3]
        [('the', 'Capitalized', ''), ("player's", 'lower', ''), ('role-playing', 'lower', '')]
    """
    found: list[Word] = []
    for token in joined(line).split():
        if token.startswith(_UNKNOWN):
            found.append((_UNKNOWN, "", ""))
            continue
        core, case, mark = taken_apart(token, marks)
        if core:
            found.append((core, case, mark))
        elif mark and found and not found[-1][2] and found[-1][1]:
            # A mark that stands alone belongs to the word before it.
            found[-1] = (found[-1][0], found[-1][1], mark)
    return found


def _paragraphs(
    path: str, option: str, most: int, marks: Sequence[str], encoding: str
) -> Iterator[tuple[str, list[Word]]]:
    for file in _files(path, option):
        for number, line in enumerate(decoded(file, encoding).split("\n"), start=1):
            found = paragraph(line, marks)[:most]
            if any(case for _, case, _ in found):
                yield f"{file.name}, line {number}", found


def _files(path: str, option: str) -> list[Path]:
    place = Path(path)
    if "*" in place.name:
        return sorted(place.parent.glob(place.name))
    return [find_file(path, option)]


def _classes(paragraphs: Iterable[tuple[str, list[Word]]], least: int) -> dict[str, str]:
    """What every pair of case and mark is called; a rare one is counted among a commoner one."""
    counts = Counter(case + mark for _, words in paragraphs for _, case, mark in words if case)
    names = {name: name for name in (c + m for c in CASES for m in ("", *MARKS))}
    for case in (UPPER, CAPITALIZED, LOWER):
        for mark in MARKS:
            if counts[case + mark] < least:
                names[case + mark] = case
                counts[case] += counts.pop(case + mark, 0)
    for case, commoner in ((UPPER, CAPITALIZED), (CAPITALIZED, LOWER)):
        if counts[case] < least:
            names = {k: commoner if v == case else v for k, v in names.items()}
            counts[commoner] += counts.pop(case, 0)
    there = {name for name in counts if counts[name]}
    return {k: v for k, v in names.items() if v in there} | {
        k: LOWER for k, v in names.items() if v not in there
    }


def _sentences(
    paragraphs: Sequence[tuple[str, list[Word]]], classes: dict[str, str]
) -> list[Sentence]:
    return [
        Sentence(
            words=tuple(word for word, _, _ in words),
            labels=tuple(classes[case + mark] if case else None for _, case, mark in words),
            source=source,
        )
        for source, words in paragraphs
    ]


def _rank(name: str) -> tuple[int, int]:
    case = next(case for case in CASES if name.startswith(case))
    return CASES.index(case), ("", *MARKS).index(name[len(case) :])
