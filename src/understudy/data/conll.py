"""Files with a word and its label per line, and an empty line between texts (as of CoNLL 2003)."""

from collections.abc import Iterator
from pathlib import Path

from understudy.data.files import find_file
from understudy.data.rows import Rows
from understudy.data.text_files import decoded
from understudy.data.texts import Empty
from understudy.data.wording import count_rows, examples
from understudy.data.words import Sentence, word_rows
from understudy.errors import DataError

_DOCUMENT = "-DOCSTART-"


def conll(
    *,
    path: str,
    test_path: str | None = None,
    word: int = 0,
    label: int = -1,
    delimiter: str | None = None,
    classes: list[str] | None = None,
    empty: Empty = "error",
    encoding: str = "utf-8",
) -> Rows:
    """Rows of words with labels, one word per line, columns that white space separates.

    Lines that begin with `-DOCSTART-` or `# ` are no words.

    Args:
        path: the file.
        test_path: a file with the source's own test rows.
        word: the column of the words, counted from 0, or from the end as -1.
        label: the column of the labels.
        delimiter: what separates columns; without it any white space.
        classes: the names of the classes in the order of their numbers.
        empty: what a text without words means.
        encoding: of the files.

    Raises:
        DataError: a file is absent, in another encoding, or has lines without these columns.
    """
    if word == label:
        raise DataError(f"words and labels must be two columns, but both are column {word}")

    def read(file: str, option: str) -> list[Sentence]:
        return list(_sentences(find_file(file, option), word, label, delimiter, encoding))

    test = None if test_path is None else read(test_path, "test_path")
    return word_rows(read(path, "path"), test, classes=classes, empty=empty)


def _sentences(
    file: Path, word: int, label: int, delimiter: str | None, encoding: str
) -> Iterator[Sentence]:
    words: list[str] = []
    labels: list[str] = []
    begun, bad = 1, []
    for number, line in enumerate([*decoded(file, encoding).split("\n"), ""], start=1):
        cells = [cell.strip() for cell in line.split(delimiter)] if line.strip() else []
        if cells and (cells[0] == _DOCUMENT or line.startswith("# ")):
            continue
        if not cells:
            if words:
                source = f"{file.name}, line {begun}"
                yield Sentence(words=tuple(words), labels=tuple(labels), source=source)
            words, labels = [], []
            begun = number + 1
            continue
        least = max(at + 1 if at >= 0 else -at for at in (word, label))
        if len(cells) < max(least, 2) or not cells[word]:
            bad.append(number)
            continue
        words.append(cells[word])
        labels.append(cells[label])
    if bad:
        raise DataError(
            f"every line of {file} must have a word (column {word}) and a label (column {label}), "
            f"but {count_rows(len(bad))} have not: line {examples(bad)}; name the columns with "
            "`word` and `label`, and what separates them with `delimiter`"
        )
