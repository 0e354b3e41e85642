"""Which classes are listed and what they weigh, against float64 and extreme logits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import StoreError
from understudy.labels.codecs import listing
from understudy.labels.codecs.listing import (
    check_classes,
    check_fewer,
    chunks,
    largest,
    log_sum,
    weigh,
)

quickly = settings(max_examples=60, deadline=None)


def reference(values, ids):
    """The same with the largest numbers taken out first, row by row."""
    logs, rests = [], []
    exact = values.astype(np.longdouble)
    exact -= exact.max(axis=1, keepdims=True)
    for row, listed in zip(exact, ids, strict=True):
        total = np.log(np.exp(row).sum())
        others = np.delete(row, listed)
        logs.append(row[listed] - total)
        peak = others.max()
        rests.append(peak + np.log(np.exp(others - peak).sum()) - total)
    return np.array(logs, np.float64), np.array(rests, np.float64)


@quickly
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 40),
    scale=st.sampled_from([0.0, 0.1, 3.0, 50.0, 2000.0, 1e30]),
    k=st.integers(1, 39),
)
def test_masses_agree_with_a_reference(seed, classes, scale, k):
    draw = np.random.default_rng(seed)
    values = (scale * draw.standard_normal((5, classes))).astype(np.float32)
    ids = largest(values, min(k, classes - 1))
    logs, rest = weigh(values, ids)
    expected_logs, expected_rest = reference(values, ids)
    np.testing.assert_allclose(logs, expected_logs, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(rest, expected_rest, rtol=1e-12, atol=1e-13)


def test_the_rest_is_summed_and_not_what_is_missing_to_one():
    values = np.float32([[0.0, -50.0, -60.0], [0.0, -2000.0, -3000.0]])
    _, rest = weigh(values, np.array([[0], [0]]))
    np.testing.assert_allclose(rest, [-50 + np.log1p(np.exp(-10)), -2000], rtol=1e-12)


def test_the_largest_come_first():
    values = np.float32([[1, 5, 3, 4], [0, -1, -2, 7]])
    assert largest(values, 3).tolist() == [[1, 3, 2], [3, 0, 1]]


@pytest.mark.parametrize("row", [[-np.inf, -np.inf], [np.inf, 0.0]], ids=["none", "certain"])
def test_a_row_without_a_finite_largest_logit_is_refused(row):
    values = np.float32([[0.0, 1.0], row])
    with pytest.raises(StoreError, match="1 positions have none"):
        weigh(values, largest(values, 1))


def test_the_sum_of_nothing_is_nothing():
    assert log_sum(np.array([[-np.inf, -np.inf], [0.0, 0.0]])).tolist() == [-np.inf, np.log(2)]


def test_chunks_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr(listing, "CHUNK", 12)
    covered = [row for part in chunks(np.zeros((8, 4), np.float32)) for row in range(8)[part]]
    assert covered == list(range(8))
    assert len(list(chunks(np.zeros((8, 4), np.float32)))) == 3
    assert len(list(chunks(np.zeros((8, 50), np.float32)))) == 8
    assert list(chunks(np.zeros((0, 4), np.float32))) == []


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_what_is_no_distribution_is_refused(shape):
    with pytest.raises(StoreError, match="one row of 2 or more classes"):
        check_classes(shape)


def test_listing_all_classes_is_refused_with_a_number_that_fits():
    assert check_fewer("k", 9, (10,)) is None
    with pytest.raises(StoreError, match=r"`k < classes` must hold, but got k=50 and 10 classes"):
        check_fewer("k", 50, (10,))
    with pytest.raises(StoreError, match="use `k: 9`, or `codec: dense`"):
        check_fewer("k", 10, (10,))
