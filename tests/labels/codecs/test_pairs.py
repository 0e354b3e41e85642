"""Pairs of gap and weight: back as they were, in the bytes that the codes promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.labels.codecs.pairs import Code, Pairs, best_widths

quickly = settings(max_examples=60, deadline=None)


def some_pairs(seed, *, rows, order, lead, most=12):
    draw = np.random.default_rng(seed)
    counts = draw.integers(0 if lead is None else 1, most, rows)
    gaps = np.floor(np.exp2(draw.uniform(0, 16, counts.sum()))).astype(np.int64) - 1
    if lead is not None:
        first = np.cumsum(counts) - counts
        gaps[first] = draw.integers(0, 2**lead, rows)
    weights = np.floor(np.exp2(draw.uniform(order, 17, counts.sum()))).astype(np.int64)
    return Pairs(gaps=gaps, weights=weights, counts=counts)


@quickly
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 9),
    order=st.integers(0, 3),
    lead=st.sampled_from([None, 1, 17, 20]),
)
def test_pairs_come_back(seed, rows, order, lead):
    pairs = some_pairs(seed, rows=rows, order=order, lead=lead)
    widths = np.random.default_rng(seed).integers(4, 18, rows).astype(np.uint8)
    code = Code(order=order, lead=lead)
    packed = code.pack(pairs, widths)
    again = code.unpack(packed, widths)
    for name in ("gaps", "weights", "counts"):
        assert getattr(again, name).tolist() == getattr(pairs, name).tolist(), name


def test_portions_are_read_as_the_whole():
    pairs = some_pairs(1, rows=11, order=1, lead=None)
    widths = np.full(11, 6, np.uint8)
    code = Code(order=1)
    whole = code.pack(pairs, widths)
    found = [(rows, code.unpack(part, widths[rows])) for rows, part in whole.portions(4)]
    assert [rows for rows, _ in found] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    for name in ("gaps", "weights", "counts"):
        joined = np.concatenate([getattr(part, name) for _, part in found])
        assert joined.tolist() == getattr(pairs, name).tolist()


def test_bytes_are_those_of_the_codes():
    # Gap 5 in width 1: 2 zeros, a one, the bit 1. Weight 6 of order 1: 1 zero, a one, the bits 10.
    pairs = Pairs(gaps=np.array([5]), weights=np.array([6]), counts=np.array([1]))
    packed = Code(order=1).pack(pairs, np.array([1], np.uint8))
    assert packed.unary.tolist() == [1]
    assert packed.body.content.tolist() == [0b10100, 0b101]
    assert packed.body.lengths.tolist() == [2]
    assert packed.body.lengths.dtype == np.uint8


@quickly
@given(seed=st.integers(0, 2**32 - 1), scale=st.integers(0, 16))
def test_no_other_width_takes_fewer_bits(seed, scale):
    draw = np.random.default_rng(seed)
    gaps = np.floor(np.exp2(draw.uniform(0, scale, (5, 7)))).astype(np.int64) - 1
    listed = draw.random((5, 7)) < 0.7
    widths = best_widths(gaps, listed)

    def bits(row, width):
        kept = gaps[row][listed[row]]
        return int((kept >> width).sum()) + int(width) * len(kept)

    for row, width in enumerate(widths):
        assert bits(row, width) == min(bits(row, w) for w in range(20))


@pytest.mark.parametrize(("pairs", "total"), [(64, 2**17 + 2), (50, 50), (500, 2**17), (1, 1)])
def test_the_type_of_unary_bytes_holds_the_worst_case(pairs, total):
    draw = np.random.default_rng(0)
    limit = np.iinfo(Code(order=0).unary_type(pairs, total)).max
    for count in {1, pairs // 2 or 1, pairs}:
        even = np.full(count, total // count)
        wide = np.concatenate([[2**20], np.zeros(count - 1, np.int64)])
        drawn = np.diff(np.sort(draw.choice(2**20, count, replace=False)), prepend=-1) - 1
        for gaps in (wide, drawn):
            shape = (1, count)
            widths = best_widths(gaps.reshape(shape), np.ones(shape, np.bool_))
            row = Pairs(gaps=gaps, weights=even, counts=np.array([count]))
            assert int(Code(order=0).pack(row, widths).unary[0]) <= limit
