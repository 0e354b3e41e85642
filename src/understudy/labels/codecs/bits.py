"""Bits in bytes, for many rows at once: runs in unary, and fields of any width.

No function loops over rows or entries. Bits are numbered from the lowest of a byte upwards
("little"), so that a field is a shift and a mask of the bytes around it, read as one integer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
Numbers = NDArray[np.int32]
"""What is decoded: in half of the memory, which is most of what decoding waits for."""

WIDEST = 49
"""Bits of the widest field: it ends within 8 bytes, counted from the even byte before it."""


def spread(starts: NDArray[Any], lengths: NDArray[Any]) -> Integers:
    """`start, start + 1, ...` of each row, as many numbers as its length, joined."""
    found: Integers = (starts - lengths.cumsum(dtype=np.int64) + lengths).repeat(lengths)
    found += np.arange(len(found))
    return found


def joined(totals: NDArray[Any], counts: NDArray[Any]) -> Integers:
    """What a running total is before each row, where rows have `counts` entries.

    Args:
        totals: the running total after each entry, `[entries]`.
        counts: entries per row, `[rows]`.

    Returns:
        `[rows + 1]`: before each row, and after all of them.
    """
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    found: Integers = np.concatenate([[0], totals])[ends]
    return found


def pack_unary(runs: NDArray[Any], counts: NDArray[Any]) -> tuple[Bytes, Integers]:
    """Numbers in unary: each as many zeros, then a one. A row begins with a byte of its own.

    Args:
        runs: numbers from 0 up, row after row.
        counts: numbers per row; they sum to `len(runs)`.

    Returns:
        The bytes of all rows, and bytes per row.
    """
    ends = np.cumsum(runs, dtype=np.int64) + np.arange(1, len(runs) + 1)
    before = joined(ends, counts)
    sizes = (np.diff(before) + 7) // 8
    starts = 8 * (np.cumsum(sizes) - sizes)
    flags = np.zeros(8 * int(sizes.sum()), np.uint8)
    flags[ends - 1 + np.repeat(starts - before[:-1], counts)] = 1
    return np.packbits(flags, bitorder="little"), sizes


def unpack_unary(content: Bytes, sizes: NDArray[Any]) -> tuple[Numbers, Integers]:
    """What `pack_unary` was given: the numbers, and how many each row has.

    Args:
        content: the bytes of all rows, fewer than 2**28.
        sizes: bytes per row.
    """
    ones = np.flatnonzero(np.unpackbits(content, bitorder="little").view(np.bool_))
    ends = 8 * sizes.cumsum(dtype=np.int64)
    last = ones.searchsorted(ends)
    counts = last.copy()
    counts[1:] -= last[:-1]
    runs = np.empty(len(ones), np.int32)
    np.subtract(ones[1:], ones[:-1], out=runs[1:], casting="same_kind")
    runs -= 1
    # The first number of a row is counted from where the row begins.
    some = counts > 0
    first = (last - counts)[some]
    runs[first] = ones[first] - (ends - 8 * sizes)[some]
    return runs, counts


def pack_fields(fields: Integers, offsets: Integers, size: int) -> Bytes:
    """Write numbers into `size` bytes, each with its lowest bit at its offset.

    Args:
        fields: numbers from 0 up, of `WIDEST` bits at most.
        offsets: in bits; what the numbers take must not overlap.
        size: bytes.
    """
    first = offsets >> 3
    moved = fields.astype(np.uint64) << (offsets & 7).astype(np.uint64)
    # An empty field may begin after the last byte.
    sums = np.zeros(size + 9)
    # Bits do not overlap, so that the sum of the bytes is what they are together.
    for byte in range(8):
        part = (moved >> np.uint64(8 * byte)) & np.uint64(255)
        sums += np.bincount(first + byte, weights=part, minlength=size + 9)
    return sums[:size].astype(np.uint8)


def unpack_fields(content: Bytes, offsets: NDArray[Any]) -> Integers:
    """What stands from each offset (in bits) on: `WIDEST` bits or more, to be masked."""
    padded = np.zeros(len(content) + 10, np.uint8)
    padded[: len(content)] = content
    # The 8 bytes from each second byte on, as one integer; to read them at every offset would cost
    # more, and so would those from each byte on.
    windows = np.ndarray((len(content) // 2 + 1,), "<u8", padded, strides=(2,)).astype(np.int64)
    found: Integers = windows.take(offsets >> 4)
    found >>= offsets & 15
    return found
