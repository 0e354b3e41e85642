"""Similarity: against SciPy's own correlation, then intervals, then what is refused."""

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from understudy.data.sentences import read_sts
from understudy.errors import DataError, ModelError
from understudy.evaluate.similarity import (
    COSINE,
    cosines,
    likeness_score,
    spearman,
    spearman_interval,
    spearman_kept,
)

quickly = settings(max_examples=30, deadline=None)


@quickly
@given(seed=st.integers(0, 2**31 - 1), ties=st.integers(1, 4))
def test_it_is_scipys_correlation_with_and_without_ties(seed, ties):
    draw = np.random.default_rng(seed)
    found, scores = draw.standard_normal((2, 40))
    scores = np.round(scores * ties)
    assert spearman(found, scores) == pytest.approx(spearmanr(found, scores)[0], abs=1e-12)


def test_the_order_counts_and_not_the_scale():
    scores = np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    assert spearman(np.exp(scores), scores) == pytest.approx(1.0)
    assert spearman(-np.exp(scores), scores) == pytest.approx(-1.0)
    assert np.isnan(spearman(np.ones(5), scores))


def test_cosines_are_of_rows_and_a_zero_vector_is_like_nothing():
    first = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    second = np.array([[0.0, 2.0], [2.0, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosines(first, second), [0.0, 1.0, 0.0], atol=1e-15)
    assert COSINE.value(first, second) == pytest.approx(1 / 3)
    assert likeness_score(second).value(first, np.zeros(3)) == pytest.approx(1 / 3)


def test_the_interval_holds_the_value_and_covers_as_often_as_it_says():
    # A known truth: normal pairs with Pearson 0.6 have Spearman 6 / pi * asin(0.3).
    truth, covered = 6 / np.pi * np.arcsin(0.3), 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        one, other = draw.standard_normal((2, 120))
        found = 0.6 * one + 0.8 * other
        interval = spearman_interval(found[None], one, draws=200, seed=seed)
        assert interval.value == pytest.approx(spearmanr(found, one)[0], abs=1e-12)
        covered += interval.low <= truth <= interval.high
    assert covered >= 52  # 57 expected of 60


def test_what_is_kept_is_1_for_the_teacher_itself_and_paired_with_it_otherwise():
    draw = np.random.default_rng(1)
    scores = draw.standard_normal(300)
    teacher = scores + draw.standard_normal(300)
    same = spearman_kept(np.stack([teacher, teacher]), teacher, scores, draws=50)
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)
    student = teacher + 0.2 * draw.standard_normal((3, 300))
    kept = spearman_kept(student, teacher, scores, draws=200)
    goal = spearmanr(teacher, scores)[0]
    expected = np.mean([spearmanr(one, scores)[0] / goal for one in student])
    assert kept.value == pytest.approx(expected, rel=1e-12)
    alone = spearman_interval(student, scores, draws=200)
    assert kept.high - kept.low < 0.5 * (alone.high - alone.low) / goal


def test_draws_of_few_pairs_in_which_the_teacher_knows_nothing_are_left_out():
    # Drawn without the last pair, both scores stand beside both cosines: no order at all.
    teacher, scores = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0, 3.0])
    kept = spearman_kept(np.stack([teacher, -teacher]), teacher, scores, draws=200)
    assert (kept.low, kept.value, kept.high) == (-1.0, 0.0, 1.0)


def test_an_interval_is_a_function_of_its_seed():
    found, scores = np.random.default_rng(2).standard_normal((2, 50))
    first, again, other = (
        spearman_interval(found[None], scores, draws=50, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


@pytest.mark.data
def test_words_in_common_already_say_something_about_the_real_benchmark(shared_data):
    pairs = read_sts(str(shared_data / "stsb" / "sts-test.csv"))
    # Words in common, the oldest of all embeddings: far above chance, far below an encoder (0.82).
    words = sorted({w for text in pairs.sentences for w in text.lower().split()})
    place = {word: i for i, word in enumerate(words)}
    sides = []
    for texts in (pairs.first, pairs.second):
        vectors = np.zeros((len(texts), len(words)), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            row[[place[w] for w in text.lower().split()]] = 1.0
        sides.append(vectors)
    kept = spearman_interval(cosines(*sides)[None], pairs.scores, draws=50)
    assert 0.4 < kept.low < kept.value < kept.high < 0.65


@pytest.fixture
def as_users_run_it(monkeypatch):
    """Shape annotations are only checked in tests; our own messages come after them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("as_users_run_it")
class TestRefusals:
    def test_embeddings_of_other_rows_or_widths(self):
        with pytest.raises(ModelError, match=r"same rows and columns, but got \(3, 2\) and"):
            cosines(np.ones((3, 2)), np.ones((2, 2)))
        with pytest.raises(ModelError, match="same rows and columns"):
            cosines(np.ones((3, 2)), np.ones((3, 4)))

    def test_embeddings_that_are_no_numbers(self):
        with pytest.raises(ModelError, match="finite"):
            cosines(np.full((3, 2), np.nan), np.ones((3, 2)))

    def test_scores_of_other_pairs_and_too_few_of_them(self):
        with pytest.raises(DataError, match="4 cosines and 5 scores"):
            spearman(np.ones(4), np.ones(5))
        with pytest.raises(DataError, match="three pairs"):
            spearman(np.ones(2), np.ones(2))
        with pytest.raises(DataError, match=r"got \(0, 5\) and 5 scores"):
            spearman_interval(np.ones((0, 5)), np.ones(5))
        with pytest.raises(DataError, match=r"got \(5,\) and 5 scores"):
            spearman_kept(np.ones(5), np.ones(5), np.ones(5))

    def test_a_teacher_that_has_nothing_to_keep(self):
        scores = np.arange(5.0)
        with pytest.raises(DataError, match=r"above 0 to be kept, but it is -1\.000"):
            spearman_kept(scores[None], -scores, scores)
