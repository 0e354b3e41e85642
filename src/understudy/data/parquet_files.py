"""The source `parquet`: tables, or encoded images in a column, as Hugging Face keeps them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.columns import arrow, ids_of
from understudy.data.decoding import Decoder, Encoded, OnBadRows, asked_size
from understudy.data.files import find_file, split_key
from understudy.data.rows import Rows, TaskKind, with_test
from understudy.data.table import Missing, Wanted, labels_of, table_rows
from understudy.data.targets import Labels
from understudy.errors import DataError, MissingExtraError, did_you_mean

_BATCH = 4096


def parquet(
    *,
    path: str,
    target: str | list[str],
    test_path: str | None = None,
    image: str | None = None,
    task: TaskKind | None = None,
    columns: list[str] | None = None,
    categorical: list[str] | None = None,
    classes: list[str] | str | None = None,
    missing: Missing = "error",
    id_column: str | None = None,
    size: list[int] | None = None,
    grayscale: bool = False,
    on_bad_rows: OnBadRows = "error",
) -> Rows:
    """Rows of Parquet files: a table as the source `csv` reads it, or images.

    Args:
        path: a file, or a pattern such as `data/train-*.parquet`, taken in sorted order.
        target: the column of the labels, or several columns of real targets.
        test_path: the source's own test rows, likewise.
        image: a column of encoded images, as bytes or {bytes, path}; decoded to uint8.
        task: what the labels are for, where they could be for both.
        columns: the columns to learn from; without it all others. Not with `image`.
        categorical: columns that are categories although they are numbers. Not with `image`.
        classes: the names of the classes in the order of their numbers, or a JSON file with
            them (`meta.json`, or `meta.json:key` for a list inside). Without it the names that
            Hugging Face wrote into the file, if it did.
        missing: what an empty cell means. Not with `image`.
        id_column: a column of whole numbers that identify rows.
        size: [height, width] that every image is brought to.
        grayscale: one channel instead of three.
        on_bad_rows: `skip` leaves out images that cannot be decoded.

    Raises:
        DataError: a file is absent or damaged, or its columns are not as asked for.
    """
    files = _files(path, "path")
    test_files = None if test_path is None else _files(test_path, "test_path")
    targets = (target,) if isinstance(target, str) else tuple(target)
    named = _class_names(classes) if classes is not None else _written_names(files[0], targets)
    wanted = Wanted(
        target=targets,
        columns=None if columns is None else tuple(columns),
        categorical=tuple(categorical or ()),
        task=task,
        classes=named,
        missing=missing,
        id_column=id_column,
    )
    if image is None:
        if size is not None or grayscale:
            raise DataError("`size` and `grayscale` need `image`, the column of the images")
        test = None if test_files is None else _table(test_files, None)
        return table_rows(_table(files, None), test, wanted)
    if columns is not None or categorical is not None or missing != "error":
        raise DataError("`columns`, `categorical` and `missing` are for tables, not with `image`")
    decoder = Decoder(size=asked_size(size), grayscale=grayscale, on_bad_rows=on_bad_rows)
    train, like = _image_rows(files, image, wanted, decoder, like=None, first_id=0)
    if test_files is None:
        return train
    behind = max(_count(files), int(train.ids.max(initial=-1)) + 1)
    test_rows, _ = _image_rows(test_files, image, wanted, decoder, like=like, first_id=behind)
    return with_test(train, test_rows)


def _image_rows(
    files: Sequence[Path],
    image: str,
    wanted: Wanted,
    decoder: Decoder,
    *,
    like: Labels | None,
    first_id: int,
) -> tuple[Rows, Labels | None]:
    there = _open(files[0]).schema_arrow.names
    for name in (image, *wanted.target, wanted.id_column):
        if name is not None and name not in there and (like is None or name == image):
            raise DataError(f"{files[0]} has no column `{name}`: {did_you_mean(name, there)}")
    beside = [name for name in (*wanted.target, wanted.id_column) if name and name in there]
    table = _table(files, beside)
    labels = labels_of(table, wanted, like=like)
    paths: list[str | None] = []
    pixels, kept = decoder(
        _encoded(files, image, paths),
        total=_count(files),
        name=lambda at: f"row {at}" + (f" `{paths[at]}`" if paths[at] else ""),
    )
    # A table without columns does not know its length.
    ids = np.arange(first_id, first_id + len(paths))
    if beside:
        ids = ids_of(table, wanted.id_column, first_id=first_id)
    whole = len(paths) > 0 and all(paths)
    rows = Rows(
        inputs=pixels,
        labels=None if labels is None else labels.values[kept],
        ids=ids[kept],
        form="image",
        classes=wanted.classes if labels is None else labels.classes,
        names=tuple(str(paths[at]) for at in kept) if whole else None,
        targets=wanted.target if labels is not None and labels.classes is None else None,
        skipped=len(paths) - len(kept),
    )
    return rows, labels


def _files(path: str, option: str) -> list[Path]:
    if "*" not in path:
        return [find_file(path, option)]
    pattern = Path(path).expanduser()
    found = sorted(item for item in pattern.parent.glob(pattern.name) if item.is_file())
    if not found:
        raise DataError(f"`{option}: {path}` must match at least one file, but matches none")
    return found


def _open(file: Path) -> Any:
    pq = _parquet()
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{file} cannot be read as Parquet ({error})") from error


def _count(files: Sequence[Path]) -> int:
    return sum(int(_open(file).metadata.num_rows) for file in files)


def _table(files: Sequence[Path], columns: list[str] | None) -> Any:
    tables = []
    for file in files:
        try:
            tables.append(_open(file).read(columns=columns))
        except (OSError, ValueError) as error:
            raise DataError(f"{file} is damaged ({error}): fetch it again") from error
        if tables[-1].schema.names != tables[0].schema.names:
            raise DataError(f"{file} must have the columns of {files[0]}, but has others")
    pa, _ = arrow()
    return pa.concat_tables(tables, promote_options="permissive")


def _encoded(files: Sequence[Path], image: str, paths: list[str | None]) -> Iterator[list[Encoded]]:
    """The encoded images in batches; their paths are noted as they come by."""
    for file in files:
        try:
            for batch in _open(file).iter_batches(_BATCH, columns=[image]):
                column, beside = _parts(batch.column(0), image)
                paths += beside
                yield column.to_pylist()
        except (OSError, ValueError) as error:
            raise DataError(f"{file} is damaged ({error}): fetch it again") from error


def _parts(column: Any, image: str) -> tuple[Any, list[str | None]]:
    pa, _ = arrow()
    kind = column.type
    none: list[str | None] = [None] * len(column)
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        named = kind.get_field_index("path") >= 0
        return column.field("bytes"), column.field("path").to_pylist() if named else none
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column, none
    raise DataError(
        f"column `{image}` must hold encoded images, as bytes or {{bytes, path}}, but is of type "
        f"{kind}"
    )


def _class_names(classes: list[str] | str) -> tuple[str, ...]:
    if isinstance(classes, list):
        return tuple(classes)
    path, key = split_key(classes)
    file = find_file(path, "classes")
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"`classes`: {file} cannot be read as JSON ({error})") from error
    if isinstance(names, dict):
        if key not in names:
            ways = " or ".join(f"`classes: {file}:{name}`" for name in names)
            raise DataError(f"`classes` must name one list of {file}, but got {key}: {ways}")
        names = names[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"`classes` must be a list of names, but {classes} is {type(names).__name__}"
        )
    return tuple(names)


def _written_names(file: Path, targets: Sequence[str]) -> tuple[str, ...] | None:
    """The class names that Hugging Face keeps in a file's metadata."""
    written = (_open(file).schema_arrow.metadata or {}).get(b"huggingface", b"")
    try:
        feature = json.loads(written)["info"]["features"][targets[0]]
        return tuple(map(str, feature["names"])) if len(targets) == 1 else None
    except (TypeError, KeyError, ValueError):
        return None


def _parquet() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    return pq
