"""Files of texts as columns: CSV, TSV, JSON lines and Parquet, gzipped or not."""

import csv
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.data.files import open_plain_or_gzip
from understudy.data.wording import count_rows, examples
from understudy.errors import DataError, MissingExtraError

Columns = Mapping[str, Sequence[Any]]

_TABS = (".tsv", ".tab")
_JSON = (".jsonl", ".ndjson", ".json")
_KINDS = ".csv, .tsv, .txt, .jsonl or .parquet, each but the last gzipped or not"
# Byte order marks that are no UTF-8, and what the files are then.
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_columns(
    path: Path, *, delimiter: str | None = None, quoted: bool = True, encoding: str = "utf-8"
) -> Columns:
    """The columns of a file, by name; what is missing in a row is None.

    Cells of CSV are texts as they stand, of JSON lines and Parquet whatever they are.

    Args:
        path: the file; its ending says what it is.
        delimiter: what separates cells; without it a comma, in `.tsv` a tab.
        quoted: whether quotation marks around a cell are no part of it.
        encoding: of the text.

    Raises:
        DataError: the file is of another kind, damaged, empty, ragged or not in that encoding.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending == ".parquet":
        return _parquet(path)
    if ending not in (".csv", ".txt", *_TABS, *_JSON):
        raise DataError(f"{path} must be a file of texts, {_KINDS}: rename it, or convert it")
    text = decoded(path, encoding)
    if ending in _JSON:
        return _json_lines(path, text)
    mark = delimiter if delimiter is not None else "\t" if ending in _TABS else ","
    return _cells(path, text, mark, quoted=quoted)


def decoded(path: Path, encoding: str) -> str:
    """What a file of text holds, gzipped or not.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        with open_plain_or_gzip(path) as file:
            raw = file.read()
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again") from error
    plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    try:
        return raw.decode("utf-8-sig" if plain else encoding)
    except LookupError as error:
        raise DataError(
            f"`encoding` must be one that Python knows, but got {encoding!r}"
        ) from error
    except UnicodeError as error:
        line = raw[: getattr(error, "start", 0)].count(b"\n") + 1
        other = _MARKS.get(raw[:2], "latin-1" if plain else "utf-8")
        raise DataError(
            f"{path} must be {encoding} text, but line {line} is not ({error}): say its "
            f"`encoding`, such as `encoding: {other}`, or save it as UTF-8"
        ) from error


def _cells(path: Path, text: str, delimiter: str, *, quoted: bool) -> Columns:
    if len(delimiter) != 1:
        raise DataError(f"`delimiter` must be one character, but got {delimiter!r}")
    how: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=how, strict=True
    )
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as a table ({error}, line {reader.line_num}): where quotation "
            "marks are a part of the texts say `quoted: false`"
        ) from error
    if len(rows) < 2:
        raise DataError(f"{path} must hold a line of column names and rows below it")
    names = [cell.strip() for cell in rows[0][1]]
    ragged = [
        f"line {line} ({len(cells)} cells)" for line, cells in rows if len(cells) != len(names)
    ]
    if ragged:
        raise DataError(
            f"every line of {path} must have {len(names)} cells, as its column names have, but "
            f"{count_rows(len(ragged))} differ: {examples(ragged)}; correct `delimiter` "
            f"({delimiter!r}), or say `quoted: false` where quotation marks are a part of the texts"
        )
    columns = zip(*(cells for _, cells in rows[1:]), strict=True)
    return _unique(path, names, [list(column) for column in columns])


def _unique(path: Path, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> Columns:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"column names of {path} must differ, but `{doubled[0]}` stands twice")
    return dict(zip(names, columns, strict=True))


def _json_lines(path: Path, text: str) -> Columns:
    rows: list[dict[str, Any]] = []
    # Not `splitlines`: JSON texts may hold other ends of lines than a line feed.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: every line must be one JSON object, but this one is not "
                f"({error}): write one row per line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number}: every line must be one JSON object, as "
                f'{{"text": "..."}}, but this is {type(row).__name__}'
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{path} must hold at least one row, but holds none")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _parquet(path: Path) -> Columns:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error
    if not table.num_rows:
        raise DataError(f"{path} must hold at least one row, but holds none")
    return {name: table.column(name).to_pylist() for name in table.column_names}
