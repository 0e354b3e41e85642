"""How knowledge lies in a shard. Each codec says its error; today there is the exact one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import StoreError

DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
DENSE = "dense-float32"


def encode_dense(values: NDArray[Any]) -> NDArray[np.float32]:
    """`[rows, ...]` as float32, exact for float32 answers."""
    return np.ascontiguousarray(values, dtype=np.float32)


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Memory maps of every tensor in a safetensors file, without reading their content.

    Raises:
        StoreError: the header or the length of the file is not what the format demands.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
    except ValueError as error:
        raise StoreError(
            f"{path} is not a whole safetensors file ({error}): label again"
        ) from error
    # One map for all tensors: each one holds a file open, and stores have many shards.
    content = np.memmap(path, dtype=np.uint8, mode="r")[8 + length :]
    maps: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        if end > len(content):
            raise StoreError(f"{path} is cut off inside `{name}`: label again")
        maps[name] = content[start:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return maps
