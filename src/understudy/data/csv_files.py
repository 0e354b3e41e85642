"""The source `csv`: a table of text, gzipped or not."""

import csv as python_csv
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.data.columns import arrow
from understudy.data.files import find_file, open_plain_or_gzip
from understudy.data.rows import Rows, TaskKind
from understudy.data.table import Missing, Wanted, table_rows
from understudy.data.wording import count_rows, examples
from understudy.errors import DataError, MissingExtraError


def csv(
    *,
    path: str,
    target: str | list[str],
    test_path: str | None = None,
    task: TaskKind | None = None,
    columns: list[str] | None = None,
    categorical: list[str] | None = None,
    classes: list[str] | None = None,
    delimiter: str = ",",
    missing: Missing = "error",
    id_column: str | None = None,
    header: list[str] | None = None,
) -> Rows:
    """Rows of a table in UTF-8 text, one line each, under a line of column names.

    A column is of numbers when all its cells are; other columns are categories, coded in the
    sorted order of their texts. A row with an empty target is unlabelled.

    Args:
        path: the file.
        target: the column of the labels, or several columns of real targets.
        test_path: a file with the source's own test rows and the same columns.
        task: what the labels are for, where they could be for both.
        columns: the columns to learn from; without it all others.
        categorical: columns that are categories although they look like numbers.
        classes: the names of the classes in the order of their numbers.
        delimiter: what separates cells.
        missing: what an empty cell means: `error`, `drop` its row, or put in the `median` of the
            training file (the most frequent category).
        id_column: a column of whole numbers that identify rows.
        header: the column names of files that have no such line.

    Raises:
        DataError: the file is absent, damaged or ragged, or its columns are not as asked for.
    """
    if len(delimiter) != 1:
        raise DataError(f"`delimiter` must be one character, but got {delimiter!r}")
    wanted = Wanted(
        target=(target,) if isinstance(target, str) else tuple(target),
        columns=None if columns is None else tuple(columns),
        categorical=tuple(categorical or ()),
        task=task,
        classes=None if classes is None else tuple(classes),
        missing=missing,
        id_column=id_column,
    )
    train = read_csv(find_file(path, "path"), delimiter=delimiter, header=header)
    test = None
    if test_path is not None:
        test = read_csv(find_file(test_path, "test_path"), delimiter=delimiter, header=header)
    return table_rows(train, test, wanted)


def read_csv(path: Path, *, delimiter: str = ",", header: Sequence[str] | None = None) -> Any:
    """The file as a `pyarrow.Table` of texts.

    Raises:
        DataError: it is empty, not UTF-8, damaged, or its lines differ in their number of cells.
    """
    pa, _ = arrow()
    try:
        names, lines = (list(header), 0) if header else _header(path, delimiter)
        table = _read(path, delimiter, len(names), lines)
    except (EOFError, zlib.error, OSError, UnicodeDecodeError, python_csv.Error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text, plain or gzip ({error})") from error
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read as a table ({error})") from error
    if not table.num_rows:
        raise DataError(f"{path} must hold at least one row below its column names, but holds none")
    return table.rename_columns(names)


def _header(path: Path, delimiter: str) -> tuple[list[str], int]:
    with open_plain_or_gzip(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        reader = python_csv.reader(file, delimiter=delimiter)
        for cells in reader:
            if cells:
                return [cell.strip() for cell in cells], reader.line_num
    raise DataError(f"{path} must begin with a line of column names, but is empty")


def _read(path: Path, delimiter: str, count: int, lines: int) -> Any:
    pa, _ = arrow()
    try:
        from pyarrow import csv as arrow_csv
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    ragged: list[tuple[int | None, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    names = [str(number) for number in range(count)]  # unique, whatever the header says
    with open_plain_or_gzip(path) as file:
        table = arrow_csv.read_csv(
            file,
            # One thread, since only that knows the numbers of ragged lines.
            read_options=arrow_csv.ReadOptions(
                column_names=names, skip_rows=lines, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    if ragged:
        shown = examples(f"line {number} ({cells} cells)" for number, cells in ragged)
        raise DataError(
            f"every line of {path} must have {count} cells, as its column names have, but "
            f"{count_rows(len(ragged))} differ: {shown}; quote cells that hold the delimiter "
            f"({delimiter!r}), or correct `delimiter`"
        )
    return table
