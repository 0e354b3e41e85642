"""Lists of pairs per position: a gap between sorted classes, and how much the class weighs.

Gaps are Rice coded: with a width per position, the high part of a gap in unary and its `width` low
bits as they are. Weights are exponential Golomb codes: how many bits they have in unary, then these
bits. Both unary parts stand in front, pair by pair, in whole bytes; all low bits follow as one
field per pair. So the ends of all runs are found at once, and then every field can be read.

Golomb 1966, "Run-length encodings"; Rice and Plaunt 1971; Teuhola 1978 for the exponential one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.labels.codecs.bits import (
    Integers,
    joined,
    pack_fields,
    pack_unary,
    spread,
    unpack_fields,
    unpack_unary,
)
from understudy.labels.codecs.form import Stream

WIDTH_LIMIT = 31


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Pairs of many positions, joined.

    Attributes:
        gaps: from 0 up, int64 or int32.
        weights: from 2**order up, int64 or int32.
        counts: pairs per position, int64.
    """

    gaps: NDArray[Any]
    weights: NDArray[Any]
    counts: Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """Pairs as bytes.

    Attributes:
        body: the bytes of each position: unary parts, then fields.
        unary: how many of them are unary parts, int64.
    """

    body: Stream
    unary: Integers

    def portions(self, size: int) -> Iterator[tuple[slice, "Packed"]]:
        """Cut into `size` positions at a time: few enough to stay in a processor's cache."""
        if len(self.unary) <= size:
            if len(self.unary):
                yield slice(0, len(self.unary)), self
            return
        ends = np.concatenate([[0], np.cumsum(self.body.lengths, dtype=np.int64)])
        for start in range(0, len(self.unary), size):
            rows = slice(start, min(start + size, len(self.unary)))
            body = Stream(
                content=self.body.content[ends[rows.start] : ends[rows.stop]],
                lengths=self.body.lengths[rows],
            )
            yield rows, Packed(body=body, unary=self.unary[rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """How pairs are written, the same for all positions.

    Attributes:
        order: no weight is below 2**order; each has `order` bits that are not in unary.
        lead: bits of the first gap of a position, which has no unary part; None: as the others.
    """

    order: int
    lead: int | None = None

    def unary_type(self, pairs: int, total: int) -> np.dtype[Any]:
        """The smallest type for the number of unary bytes of a position.

        Args:
            pairs: the most pairs of a position.
            total: the most that its weights sum to.
        """
        # The best width leaves 2 bits of a gap in unary on average; the runs of weights together
        # are longest where all weights are the same.
        counts = np.arange(1, pairs + 1)
        longest = counts * np.log2(np.maximum(total / counts, 1))
        return np.min_scalar_type(int((4 * pairs + longest.max()) / 8) + 1)

    def pack(self, pairs: Pairs, widths: NDArray[Any]) -> Packed:
        """Write pairs, their gaps with `widths` `[positions]` low bits."""
        first = _first(pairs.counts)
        low = self._low(widths.astype(np.int64), pairs.counts, first)
        size = np.frexp(pairs.weights.astype(np.float64))[1].astype(np.int64) - 1
        runs = np.empty(2 * len(low), np.int64)
        runs[0::2], runs[1::2] = pairs.gaps >> low, size - self.order
        unary, sizes = pack_unary(runs, 2 * pairs.counts)
        before = joined(np.cumsum(low + size), pairs.counts)
        lengths = sizes + (np.diff(before) + 7) // 8
        starts = np.cumsum(lengths) - lengths
        content = pack_fields(
            (pairs.gaps & _ones(low)) | ((pairs.weights & _ones(size)) << low),
            _offsets(low + size, pairs.counts, first, starts + sizes),
            int(lengths.sum()),
        )
        content[spread(starts, sizes)] = unary
        kind = np.min_scalar_type(int(lengths.max(initial=0)))
        return Packed(body=Stream(content=content, lengths=lengths.astype(kind)), unary=sizes)

    def unpack(self, packed: Packed, widths: NDArray[Any]) -> Pairs:
        """What `pack` was given, in int32; the body has fewer than 2**28 bytes."""
        content, lengths = packed.body.content, packed.body.lengths
        starts = lengths.cumsum(dtype=np.int64) - lengths
        runs, counts = unpack_unary(content[spread(starts, packed.unary)], packed.unary)
        counts >>= 1
        first = _first(counts)
        low = self._low(widths.astype(np.int32), counts, first)
        size = runs[1::2] + np.int32(self.order)
        offsets = _offsets(low + size, counts, first, starts + packed.unary)
        fields = unpack_fields(content, offsets)
        gaps = runs[0::2] << low
        gaps |= fields.astype(np.int32) & _ones(low)
        fields >>= low
        weights = fields.astype(np.int32) & _ones(size)
        weights |= np.int32(1) << size
        return Pairs(gaps=gaps, weights=weights, counts=counts)

    def _low(self, widths: NDArray[Any], counts: Integers, first: Integers) -> NDArray[Any]:
        low = widths.repeat(counts)
        if self.lead is not None:
            low[first[counts > 0]] = self.lead
        return low


def best_widths(gaps: NDArray[np.int64], listed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The width per position that takes the fewest bits for its gaps.

    Args:
        gaps: `[positions, n]`.
        listed: which of them there are.
    """
    kept = np.where(listed, gaps, 0)
    counts = listed.sum(axis=1)
    best = np.zeros(len(kept), np.uint8)
    fewest = kept.sum(axis=1)
    for width in range(1, min(WIDTH_LIMIT, int(kept.max(initial=0)).bit_length()) + 1):
        bits = (kept >> width).sum(axis=1) + width * counts
        best[bits < fewest] = width
        fewest = np.minimum(fewest, bits)
    return best


def _first(counts: Integers) -> Integers:
    """The place of each row's first pair; of a row that has none, some place that there is."""
    ends = counts.cumsum()
    found: Integers = ends - counts
    return np.minimum(found, max(0, int(ends[-1]) - 1)) if len(ends) else found


def _ones(count: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = count.dtype.type(1) << count
    found -= 1
    return found


def _offsets(
    bits: NDArray[Any], counts: Integers, first: Integers, starts: Integers
) -> NDArray[Any]:
    """Where each field begins, in bits, where those of a row follow each other from its byte on."""
    found = bits.cumsum(dtype=bits.dtype)
    found -= bits
    if len(found):
        found += (8 * starts - found[first]).astype(bits.dtype).repeat(counts)
    return found
