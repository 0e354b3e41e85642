"""Losses on the likenesses of a batch, on margins and on prefixes: laws, then references."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from conformance.loss import LossCase, LossLaws
from understudy.losses.embeddings import (
    CosineDistance,
    MarginMSE,
    Matryoshka,
    ScoreDistribution,
    cosine_distance,
    margin_mse,
    matryoshka,
    score_distribution,
)

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def drawn(width=None):
    def draw(student, generator):
        shape = (len(student), width or student.shape[1])
        return torch.randn(shape, generator=generator).to(student.dtype)

    return draw


class TestScoreDistribution(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=ScoreDistribution(temperature=0.5),
            target=drawn(4),
            equal=torch.clone,
            rowwise=False,
            shapes=False,
        )


class TestMarginMSE(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=MarginMSE(), target=drawn(), equal=torch.clone)


class TestMatryoshka(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=Matryoshka(loss=CosineDistance(), widths=(1, 2)),
            target=drawn(),
            equal=torch.clone,
        )

    @pytest.mark.skip(reason="it says what is wrong with the widths, in its own words")
    def test_a_target_of_another_shape_is_refused_with_both_shapes(self):
        """See `test_widths_that_are_not_there_are_refused`."""


def expected_divergence(student, teacher, temperature):
    shares = []
    for rows in (student, teacher):
        directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        alike = directions @ directions.T / temperature
        shares.append([log_softmax(np.delete(alike[place], place)) for place in range(len(alike))])
    own, goal = np.array(shares)
    return (np.exp(goal) * (goal - own)).sum(axis=1)


@quickly
@given(seed=seeds, temperature=st.floats(0.05, 5), width=st.integers(2, 9))
def test_the_distribution_agrees_with_a_float64_reference(seed, temperature, width):
    generator = np.random.default_rng(seed)
    student, teacher = generator.standard_normal((6, width)), generator.standard_normal((6, 4))
    expected = expected_divergence(student, teacher, temperature)
    found = score_distribution(
        torch.tensor(student), torch.tensor(teacher), temperature=temperature
    ).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


@quickly
@given(seed=seeds)
def test_the_distribution_does_not_see_turns_and_lengths(seed):
    generator = np.random.default_rng(seed)
    teacher = generator.standard_normal((6, 4))
    turn, _ = np.linalg.qr(generator.standard_normal((4, 4)))
    turned = teacher @ turn * generator.uniform(0.1, 10, (6, 1))
    found = score_distribution(torch.tensor(turned), torch.tensor(teacher))
    torch.testing.assert_close(found, torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)


def test_two_rows_have_no_choice():
    student = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    values = score_distribution(student, torch.eye(2))
    assert values.tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_means_nothing_is_refused(temperature):
    with pytest.raises(ValueError, match="`temperature > 0` must hold, but got"):
        ScoreDistribution(temperature=temperature)
    with pytest.raises(ValueError, match="`temperature > 0` must hold, but got"):
        score_distribution(torch.eye(3), torch.eye(3), temperature=temperature)


@quickly
@given(seed=seeds, candidates=st.integers(2, 6), shift=st.floats(-100, 100))
def test_margins_agree_with_a_float64_reference_and_know_no_zero(seed, candidates, shift):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 5, candidates))
    expected = np.mean(
        [
            ((student[:, 0] - student[:, k]) - (teacher[:, 0] - teacher[:, k])) ** 2
            for k in range(1, candidates)
        ],
        axis=0,
    )
    found = margin_mse(torch.tensor(student + shift), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("as_users_run_it")
def test_a_margin_needs_two_candidates():
    with pytest.raises(ValueError, match=r"`width >= 2`, but got \(3, 1\)"):
        margin_mse(torch.zeros(3, 1), torch.zeros(3, 1))


@quickly
@given(seed=seeds, widths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_a_wrapped_loss_is_the_mean_over_prefixes(seed, widths):
    student, teacher = torch.tensor(np.random.default_rng(seed).standard_normal((2, 5, 6)))
    expected = sum(cosine_distance(student[:, :w], teacher[:, :w]) for w in widths) / len(widths)
    found = matryoshka(CosineDistance(), student, teacher, widths=widths)
    torch.testing.assert_close(found, expected)


def test_a_prefix_can_be_compared_with_the_whole():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 4, generator=generator),
        torch.randn(5, 9, generator=generator),
    )
    loss = ScoreDistribution()
    expected = (loss(student[:, :2], teacher) + loss(student, teacher)) / 2
    wrapped = Matryoshka(loss=loss, widths=(2, 4), against="whole")
    torch.testing.assert_close(wrapped(student, teacher), expected)


@pytest.mark.parametrize("widths", [(), (0, 2), (2, 5)])
def test_widths_that_are_not_there_are_refused(widths):
    rows = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"`1 <= width <= 4` must hold for each of `widths`"):
        matryoshka(CosineDistance(), rows, rows, widths=widths)
    if widths and min(widths) < 1:
        with pytest.raises(ValueError, match="`width >= 1` must hold for each of `widths`"):
            Matryoshka(loss=CosineDistance(), widths=widths)


def test_a_prefix_wider_than_the_teacher_is_refused():
    with pytest.raises(ValueError, match="`1 <= width <= 2` must hold"):
        matryoshka(CosineDistance(), torch.zeros(3, 4), torch.zeros(3, 2), widths=(4,))


@pytest.mark.usefixtures("as_users_run_it")
def test_another_word_for_the_other_side_is_refused():
    with pytest.raises(ValueError, match="`against` must be one of prefix, whole"):
        Matryoshka(loss=CosineDistance(), widths=(1,), against="half")
