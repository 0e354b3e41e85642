"""Finding rows by id and view."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import StoreError
from understudy.labels.index import ABSENT, Index, build_index


def built(ids, views):
    """From pieces of seven rows."""
    cuts = range(0, len(ids), 7)
    return build_index(lambda: ((ids[c : c + 7], views[c : c + 7]) for c in cuts))


def index(ids, views, folder=Path("store")):
    tensors, (first, count) = built(np.asarray(ids, np.int64), np.asarray(views, np.int64))
    rows = tensors.get("rows")
    return Index(ids=tensors["ids"], rows=rows, first=first, count=count, folder=folder)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(-(2**40), 2**40), min_size=1, max_size=30), st.integers(1, 4),
       st.integers(0, 5), st.randoms(use_true_random=False))  # fmt: skip
def test_every_pair_is_found_whatever_the_order(tmp_path_factory, ids, count, first, random):
    pairs = [(i, v) for i in ids for v in range(first, first + count)]
    random.shuffle(pairs)
    found = index(*zip(*pairs, strict=True))
    wanted = np.array(pairs)
    np.testing.assert_array_equal(found.find(wanted[:, 0], wanted[:, 1]), np.arange(len(pairs)))
    assert found.whole().tolist() == sorted(ids)


def test_rows_in_plain_order_are_indexed_without_sorting_to_the_same():
    ids, views = np.tile(np.arange(5, 25), 3), np.repeat([1, 2, 3], 20)
    plain, span = built(ids, views)
    order = np.random.default_rng(0).permutation(60)
    shuffled, same = built(ids[order], views[order])
    assert span == same == (1, 3)
    assert set(plain) == {"ids"}
    np.testing.assert_array_equal(plain["ids"], shuffled["ids"])
    expected = np.arange(60).reshape(3, 20).T
    np.testing.assert_array_equal(order[shuffled["rows"]], expected)
    opened = Index(ids=plain["ids"], rows=None, first=1, count=3, folder=Path("store"))
    np.testing.assert_array_equal(opened.find(ids, views), np.arange(60))
    assert opened.whole().tolist() == list(range(5, 25))


def test_a_pair_that_stands_twice_is_refused_and_one_in_another_view_is_not():
    index([3, 4, 3], [1, 1, 2])
    with pytest.raises(StoreError, match=r"1 ids came more than once \(ids 3\)"):
        index([3, 4, 3, 4], [1, 1, 1, 2])


def test_a_row_that_was_left_out_in_one_view_is_found_in_the_other_only():
    found = index([1, 2, 1], [1, 1, 2])
    assert (found.rows == ABSENT).sum() == 1
    assert found.whole().tolist() == [1]
    assert found.find(np.array([2]), np.array([1])).tolist() == [1]
    with pytest.raises(StoreError, match=r"1 rows were left out.*ids 2.*not finite"):
        found.find(np.array([1, 2]), np.array([2, 2]))


def test_views_that_are_not_stored_are_refused_with_those_that_are():
    found = index([1, 2, 1, 2], [1, 1, 2, 2])
    with pytest.raises(StoreError, match=r"holds views 1 to 2 of each row.*asked for \(3\)"):
        found.find(np.array([1]), np.array([3]))
    with pytest.raises(StoreError, match="asked for"):
        found.find(np.array([1]), np.array([0]))


def test_no_view_means_the_first():
    assert index([1, 2, 1, 2], [4, 4, 5, 5]).find(np.array([2, 1]), None).tolist() == [1, 0]
