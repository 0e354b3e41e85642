"""The bootstrap under the intervals."""

import numpy as np
import pytest

from understudy.evaluate.resampling import (
    Interval,
    mean_over_drawn_seeds,
    percentiles,
    pigeonhole,
    resample_rows,
)


def test_both_ways_of_drawing_agree_on_a_mean():
    table = np.random.default_rng(0).normal(size=(3, 200))
    fast = pigeonhole(table[:, :, None], lambda m: m[..., 0], draws=3000, seed=0, level=0.9)
    slow = resample_rows(
        lambda kept: table[:, kept].mean(axis=1), rows=200, draws=3000, seed=0, level=0.9
    )
    assert fast.value == pytest.approx(slow.value)
    assert fast.low == pytest.approx(slow.low, abs=0.01)
    assert fast.high == pytest.approx(slow.high, abs=0.01)


def test_one_seed_is_not_drawn():
    scores = np.arange(5.0)[:, None]
    found = mean_over_drawn_seeds(scores, np.random.default_rng(0))
    np.testing.assert_array_equal(found, np.arange(5.0))


def test_percentiles_stretch_to_hold_the_value():
    found = np.linspace(1.0, 2.0, 101)
    assert percentiles(0.5, found, 0.9).low == 0.5
    assert percentiles(9.0, found, 0.9).high == 9.0


def test_draws_without_a_score_are_left_out():
    found = np.array([1.0, np.nan, 3.0])
    assert percentiles(2.0, found, 0.5) == Interval(value=2.0, low=1.5, high=2.5)
    assert percentiles(2.0, np.array([np.nan]), 0.5) == Interval(value=2.0, low=2.0, high=2.0)
