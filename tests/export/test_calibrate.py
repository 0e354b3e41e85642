import numpy as np
import pytest

from understudy.export.calibrate import least_squares_ranges


def lost(values, low, high):
    """The mean squared error of 256 steps in a range, by the definition."""
    step = (high - low) / 255
    zero = round(-low / step)
    held = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(((values - held) ** 2).mean())


@pytest.fixture
def relu(by_hand):
    return by_hand(1, [("Identity", ["rows"], "same"), ("Relu", ["same"], "output")], {})


def rows(kind):
    rng = np.random.default_rng(0)
    values = rng.standard_t(3, 4000) if kind == "heavy" else rng.uniform(-2, 1, 4000)
    return values.astype(np.float32).reshape(-1, 1)


@pytest.mark.parametrize("kind", ["heavy", "flat"])
def test_no_range_of_a_fine_grid_loses_much_less(relu, kind):
    values = rows(kind)
    (low, high) = least_squares_ranges(relu, values, ["same"])["same"]
    grid = np.linspace(0.05, 1, 40)
    best = min(lost(values, a * values.min(), b * values.max()) for a in grid for b in grid)
    assert lost(values, low, high) <= 1.1 * best


def test_an_outlier_is_left_out_and_a_flat_range_is_kept(relu):
    flat = rows("flat")
    low, high = least_squares_ranges(relu, flat, ["same"])["same"]
    assert low == pytest.approx(flat.min(), rel=0.03)
    assert high == pytest.approx(flat.max(), rel=0.03)
    # One number of 30 among 400,000: to hold it would round all the others 20 times more coarsely.
    many = np.concatenate([flat] * 100 + [np.full((1, 1), 30, np.float32)])
    low, high = least_squares_ranges(relu, many, ["same"])["same"]
    assert high < 20
    assert lost(many, low, high) < lost(many, many.min(), many.max())


def test_a_rectified_tensor_begins_at_zero(relu):
    assert least_squares_ranges(relu, rows("flat"), ["output"])["output"][0] == 0


def test_the_order_of_rows_does_not_matter(relu):
    values = rows("heavy")
    found = [least_squares_ranges(relu, one, ["same"]) for one in (values, values[::-1])]
    assert found[0] == found[1]


def test_a_tensor_that_is_always_zero_has_a_range(relu):
    found = least_squares_ranges(relu, -np.abs(rows("flat")), ["output"])["output"]
    assert np.isfinite(found).all()
    assert found[0] <= 0 <= found[1]
