"""Files of texts become rows of token ids: a text per line, or the model's own columns."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed.session import Deployed
from understudy.deployed.texts import text_rows
from understudy.errors import DataError, did_you_mean

_KINDS = ".txt (a text per line), .csv, .tsv or .jsonl"


def read_texts(files: Sequence[Path], deployed: Deployed) -> tuple[NDArray[np.int32], list[str]]:
    """The texts in files as rows of token ids, and a name for each.

    Raises:
        DataError: a file is missing, of another kind, not UTF-8, or has not the model's columns.
        MissingExtraError: tokenizers is not installed.
    """
    found, names = texts_in(files, deployed)
    first = [row[0] for row in found]
    second = [row[1] for row in found] if len(deployed.columns or ()) > 1 else None
    return text_rows(first, deployed, pairs=second), names


def texts_in(files: Sequence[Path], deployed: Deployed) -> tuple[list[tuple[str, ...]], list[str]]:
    """The texts in files, one or two per row as the model takes them, and a name for each row.

    Raises:
        DataError: a file is missing, of another kind, not UTF-8, or has not the model's columns.
    """
    columns = [str(column["name"]) for column in deployed.columns or ()] or ["text"]
    found: list[tuple[str, ...]] = []
    names: list[str] = []
    for file in files:
        own = _read(file, columns)
        found += own
        names += [f"{file.name}:{number}" for number in range(1, len(own) + 1)]
    if not found:
        raise DataError(f"there must be a text to read, but {files[0]} holds none")
    return found, names


def _read(file: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    suffix = file.suffix.lower()
    if file.is_dir():
        raise DataError(
            f"{file} is a folder, but a model of texts reads files: name those in it; known: "
            f"{_KINDS}"
        )
    if not file.is_file():
        raise DataError(f"there is no file {file}; give one of: {_KINDS}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise DataError(f"{file} must be UTF-8 text ({error}): save it as UTF-8") from error
    if suffix == ".txt":
        return _lines(file, text, columns)
    if suffix in (".csv", ".tsv"):
        return _table(file, text, columns, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".ndjson"):
        return [_object(file, at, line, columns) for at, line in _numbered(text)]
    raise DataError(f"{file} is of a kind that a model of texts cannot read; give one of: {_KINDS}")


def _numbered(text: str) -> list[tuple[int, str]]:
    return [(at, line) for at, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _lines(file: Path, text: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    rows = []
    for at, line in _numbered(text):
        parts = tuple(line.rstrip("\r").split("\t")) if len(columns) > 1 else (line.rstrip("\r"),)
        if len(parts) != len(columns):
            raise DataError(
                f"{file}, line {at}: this model takes two texts, with a tab between them, but the "
                f"line has {len(parts)}"
            )
        rows.append(parts)
    return rows


def _table(file: Path, text: str, columns: Sequence[str], delimiter: str) -> list[tuple[str, ...]]:
    try:
        lines = [cells for cells in csv.reader(text.splitlines(True), delimiter=delimiter) if cells]
    except csv.Error as error:
        raise DataError(f"{file} cannot be read as a table ({error})") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    places = [_place(header, name, file) for name in columns]
    short = [at for at, cells in enumerate(lines[1:], start=1) if len(cells) <= max(places)]
    if short:
        raise DataError(
            f"{file}: every row must have {len(header)} cells as the first line has, but row "
            f"{short[0]} has {len(lines[short[0]])}: put quotes around a text that contains "
            "the delimiter"
        )
    return [tuple(cells[at] for at in places) for cells in lines[1:]]


def _place(header: list[str], name: str, file: Path) -> int:
    if name not in header:
        raise DataError(
            f"{file} must have the column `{name}`, which the model was trained on; "
            f"{did_you_mean(name, header)}"
        )
    return header.index(name)


def _object(file: Path, at: int, line: str, columns: Sequence[str]) -> tuple[str, ...]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{file}, line {at}: this is no JSON object ({error})") from error
    found = tuple(row.get(name) if isinstance(row, dict) else None for name in columns)
    for name, value in zip(columns, found, strict=True):
        if not isinstance(value, str):
            raise DataError(f"{file}, line {at}: there must be a text under `{name}`")
    return tuple(str(value) for value in found)
