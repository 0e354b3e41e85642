"""Files become raw rows, in the form that an exported model takes."""

import csv
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed.images import IMAGES, read_image
from understudy.deployed.session import Deployed
from understudy.deployed.text_files import read_texts
from understudy.errors import DataError, did_you_mean


def load_rows(files: Sequence[Path], deployed: Deployed) -> tuple[NDArray[Any], list[str]]:
    """The raw rows in files, `[rows, ...]`, and a name for each.

    Takes `.npy`, `.npz` (with a key, as in `rows.npz:images`, where it holds several arrays),
    `.csv` and `.tsv` with the model's columns in any order, pictures, and folders of pictures. A
    model of texts takes `.txt` with a text per line, and `.csv`, `.tsv` and `.jsonl` with its
    columns.

    Raises:
        DataError: a file is missing, of another kind, damaged, or not what the model takes.
        MissingExtraError: there are pictures, and Pillow is not installed.
    """
    if not files:
        raise DataError(f"there must be a file to read; give one of: {_kinds()}")
    parts, names = [], []
    if "tokenizer" in deployed.metadata:
        return read_texts(files, deployed)
    shape = deployed.input_shape
    for file in files:
        rows, own = _read(file, deployed)
        # Grey pictures are stored without their one channel as often as with it.
        if rows.ndim == len(shape) and len(shape) == 3 and shape[-1] == 1:
            rows = rows[..., None]
        parts.append(rows)
        names.extend(own)
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(f"{f.name} {list(p.shape)}" for f, p in zip(files, parts, strict=True))
        raise DataError(f"rows of all files must have one shape, but got {shapes}; split the call")
    return np.concatenate(parts), names


def _read(file: Path, deployed: Deployed) -> tuple[NDArray[Any], list[str]]:
    suffix = file.suffix.lower()
    if file.is_dir() and len(deployed.input_shape) != 3:
        raise DataError(
            f"{file} is a folder, which is for pictures, but this model takes "
            f"{'a table' if deployed.columns else 'arrays'}: name a file in it; known: .npy, "
            ".npz:KEY, .csv, .tsv"
        )
    if file.is_dir():
        found = sorted(path for path in file.rglob("*") if path.suffix.lower() in IMAGES)
        if not found:
            raise DataError(f"the folder {file} has no pictures; known: {', '.join(IMAGES)}")
        return np.stack([read_image(path, deployed) for path in found]), [
            path.relative_to(file).as_posix() for path in found
        ]
    if suffix in (".npy", ".npz") or ".npz:" in file.name:
        rows = _array(file)
        rows = rows[np.newaxis] if rows.ndim == len(deployed.input_shape) else rows
        return rows, _numbered(file, len(rows))
    if not file.is_file():
        raise DataError(f"there is no file {file}; give one of: {_kinds()}")
    if suffix in (".csv", ".tsv"):
        rows = _table(file, deployed.columns)
        return rows, _numbered(file, len(rows))
    if suffix in IMAGES:
        return read_image(file, deployed)[np.newaxis], [file.name]
    raise DataError(f"{file} is of a kind that cannot be read; give one of: {_kinds()}")


def _kinds() -> str:
    return f".npy, .npz:KEY, .csv, .tsv, {', '.join(IMAGES)}, or a folder of pictures"


def _numbered(file: Path, count: int) -> list[str]:
    return [f"{file.name}:{number}" for number in range(1, count + 1)]


def _array(file: Path) -> NDArray[Any]:
    name, colon, key = file.name.partition(".npz:")
    path = file.with_name(f"{name}.npz") if colon else file
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            keys = loaded.files
            if not colon and len(keys) == 1:
                key = keys[0]
            if key in keys:
                return np.asarray(loaded[key])
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; give one of: {_kinds()}") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as an array ({error}); write it with `numpy.save`"
        ) from error
    raise DataError(
        f"{path} has the arrays {', '.join(keys)}; name one, as in `{path.name}:{keys[0]}`"
        if keys
        else f"{path} holds no array; write it with `numpy.savez`"
    )


def _table(file: Path, columns: Sequence[Mapping[str, Any]] | None) -> NDArray[np.float32]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            lines = [
                (reader.line_num, cells)
                for reader in [csv.reader(text, delimiter=delimiter, skipinitialspace=True)]
                for cells in reader
                if cells
            ]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}); save it as UTF-8") from error
    if not lines:
        raise DataError(f"{file} is empty; its first line must name the columns")
    header = [cell.strip() for cell in lines[0][1]]
    wanted = columns or [{"name": name, "categories": None} for name in header]
    cells = [
        _Cells(file=file, at=_position(header, str(c["name"]), file), column=c) for c in wanted
    ]
    rows = np.empty((len(lines) - 1, len(wanted)), np.float32)
    for row, (line, texts) in zip(rows, lines[1:], strict=True):
        if len(texts) != len(header):
            raise DataError(
                f"{file}, line {line}: every line must have {len(header)} cells as the first one, "
                f"but this has {len(texts)}; put quotes around a cell that contains the delimiter"
            )
        row[:] = [cell(texts, line) for cell in cells]
    return rows


def _position(header: list[str], name: str, file: Path) -> int:
    if name not in header:
        raise DataError(
            f"{file} must have the column `{name}`, which the model was trained on; "
            f"{did_you_mean(name, header)}"
        )
    return header.index(name)


class _Cells:
    """Reads one column's cells: numbers as they are, categories as the codes of training."""

    def __init__(self, *, file: Path, at: int, column: Mapping[str, Any]) -> None:
        self._file, self._at, self._name = file, at, column["name"]
        categories = column.get("categories")
        self._codes = (
            None
            if categories is None
            else {str(category).strip(): float(code) for code, category in enumerate(categories)}
        )

    def __call__(self, texts: Sequence[str], line: int) -> float:
        text = texts[self._at].strip()
        where = f"{self._file}, line {line}, column `{self._name}`"
        if self._codes is not None:
            if text not in self._codes:
                raise DataError(
                    f"{where}: the model must have met every category while training, but got "
                    f"`{text}`; {did_you_mean(text, self._codes)}"
                )
            return self._codes[text]
        try:
            number = float(text)
        except ValueError:
            number = nan
        if not isfinite(number):
            raise DataError(
                f"{where}: there must be a number in every cell, but got `{text}`; "
                "fill it in, or leave the line out"
            )
        return number
