"""The source `idx`: the files that MNIST and its relatives come in."""

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.array_files import add_test, from_arrays
from understudy.data.files import find_file, open_plain_or_gzip
from understudy.data.rows import Rows
from understudy.errors import DataError

# The third byte of an IDX file says the type; numbers of more bytes are big-endian.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(
    *,
    inputs: str,
    labels: str,
    test_inputs: str | None = None,
    test_labels: str | None = None,
    classes: list[str] | None = None,
) -> Rows:
    """Labelled rows from IDX files, gzipped or not.

    Args:
        inputs: images `[rows, height, width]` or a table `[rows, columns]`.
        labels: class numbers, `[rows]`.
        test_inputs: the source's own test rows.
        test_labels: their labels.
        classes: the names of the classes in the order of their numbers.

    Raises:
        DataError: a file is absent, not IDX, cut short, or does not fit the others.
    """
    train = from_arrays(
        read_idx(find_file(inputs, "inputs")),
        read_idx(find_file(labels, "labels")),
        task="classification",
        classes=classes,
        layout="nhwc",
    )
    if test_inputs is None and test_labels is None:
        return train
    if test_inputs is None or test_labels is None:
        raise DataError("`test_inputs` and `test_labels` belong together, but only one is given")
    return add_test(
        train,
        read_idx(find_file(test_inputs, "test_inputs")),
        read_idx(find_file(test_labels, "test_labels")),
        layout="nhwc",
    )


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, in this machine's byte order.

    Raises:
        DataError: the file does not begin as IDX does, or is cut short or too long.
    """
    try:
        with open_plain_or_gzip(path) as file:
            return _read(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}): fetch it again") from error


def _read(file: gzip.GzipFile | BufferedReader, path: Path) -> NDArray[Any]:
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or start[3] == 0:
        raise DataError(
            "an IDX file begins with two zero bytes, its type (8, 9, 11 to 14) and its number of "
            f"axes, but {path} begins with {list(start)}: is it another format?"
        )
    dtype, axes = np.dtype(_TYPES[start[2]]), start[3]
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise DataError(f"{path} ends inside its IDX header: fetch it again")
    shape = struct.unpack(f">{axes}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    body = file.read()
    if len(body) != expected:
        raise DataError(
            f"{path} must hold {expected} bytes for {' x '.join(map(str, shape))} numbers, but "
            f"holds {len(body)}: it is {'cut short' if len(body) < expected else 'too long'}, "
            "fetch it again"
        )
    flat = np.frombuffer(bytearray(body), dtype)
    return flat.reshape(shape).astype(dtype.newbyteorder("="), copy=False)
