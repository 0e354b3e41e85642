"""Texts that a language model learns: documents, and prompts with their completions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from understudy.data.files import find_file, open_plain_or_gzip
from understudy.data.rows import Column, Rows, with_test
from understudy.data.text_files import read_columns
from understudy.data.texts import Asked, text_rows
from understudy.data.wording import count_rows, examples
from understudy.errors import DataError

Divide = Literal["file", "blank_line", "line"]
TEXT: Final = "text"
PROMPT: Final = "prompt"
COMPLETION: Final = "completion"
# A folder's texts; what else lies there is left alone.
_TEXTS = (".txt", ".md", ".text", ".txt.gz")
_NUL = "\0"


def documents(
    *,
    path: str,
    test_path: str | None = None,
    divide: Divide = "file",
    column: str | None = None,
    encoding: str = "utf-8",
) -> Rows:
    """Documents of plain text files, or of a column of a table: one row each, without labels.

    Args:
        path: a file, a folder (its `.txt` and `.md` files, those in folders below it too), or a
            pattern such as `texts/*.txt`. CSV, JSON lines and Parquet with `column`.
        test_path: the source's own test documents, in any of these forms.
        divide: where one document ends and the next begins in a plain file: at its end (`file`), at
            a `blank_line`, or at every `line`.
        column: of a table, where the documents are.
        encoding: of the files.

    Raises:
        DataError: a file is absent, in another encoding or no text, or there is no document.
    """
    rows = _documents(path, "path", divide, column, encoding)
    if test_path is None:
        return rows
    return with_test(rows, _documents(test_path, "test_path", divide, column, encoding, len(rows)))


def completions(
    *,
    path: str,
    prompt: str = PROMPT,
    completion: str = COMPLETION,
    test_path: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Rows:
    """Prompts and their completions from CSV, TSV, JSON lines or Parquet; completions are learned.

    Args:
        path: the file.
        prompt: the column of the prompts.
        completion: the column of the completions.
        test_path: a file with the source's own test rows.
        delimiter: what separates cells; without it a comma, in `.tsv` a tab.
        encoding: of the files.

    Raises:
        DataError: a file is absent or damaged, a column is absent, or a text is empty.
    """
    asked = Asked(texts=(prompt, completion), numbers=True)

    def columns(file: str, option: str) -> Mapping[str, Sequence[Any]]:
        return read_columns(find_file(file, option), delimiter=delimiter, encoding=encoding)

    test = None if test_path is None else columns(test_path, "test_path")
    return text_rows(columns(path, "path"), test, asked)


def from_documents(texts: Sequence[str], *, first_id: int = 0, column: str = TEXT) -> Rows:
    """Rows of a list of documents; blank ones are left out.

    Raises:
        DataError: there is none, or one holds half a character.
    """
    there = [text for text in texts if text.strip()]
    if not there:
        raise DataError(
            f"a source must give at least one document, but {count_rows(len(texts))} hold no text"
        )
    rows = text_rows({column: there}, None, Asked(texts=(column,), numbers=True))
    return replace(rows, ids=rows.ids + first_id, columns=(Column(name=column),))


def named_texts(path: str, option: str) -> list[Path]:
    """The files of a path: one, those of a folder, or what a pattern finds, sorted.

    Raises:
        DataError: there are none.
    """
    place = Path(path).expanduser()
    if "*" in place.name:
        found = sorted(file for file in place.parent.glob(place.name) if file.is_file())
        law = f"`{option}` must name files, but no file is like {place}: correct the pattern"
    elif place.is_dir():
        every = (file for file in place.rglob("*") if file.is_file())
        found = sorted(file for file in every if file.name.lower().endswith(_TEXTS))
        law = (
            f"`{option}` must name a folder of {', '.join(_TEXTS[:2])} files, but {place} has none"
        )
    else:
        return [find_file(path, option)]
    if not found:
        raise DataError(law)
    return found


def _documents(
    path: str,
    option: str,
    divide: Divide,
    column: str | None,
    encoding: str,
    first_id: int = 0,
) -> Rows:
    files = named_texts(path, option)
    if column is not None:
        found: list[str] = []
        for file in files:
            table = read_columns(file, encoding=encoding)
            rows = text_rows(table, None, Asked(texts=(column,), empty="drop", numbers=True))
            found += [row[0] for row in rows.texts or ()]
        return from_documents(found, first_id=first_id, column=column)
    texts = [part for file in files for part in divided(_read(file, encoding), divide)]
    return from_documents(texts, first_id=first_id)


def divided(text: str, divide: Divide) -> list[str]:
    """One file's documents."""
    if divide == "file":
        return [text]
    lines = text.splitlines(keepends=True)
    if divide == "line":
        return [line.rstrip("\r\n") for line in lines]
    parts: list[str] = []
    here: list[str] = []
    for line in [*lines, "\n"]:
        if line.strip():
            here.append(line)
        elif here:
            parts.append("".join(here))
            here = []
    return parts


def _read(path: Path, encoding: str) -> str:
    with open_plain_or_gzip(path) as file:
        content = file.read()
    try:
        text = content.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            f"{path} must be {encoding} text, but cannot be read as that ({error}): name its "
            "`encoding`, or convert the file"
        ) from error
    if _NUL in text:
        raise DataError(
            f"{path} must be text, but holds NUL characters ({examples([text.index(_NUL)])}): it "
            "is a binary file, or in another encoding"
        )
    return text.removeprefix("\ufeff").replace("\r\n", "\n")
