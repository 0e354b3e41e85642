"""Shards as files: safetensors whose header carries the checksum of what follows it.

So a shard can say by itself whether it is whole, and a manifest that knows the checksum of the
header knows everything. The format is public: 8 bytes of length, JSON, then the tensors' bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.errors import StoreError

DTYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
# All that we say stands under one key of the header's metadata, as JSON.
KEY = "understudy"

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The first bytes of a shard.

    Attributes:
        size: how many bytes they are, the length in front of them included.
        sha256: of these bytes; they hold the checksum of all others.
        tensors: per tensor its `dtype`, `shape` and `data_offsets`, as safetensors has them.
        says: what the writer said of the shard, `data_sha256` among it.
    """

    size: int
    sha256: str
    tensors: Mapping[str, Mapping[str, Any]]
    says: Mapping[str, Any]


def to_pieces(tensors: Tensors, says: Mapping[str, Any]) -> list[memoryview]:
    """A shard's content in pieces, without a copy of its tensors; equal input, equal bytes."""
    # The widest numbers first, so that every tensor begins where its type wants it.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    arrays = [np.ascontiguousarray(tensors[name]) for name in names]
    digest, entries, end = hashlib.sha256(), {}, 0
    for name, array in zip(names, arrays, strict=True):
        start, end = end, end + array.nbytes
        digest.update(_raw(array))
        dtype = next(code for code, text in DTYPES.items() if np.dtype(text) == array.dtype)
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    told = json.dumps(dict(says) | {"data_sha256": digest.hexdigest()}, sort_keys=True)
    header = json.dumps({"__metadata__": {KEY: told}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    first = len(header).to_bytes(8, "little") + header
    return [memoryview(first), *(_raw(array) for array in arrays)]


def _raw(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def read_header(file: BinaryIO, name: str, size: int) -> Header:
    """The header of an open shard of `size` bytes.

    Raises:
        StoreError: it is none of ours, or the file is shorter than it says.
    """
    first = file.read(8)
    length = int.from_bytes(first, "little")
    try:
        if len(first) < 8 or length > size - 8:
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        content = file.read(length)
        tensors = json.loads(content)
        says = json.loads(tensors.pop("__metadata__")[KEY])
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if says["data_sha256"] and 8 + length + end != size:
            raise ValueError(f"it has {size} bytes instead of {8 + length + end}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{name} is not a whole shard ({error}): label again") from error
    sha256 = hashlib.sha256(first + content).hexdigest()
    return Header(size=8 + length, sha256=sha256, tensors=tensors, says=says)


def open_header(path: Path) -> Header:
    """The header of a shard on a local disk."""
    with path.open("rb") as file:
        return read_header(file, str(path), path.stat().st_size)


def map_tensors(path: Path, header: Header) -> Tensors:
    """Memory maps of every tensor in a shard; their content is not read, no file is held open."""
    # One map per file, and not NumPy's, which would hold a descriptor for each of many shards.
    size = path.stat().st_size
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    return {name: _tensor(whole[header.size :], entry) for name, entry in header.tensors.items()}


def verify(path: Path, header: Header) -> bool:
    """Whether what follows the header is what was written. Reads it all once."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(header.size)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == str(header.says["data_sha256"])


def read_tensor(file: BinaryIO, header: Header, name: str) -> NDArray[Any]:
    """One tensor of an open shard, reading no other: what a store on a network wants."""
    entry = header.tensors[name]
    start, end = entry["data_offsets"]
    file.seek(header.size + start)
    content = np.frombuffer(file.read(end - start), dtype=np.uint8)
    return _tensor(content, {**entry, "data_offsets": [0, end - start]})


def _tensor(content: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    found = content[start:end].view(np.dtype(DTYPES[entry["dtype"]]))
    return found.reshape(tuple(entry["shape"]))
