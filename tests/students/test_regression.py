import pytest
import torch

from understudy.errors import ModelError
from understudy.students.importance.regression import bootstrap, fit, gram


def data(rows: int = 40, width: int = 6, answers: int = 3, noise: float = 0.3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    ways = torch.randn(width, answers, generator=generator, dtype=torch.float64)
    errors = torch.randn(rows, answers, generator=generator, dtype=torch.float64)
    return features, features @ ways + noise * errors


def standardised(features):
    return (features - features.mean(0)) / features.std(0, correction=0)


@pytest.mark.parametrize("ridge", [0.01, 0.5, 3.0])
def test_errors_of_left_out_rows_are_those_of_fitting_without_them(ridge):
    features, goal = data()
    scaled = standardised(features)
    found = fit(gram(features), goal, ridge=ridge)
    size = ridge * float((scaled @ scaled.T).diagonal().mean())
    for row in (0, 7, 39):
        others = torch.arange(40) != row
        x, y = scaled[others], goal[others]
        inner = x - x.mean(0)
        ways = torch.linalg.solve(
            inner.T @ inner + size * torch.eye(6, dtype=torch.float64), inner.T @ (y - y.mean(0))
        )
        told = (scaled[row] - x.mean(0)) @ ways + y.mean(0)
        torch.testing.assert_close(found.errors[row], (goal[row] - told).square().sum())
        torch.testing.assert_close(found.totals[row], (goal[row] - y.mean(0)).square().sum())


def test_the_best_ridge_is_found_and_gives_what_it_gives_when_named():
    features, goal = data(noise=2.0)
    kernel = gram(features)
    best = fit(kernel, goal)
    named = fit(kernel, goal, ridge=best.ridge)
    torch.testing.assert_close(best.errors, named.errors)
    for other in (best.ridge / 10, best.ridge * 10):
        assert fit(kernel, goal, ridge=other).explained < best.explained


def test_what_is_linear_is_explained_and_noise_is_not():
    features, goal = data(rows=200, noise=0.0)
    assert fit(gram(features), goal).explained > 0.999
    unrelated, _ = data(rows=200, seed=5)
    assert fit(gram(unrelated), goal).explained < 0.05


def test_more_features_than_rows_do_not_explain_what_they_do_not_know():
    wide, _ = data(rows=30, width=500)
    _, goal = data(rows=30, seed=3)
    assert fit(gram(wide), goal).explained < 0.2


def test_grams_of_groups_add_up_and_units_do_not_count():
    features, _ = data()
    whole = gram(features)
    torch.testing.assert_close(gram(features[:, :2]) + gram(features[:, 2:]), whole)
    torch.testing.assert_close(gram(features * 1000 + 5), whole)


def test_a_feature_that_does_not_move_counts_for_nothing():
    features, goal = data()
    still = torch.cat([features, torch.full((40, 1), 0.1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(gram(still), gram(features))
    nothing = fit(gram(torch.ones(40, 3)), goal)
    assert nothing.explained == 0


def test_three_rows_of_different_answers_are_needed():
    features, goal = data()
    with pytest.raises(ModelError, match="three rows or more, but got 2"):
        fit(gram(features[:2]), goal[:2])
    with pytest.raises(ModelError, match="are all equal"):
        fit(gram(features), torch.ones(40, 2))


def test_the_interval_is_a_function_of_the_seed_and_holds_the_value():
    _, parts = data(rows=100)
    parts = parts.square()
    whole = parts.sum(1)
    low, high = bootstrap(parts, whole, draws=300, seed=1)
    again = bootstrap(parts, whole, draws=300, seed=1)
    assert torch.equal(low, again[0])
    assert torch.equal(high, again[1])
    assert not torch.equal(low, bootstrap(parts, whole, draws=300, seed=2)[0])
    value = parts.sum(0) / whole.sum()
    assert bool(((low < value) & (value < high)).all())


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values, torch.ones(400), draws=2000, seed=0)
    error = float(values.std() / 20)
    assert float(high - low) == pytest.approx(2 * 1.96 * error, rel=0.1)
