"""Bits in bytes: every small case there is, then random ones."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.labels.codecs.bits import (
    WIDEST,
    joined,
    pack_fields,
    pack_unary,
    spread,
    unpack_fields,
    unpack_unary,
)

quickly = settings(max_examples=60, deadline=None)


def plain_unary(rows):
    """The same bytes, bit by bit."""
    content, sizes = [], []
    for row in rows:
        bits = [bit for run in row for bit in [0] * run + [1]]
        bits += [0] * (-len(bits) % 8)
        sizes.append(len(bits) // 8)
        eights = [bits[start : start + 8] for start in range(0, len(bits), 8)]
        content += [sum(bit << i for i, bit in enumerate(eight)) for eight in eights]
    return content, sizes


def flat(rows):
    return np.array([run for row in rows for run in row], np.int64)


def test_spread_counts_on_from_each_start():
    assert spread(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert spread(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_joined_is_the_total_before_each_row():
    assert joined(np.array([1, 3, 6]), np.array([0, 2, 1])).tolist() == [0, 0, 3, 6]


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_every_short_row_of_small_runs(length):
    rows = list(product(range(10), repeat=length))
    content, sizes = pack_unary(flat(rows), np.full(len(rows), length))
    assert (content.tolist(), sizes.tolist()) == plain_unary(rows)
    runs, counts = unpack_unary(content, sizes)
    assert runs.tolist() == flat(rows).tolist()
    assert counts.tolist() == [length] * len(rows)


@quickly
@given(rows=st.lists(st.lists(st.integers(0, 300), max_size=12), max_size=12))
def test_unary_rows_of_any_length(rows):
    content, sizes = pack_unary(flat(rows), np.array([len(row) for row in rows], np.int64))
    assert (content.tolist(), sizes.tolist()) == plain_unary(rows)
    runs, counts = unpack_unary(content, sizes)
    assert runs.tolist() == flat(rows).tolist()
    assert counts.tolist() == [len(row) for row in rows]


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 31, 33, WIDEST])
@pytest.mark.parametrize("offset", range(17))
def test_a_field_of_ones_wherever_it_begins(width, offset):
    field = np.array([(1 << width) - 1])
    content = pack_fields(field, np.array([offset]), (offset + width + 7) // 8)
    bits = np.unpackbits(content, bitorder="little")
    assert np.flatnonzero(bits).tolist() == list(range(offset, offset + width))
    found = unpack_fields(content, np.array([offset]))
    assert (found & ((1 << width) - 1)).tolist() == field.tolist()


@quickly
@given(data=st.data(), widths=st.lists(st.integers(0, WIDEST), max_size=30))
def test_fields_of_any_widths_come_back(data, widths):
    fields = np.array([data.draw(st.integers(0, (1 << w) - 1)) for w in widths], np.int64)
    ends = np.cumsum(np.array(widths, np.int64))
    offsets = ends - np.array(widths, np.int64)
    size = (int(ends[-1]) + 7) // 8 if widths else 0
    content = pack_fields(fields, offsets, size)
    assert len(content) == size
    ones = (1 << np.array(widths, np.int64)) - 1
    assert (unpack_fields(content, offsets) & ones).tolist() == fields.tolist()
