"""The source `arrays`: NumPy files; and rows of arrays that other sources have in memory."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from understudy.data.files import find_file, split_key
from understudy.data.rows import Column, Form, Rows, TaskKind, with_test
from understudy.data.targets import Labels, encode_labels, encode_more
from understudy.errors import DataError

Layout = Literal["nhwc", "nchw"]

_DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
_CHANNELS = (1, 3, 4)


def arrays(
    *,
    inputs: str,
    labels: str | None = None,
    test_inputs: str | None = None,
    test_labels: str | None = None,
    ids: str | None = None,
    task: TaskKind | None = None,
    classes: list[str] | None = None,
    layout: Layout | None = None,
) -> Rows:
    """Rows from `.npy` files or `file.npz:key`; an `.npy` file is mapped, not read.

    Args:
        inputs: `[rows, columns]` a table, `[rows, height, width]` grey images, four axes images.
        labels: whole numbers, texts or real targets.
        test_inputs: the source's own test rows.
        test_labels: their labels.
        ids: whole numbers, one per training row, or one per row of both.
        task: what the labels are for, where they could be for both.
        classes: the names of the classes in the order of their numbers.
        layout: where the channels of images are, where their shape leaves that open.

    Raises:
        DataError: a file is absent, damaged, of Python objects, or does not fit the others.
    """
    given = None if labels is None else load_array(labels, "labels")
    train = from_arrays(
        load_array(inputs, "inputs"), given, task=task, classes=classes, layout=layout
    )
    if test_inputs is not None:
        train = add_test(
            train,
            load_array(test_inputs, "test_inputs"),
            None if test_labels is None else load_array(test_labels, "test_labels"),
            layout=layout,
        )
    elif test_labels is not None:
        raise DataError("`test_labels` needs `test_inputs`, but only the labels are given")
    return train if ids is None else _with_ids(train, load_array(ids, "ids"))


def from_arrays(
    inputs: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    task: TaskKind | None = None,
    classes: Sequence[str] | None = None,
    layout: Layout | None = None,
    first_id: int = 0,
) -> Rows:
    """Rows of arrays, as `arrays` reads them from files.

    Raises:
        DataError: the arrays have the wrong shape, type or length.
    """
    raw, form = raw_inputs(inputs, layout=layout)
    columns = tuple(Column(name=f"column {number}") for number in range(raw.shape[1]))
    rows = Rows(
        inputs=raw,
        labels=None,
        ids=np.arange(first_id, first_id + len(raw)),
        form=form,
        classes=None if classes is None else tuple(classes),
        columns=columns if form == "table" else None,
    )
    if labels is None:
        return rows
    same_length(len(raw), len(labels), "inputs", "labels")
    encoded = encode_labels(labels, task=task, classes=classes)
    return replace(rows, labels=encoded.values, classes=encoded.classes)


def add_test(
    train: Rows,
    inputs: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    layout: Layout | None = None,
) -> Rows:
    """The training rows with test rows behind them, their labels in the same classes.

    Raises:
        DataError: the test arrays do not fit the training rows.
    """
    test = from_arrays(inputs, None, layout=layout, first_id=int(train.ids.max(initial=-1)) + 1)
    values = None
    if labels is not None:
        same_length(len(inputs), len(labels), "test_inputs", "test_labels")
        if train.labels is None:
            raise DataError("`test_labels` needs `labels`, but the training rows have none")
        like = Labels(values=train.labels, classes=train.classes)
        values = encode_more(labels, like, what="test_labels")
    return with_test(train, Rows(inputs=test.inputs, labels=values, ids=test.ids, form=test.form))


def load_array(path: str, option: str) -> NDArray[Any]:
    """One array of an `.npy` file or of `file.npz:key`; nothing is unpickled.

    Raises:
        DataError: the file is absent, damaged, holds Python objects, or has no such key.
    """
    name, key = split_key(path)
    file = find_file(name, option)
    try:
        return _load(file, key, option)
    except _DAMAGED as error:
        if "pickle" in str(error).lower() or "Python objects" in str(error):
            raise DataError(
                f"`{option}` must be numbers or texts, but {file} holds Python objects, which are "
                "never loaded: save it with one plain dtype, such as float32"
            ) from error
        raise DataError(f"`{option}`: {file} cannot be read as a NumPy file ({error})") from error


def raw_inputs(inputs: NDArray[Any], *, layout: Layout | None = None) -> tuple[NDArray[Any], Form]:
    """Inputs as `Rows` has them: images with channels last, float32 unless they are uint8.

    Raises:
        DataError: they are not numbers, or of no known shape.
    """
    if inputs.dtype.kind not in "biuf":
        raise DataError(f"`inputs` must be numbers, but got an array of {inputs.dtype}")
    form: Form = "table" if inputs.ndim == 2 else "image"
    if inputs.ndim == 3:
        inputs = inputs[..., None]
    elif inputs.ndim == 4:
        inputs = _channels_last(inputs, layout)
    elif inputs.ndim != 2:
        raise DataError(
            "`inputs` must be [rows, columns], [rows, height, width] or images with four axes, "
            f"but got shape {list(inputs.shape)}"
        )
    if inputs.dtype == np.uint8 and form == "image":
        return inputs, form
    with np.errstate(over="ignore"):  # what becomes infinite is reported by `check_rows`
        return inputs.astype(np.float32, copy=False), form


def same_length(first: int, second: int, name: str, other: str) -> None:
    """Refuse two arrays of different numbers of rows.

    Raises:
        DataError: naming both.
    """
    if first != second:
        raise DataError(
            f"`{name}` and `{other}` must have one entry per row, but got {first} and {second}"
        )


def _channels_last(inputs: NDArray[Any], layout: Layout | None) -> NDArray[Any]:
    last, first = (inputs.shape[axis] in _CHANNELS for axis in (3, 1))
    if layout is None and last == first:
        raise DataError(
            f"images of shape {list(inputs.shape)} may have their channels first or last: "
            "say `layout: nchw` (channels first) or `layout: nhwc` (channels last)"
        )
    if layout == "nchw" or (layout is None and first):
        return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    return inputs


def _load(file: Path, key: str | None, option: str) -> NDArray[Any]:
    with file.open("rb") as start:
        magic = start.read(6)
    if magic == b"\x93NUMPY":
        # Copy-on-write: torch takes the memory as its own, and the file stays as it is.
        return np.asarray(np.load(file, mmap_mode="c", allow_pickle=False))
    if not magic.startswith(b"PK"):
        raise ValueError("it begins as neither .npy nor .npz does")
    # Opened here, since NumPy leaves a damaged archive open.
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
        if key not in archive.files:
            known = " or ".join(f"`{option}: {file}:{name}`" for name in archive.files)
            raise DataError(f"`{option}` must name one array of {file}, but got {key}: {known}")
        return cast(NDArray[Any], archive[key])


def _with_ids(rows: Rows, ids: NDArray[Any]) -> Rows:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(
            f"`ids` must be whole numbers, [rows], but got {ids.dtype} {list(ids.shape)}"
        )
    total = len(rows)
    train = total if rows.test_rows is None else int((~rows.test_rows).sum())
    values = ids.astype(np.int64)
    if len(values) == train and train < total:
        behind = int(values.max(initial=-1)) + 1
        values = np.concatenate([values, np.arange(behind, behind + total - train)])
    same_length(total, len(values), "inputs", "ids")
    return replace(rows, ids=values)
