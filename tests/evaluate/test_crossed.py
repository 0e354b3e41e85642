"""Variance over seeds and rows, and the level and power of what is built on it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.evaluate.crossed import MeanSquares, mean_squares, needed, spread

SHAPES = st.tuples(st.integers(2, 6), st.integers(2, 12), st.integers(0, 10_000))


def slow_mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """By the textbook, cell by cell."""
    seeds, rows = len(table), len(table[0])
    mean = math.fsum(table.ravel()) / (seeds * rows)
    of_seed = [math.fsum(table[s]) / rows for s in range(seeds)]
    of_row = [math.fsum(table[:, n]) / seeds for n in range(rows)]
    rest = math.fsum(
        (table[s, n] - of_seed[s] - of_row[n] + mean) ** 2
        for s in range(seeds)
        for n in range(rows)
    )
    return (
        rows * math.fsum((one - mean) ** 2 for one in of_seed) / (seeds - 1),
        seeds * math.fsum((one - mean) ** 2 for one in of_row) / (rows - 1),
        rest / ((seeds - 1) * (rows - 1)),
    )


def squares(seeds: float, rows: float, residual: float) -> MeanSquares:
    return MeanSquares(
        seeds=np.asarray(seeds), rows=np.asarray(rows), residual=np.asarray(residual)
    )


@given(SHAPES)
@settings(max_examples=50, deadline=None)
def test_mean_squares_equal_the_slow_reference(case):
    seeds, rows, seed = case
    table = np.random.default_rng(seed).normal(size=(seeds, rows)) * 3 + 10
    found = mean_squares(table)
    expected = slow_mean_squares(table)
    np.testing.assert_allclose([found.seeds, found.rows, found.residual], expected, atol=1e-9)


def test_mean_squares_by_hand():
    # Means 2.5 and 4.5 by seed, 2.5 and 4.5 by row, 3.5 in all.
    found = mean_squares(np.array([[1.0, 4.0], [4.0, 5.0]]))
    assert (found.seeds, found.rows, found.residual) == (4.0, 4.0, 1.0)


@given(SHAPES)
@settings(max_examples=50, deadline=None)
def test_mean_squares_ignore_shift_and_order(case):
    seeds, rows, seed = case
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(seeds, rows))
    moved = table[rng.permutation(seeds)][:, rng.permutation(rows)] + 7.0
    one, other = mean_squares(table), mean_squares(moved)
    np.testing.assert_allclose(one.seeds, other.seeds, atol=1e-10)
    np.testing.assert_allclose(one.rows, other.rows, atol=1e-10)
    np.testing.assert_allclose(one.residual, other.residual, atol=1e-10)


def test_many_tables_at_once_give_what_each_gives_alone():
    tables = np.random.default_rng(0).normal(size=(4, 3, 9))
    together = spread(mean_squares(tables), seeds=3, rows=9, level=0.95)
    alone = [spread(mean_squares(one), seeds=3, rows=9, level=0.95) for one in tables]
    np.testing.assert_allclose(together.half_width, [one.half_width for one in alone])


def test_the_interval_by_hand():
    found = spread(squares(8.0, 5.0, 3.0), seeds=4, rows=50, level=0.95)
    quantile = 0.8 * stats.t.ppf(0.975, 3) + 0.2 * stats.t.ppf(0.975, 49)
    assert float(found.half_width) == pytest.approx(quantile * math.sqrt(10.0 / 200))
    assert stats.t.ppf(0.975, float(found.degrees_of_freedom)) == pytest.approx(quantile)


@given(
    st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.integers(3, 12), st.integers(13, 999)
)
@settings(max_examples=100, deadline=None)
def test_the_variance_has_its_floor_and_the_degrees_of_freedom_their_range(a, b, c, seeds, rows):
    found = spread(squares(a, b, c), seeds=seeds, rows=rows, level=0.95)
    least = stats.t.ppf(0.975, rows - 1) * math.sqrt(max(a, b) / (seeds * rows))
    assert float(found.half_width) >= least * (1 - 1e-12)
    assert seeds - 1 - 1e-6 <= float(found.degrees_of_freedom) <= rows - 1 + 1e-3


def test_when_rows_are_all_of_the_noise_it_is_the_paired_t_test_over_rows():
    rows = np.random.default_rng(0).normal(size=40)
    found = spread(mean_squares(np.tile(rows, (3, 1))), seeds=3, rows=40, level=0.95)
    test = stats.ttest_1samp(rows, 0.0).confidence_interval(0.95)
    assert float(found.half_width) == pytest.approx((test.high - test.low) / 2)


def test_when_seeds_are_all_of_the_noise_it_is_the_t_test_over_seed_means():
    seeds = np.random.default_rng(0).normal(size=5)
    found = spread(mean_squares(np.tile(seeds[:, None], (1, 30))), seeds=5, rows=30, level=0.95)
    test = stats.ttest_1samp(seeds, 0.0).confidence_interval(0.95)
    assert float(found.half_width) == pytest.approx((test.high - test.low) / 2)


def test_no_noise_at_all_gives_an_interval_of_no_width():
    found = spread(mean_squares(np.zeros((4, 6))), seeds=4, rows=6, level=0.95)
    assert float(found.half_width) == 0.0
    assert float(found.degrees_of_freedom) == pytest.approx(3)


def test_the_seeds_needed_are_the_fewest_that_decide():
    seen = squares(9.0, 1.0, 1.0)
    found, rows = needed(seen, effect=0.1, margin=0.0, seeds=4, rows=200, level=0.95)
    assert rows is None
    assert found is not None
    halves = [
        float(spread(seen, seeds=many, rows=200, level=0.95).half_width)
        for many in (found - 1, found)
    ]
    assert halves[1] < 0.1 <= halves[0]


def test_noise_of_the_rows_asks_for_rows():
    seeds, rows = needed(
        squares(1.0, 50.0, 1.0), effect=0.01, margin=0.0, seeds=5, rows=300, level=0.95
    )
    assert seeds is None
    assert rows is not None
    assert rows > 300


def test_an_effect_of_nothing_needs_a_margin():
    seen = squares(1.0, 1.0, 1.0)
    assert needed(seen, effect=0.0, margin=0.0, seeds=3, rows=100, level=0.95) == (None, None)
    seeds, _ = needed(seen, effect=0.0, margin=0.05, seeds=3, rows=100, level=0.95)
    assert seeds is not None


def bound(comparisons: int) -> float:
    """5 % and three standard errors: 6.5 % for 2,000 comparisons."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / comparisons)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("rows", "comparisons"), [(360, 2000), (1000, 1000), (10_000, 200)])
