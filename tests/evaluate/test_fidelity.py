"""Student against teacher, and what a model knows of its own doubt."""

import numpy as np
import pytest

from understudy.errors import ModelError
from understudy.evaluate import fidelity
from understudy.evaluate.quality import CALIBRATION, R2, RMSE, interval, row_values


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 5)), rng.normal(size=(80, 5))


def test_a_model_agrees_with_itself(answers):
    student, _ = answers
    assert fidelity.agreement(student, student).all()
    np.testing.assert_array_equal(fidelity.divergence(student, student), np.zeros(80))


def test_divergence_equals_a_slow_reference_with_the_teacher_first(answers):
    student, teacher = answers
    p = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
    q = np.exp(student) / np.exp(student).sum(axis=1, keepdims=True)
    expected = (p * np.log(p / q)).sum(axis=1)
    np.testing.assert_allclose(fidelity.divergence(student, teacher), expected, rtol=1e-10)
    assert not np.allclose(fidelity.divergence(teacher, student), expected)


def test_divergence_is_finite_and_not_negative_for_huge_logits():
    student, teacher = np.array([[1e4, 0.0, -1e4]]), np.array([[1e4, 1.0, -1e4]])
    found = fidelity.divergence(student, teacher)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_what_does_not_change_softmax_does_not_change_divergence(answers):
    student, teacher = answers
    shifted = fidelity.divergence(student + 7.0, teacher - 3.0)
    np.testing.assert_allclose(shifted, fidelity.divergence(student, teacher), atol=1e-12)


def test_agreement_by_hand():
    student, teacher = np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([[9.0, 1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(fidelity.agreement(student, teacher), [1.0, 0.0])


def test_scores_against_a_teacher_do_not_read_the_labels(answers):
    student, teacher = answers
    nonsense = np.full(80, -1)
    agree, diverge = fidelity.agreement_score(teacher), fidelity.divergence_score(teacher)
    assert agree.value(student, nonsense) == fidelity.agreement(student, teacher).mean()
    np.testing.assert_array_equal(
        row_values(diverge, student, nonsense), fidelity.divergence(student, teacher)
    )
    assert agree.higher_is_better
    assert not diverge.higher_is_better


def test_regression_agrees_as_r2_and_rmse_with_the_teacher_for_labels(answers):
    student, teacher = answers
    nonsense = np.full((80, 5), np.nan)
    likeness, distance = fidelity.regression_agreement(teacher)
    assert likeness.value(student, nonsense) == R2.value(student, teacher)
    assert distance.value(student, nonsense) == RMSE.value(student, teacher)
    found = interval(likeness, student[None], nonsense, draws=50)
    assert found.low <= found.value <= found.high


def test_reliability_sums_to_the_calibration_error(answers):
    outputs, _ = answers
    labels = np.random.default_rng(1).integers(0, 5, 80)
    table = fidelity.reliability(outputs, labels)
    assert sum(one.rows for one in table) == 80
    gaps = sum(one.rows / 80 * abs(one.accuracy - one.confidence) for one in table)
    assert gaps == pytest.approx(CALIBRATION.value(outputs, labels))
    assert [one.confidence for one in table] == sorted(one.confidence for one in table)


def test_bins_without_rows_are_left_out():
    table = fidelity.reliability(np.array([[1000.0, 0.0]] * 3), np.array([0, 0, 1]), bins=10)
    assert table == [(1.0, pytest.approx(2 / 3), 3)]


def test_confusion_counts_labels_by_answers():
    outputs = np.eye(3)[[0, 0, 2, 1]]
    found = fidelity.confusion(outputs, np.array([0, 1, 2, 1]))
    np.testing.assert_array_equal(found, [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("shape", [(79, 5), (80, 4), (0, 5)])
def test_other_rows_or_other_classes_are_refused(answers, shape):
    with pytest.raises(ModelError, match="the same rows with the same width"):
        fidelity.agreement(answers[0], np.zeros(shape))


def test_a_teacher_that_is_not_finite_is_refused(answers):
    with pytest.raises(ModelError, match="finite numbers"):
        fidelity.divergence(answers[0], np.full((80, 5), np.inf))
