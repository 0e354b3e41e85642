"""Plain text as rows: a text per line, without labels."""

import zlib
from collections.abc import Sequence
from pathlib import Path

from understudy.data.files import find_file, open_plain_or_gzip
from understudy.data.rows import Rows
from understudy.data.text_files import Columns
from understudy.data.texts import Asked, Empty, text_rows
from understudy.errors import DataError

_COLUMN = "text"


def lines(
    *,
    path: str,
    test_path: str | None = None,
    encoding: str = "utf-8",
    empty: Empty = "drop",
    shortest: int = 1,
) -> Rows:
    """Rows of plain text, one per line. No row has a label.

    Args:
        path: the file, gzipped or not.
        test_path: a file with the source's own test rows.
        encoding: of the files.
        empty: what a line without a text means: `drop` it, as paragraphs are often apart by one,
            or `error`.
        shortest: lines of fewer characters are left out.

    Raises:
        DataError: a file is absent, in another encoding, or holds no such line.
    """

    def columns(file: str, option: str) -> Columns:
        place = find_file(file, option)
        found = [line for line in _read(place, encoding) if not 0 < len(line) < shortest]
        if not any(found):
            raise DataError(f"{place} must hold a text per line, but holds none: correct the path")
        return {_COLUMN: found}

    test = None if test_path is None else columns(test_path, "test_path")
    asked = Asked(texts=(_COLUMN,), empty=empty)
    return text_rows(columns(path, "path"), test, asked)


def _read(place: Path, encoding: str) -> Sequence[str]:
    try:
        with open_plain_or_gzip(place) as file:
            raw = file.read()
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{place} cannot be read ({error}): copy it again") from error
    plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    try:
        text = raw.decode("utf-8-sig" if plain else encoding)
    except (LookupError, UnicodeError) as error:
        raise DataError(
            f"{place} must be {encoding} text, but is not ({error}): say its `encoding`, such as "
            f"`encoding: {'latin-1' if plain else 'utf-8'}`"
        ) from error
    return [line.strip() for line in text.split("\n")]