def test_right_answers_hold_the_level(simulation, seeds, rows, noise, comparisons):
    truth = simulation.Truth(seeds=seeds, rows=rows, noise=noise)
    none, two = simulation.measure(truth, (0.0, 2.0), comparisons=comparisons, seed=1)
    assert none.claims <= bound(comparisons)
    assert two.helped > none.helped
    assert two.hurt <= bound(comparisons) / 2


@pytest.mark.slow
@pytest.mark.parametrize("taste", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("rows", [360, 1000, 10_000])
def test_right_answers_hold_the_level_in_every_cell(simulation, seeds, rows, noise, taste):
    truth = simulation.Truth(seeds=seeds, rows=rows, noise=noise, taste=taste)
    (none,) = simulation.measure(truth, (0.0,), comparisons=2000, seed=2)
    assert none.claims <= bound(2000)


@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
@pytest.mark.parametrize("of_a_row", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("of_a_seed", [0.0, 0.2, 1.0])
def test_values_with_heavy_tails_hold_the_level(seeds, of_a_row, of_a_seed):
    rng = np.random.default_rng(seeds)
    many, rows = 2000, 60
    tables = (
        of_a_seed * rng.normal(size=(many, seeds, 1))
        + of_a_row * rng.standard_t(4, size=(many, 1, rows))
        + rng.standard_t(4, size=(many, seeds, rows))
    )
    half = spread(mean_squares(tables), seeds=seeds, rows=rows, level=0.95).half_width
    assert (np.abs(tables.mean(axis=(1, 2))) > half).mean() <= bound(many)


def test_power_grows_with_seeds_and_with_rows(simulation):
    def seen(seeds, rows):
        truth = simulation.Truth(seeds=seeds, rows=rows, noise=0.5)
        return simulation.measure(truth, (2.0,), comparisons=400, seed=3)[0].helped

    assert seen(3, 1000) < seen(5, 1000) < seen(10, 1000)
    assert seen(5, 360) < seen(5, 1000)
    assert seen(10, 1000) > 0.9
