"""Token vectors in closed form: the solver against a dense one, its limits, and what is refused."""

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.students.static import (
    Bags,
    fit_token_vectors,
    principal_axes,
    sif_weights,
)

VOCABULARY, WIDTH = 9, 4


def problem(seed, texts=30):
    """Texts of all tokens but the last, a matrix of them, targets and a prior."""
    generator = np.random.default_rng(seed)
    ids = [generator.integers(0, VOCABULARY - 1, generator.integers(1, 6)) for _ in range(texts)]
    bags = Bags([row.tolist() for row in ids], vocabulary=VOCABULARY)
    matrix = np.zeros((texts, VOCABULARY))
    for place, row in enumerate(ids):
        np.add.at(matrix[place], row, 1 / len(row))
    targets = generator.standard_normal((texts, WIDTH)).astype(np.float32)
    prior = generator.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    return bags, matrix, targets, prior


def factor_of(matrix, targets, prior):
    told = matrix @ prior
    return (told * targets).sum() / (told**2).sum()


@given(seed=st.integers(0, 999), strength=st.sampled_from([0.01, 0.3, 5.0]))
def test_it_is_the_ridge_regression(seed, strength):
    bags, matrix, targets, prior = problem(seed)
    start = factor_of(matrix, targets, prior) * prior
    expected = start + np.linalg.solve(
        matrix.T @ matrix + strength * np.eye(VOCABULARY), matrix.T @ (targets - matrix @ start)
    )
    found = fit_token_vectors(bags, targets, prior, strength=strength, steps=60, tolerance=1e-6)
    np.testing.assert_allclose(found.vectors, expected, rtol=1e-3, atol=1e-3)
    left = ((targets - matrix @ expected) ** 2).sum() / (targets**2).sum()
    assert found.explained == pytest.approx(1 - left, abs=1e-4)
    assert found.explained_before <= found.explained + 1e-6


@given(seed=st.integers(0, 999))
def test_a_token_without_a_text_keeps_its_prior_and_a_strong_prior_keeps_all(seed):
    bags, matrix, targets, prior = problem(seed)
    start = factor_of(matrix, targets, prior) * prior
    found = fit_token_vectors(bags, targets, prior, strength=0.1).vectors
    np.testing.assert_allclose(found[-1], start[-1], rtol=1e-4, atol=1e-6)
    strong = fit_token_vectors(bags, targets, prior, strength=1e7).vectors
    np.testing.assert_allclose(strong, start, atol=1e-4)


def test_vectors_that_made_the_targets_are_found_again():
    bags, matrix, _, truth = problem(3, texts=200)
    targets = (matrix @ truth).astype(np.float32)
    noisy = truth + np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    found = fit_token_vectors(bags, targets, noisy, strength=1e-4, steps=100, tolerance=1e-6)
    np.testing.assert_allclose(found.vectors[:-1], truth[:-1], atol=0.02)
    assert found.explained > 0.999


def test_targets_that_the_prior_tells_already_need_no_step():
    bags, matrix, _, prior = problem(4)
    found = fit_token_vectors(bags, (matrix @ prior * 2).astype(np.float32), prior)
    np.testing.assert_allclose(found.vectors, 2 * prior, rtol=1e-3, atol=1e-4)
    assert found.explained_before == pytest.approx(1, abs=1e-6)


def test_it_stops_when_it_is_close_enough():
    bags, _, targets, prior = problem(5)
    rough = fit_token_vectors(bags, targets, prior, tolerance=0.5, steps=50)
    fine = fit_token_vectors(bags, targets, prior, tolerance=1e-5, steps=50)
    assert 0 < rough.steps < fine.steps < 50


def test_no_prior_is_a_prior_of_zeros():
    bags, matrix, targets, prior = problem(6)
    found = fit_token_vectors(bags, targets, np.zeros_like(prior), strength=0.5, steps=60)
    expected = np.linalg.solve(matrix.T @ matrix + 0.5 * np.eye(VOCABULARY), matrix.T @ targets)
    np.testing.assert_allclose(found.vectors, expected, atol=5e-3)
    assert found.explained_before == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strength": 0.0}, "`strength > 0` must hold"),
        ({"steps": 0}, "`steps > 0` must hold"),
        ({"tolerance": -1.0}, "`tolerance > 0` must hold"),
        ({"targets": np.zeros((29, WIDTH), np.float32)}, r"targets must be \[30, width\]"),
        ({"targets": np.full((30, WIDTH), np.inf, np.float32)}, "`targets` must be finite"),
        ({"prior": np.full((VOCABULARY, WIDTH), np.nan, np.float32)}, "`prior` must be finite"),
        ({"prior": np.zeros((VOCABULARY, 3), np.float32)}, "project both on the same axes"),
    ],
)
def test_what_does_not_fit_is_refused(change, said, monkeypatch):
    # Shapes are only checked in tests; our own messages come after them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    bags, _, targets, prior = problem(0)
    given_ = {"targets": targets, "prior": prior, **change}
    with pytest.raises(ValueError, match=said):
        fit_token_vectors(bags, **given_)


def test_weights_fall_with_how_often_a_token_is_met():
    counts = np.array([0, 1, 10, 1000])
    shares = (counts + 0.5) / 1013
    np.testing.assert_allclose(sif_weights(counts, a=0.01), 0.01 / (0.01 + shares), rtol=1e-6)
    with pytest.raises(ValueError, match="`a > 0` must hold, but got a=0"):
        sif_weights(counts, a=0.0)


def test_axes_hold_the_most_length_and_a_whole_set_only_turns():
    rows = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32) * [5, 1, 3, 0.1, 1]
    rows = rows.astype(np.float32) + np.float32(1)
    axes = principal_axes(rows, width=3)
    _, _, expected = np.linalg.svd(rows, full_matrices=False)  # of rows as they are, not centred
    np.testing.assert_allclose(np.abs((axes * expected[:3].T).sum(axis=0)), 1, atol=1e-4)
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()
    turned = rows @ principal_axes(rows, width=5)
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("width", [0, 6])
def test_axes_that_are_not_there_are_refused(width):
    with pytest.raises(ValueError, match="`1 <= width <= 5` must hold"):
        principal_axes(np.ones((9, 5), np.float32), width=width)
