"""Scores, row values and intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import DataError, ModelError
from understudy.evaluate import quality
from understudy.evaluate.quality import CALIBRATION, MAE, NLL, R2, RMSE, Score


def classifier(rows: int = 60, width: int = 7, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, width, rows)
    outputs = rng.normal(size=(rows, width))
    outputs[np.arange(rows), labels] += 1.0
    return outputs, labels


def regressor(rows: int = 60, width: int = 2, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(rows, width)) * 3 + 100
    return labels + rng.normal(size=(rows, width)), labels


def opaque(score: Score) -> Score:
    """The same score with nothing known but its value."""
    return Score(name=score.name, higher_is_better=score.higher_is_better, value=score.value)


EVERY = [
    *((score, classifier()) for score in quality.classification_scores(7)),
    *((score, regressor()) for score in quality.regression_scores()),
]
NAMES = [score.name for score, _ in EVERY]


@pytest.mark.parametrize(("score", "data"), EVERY, ids=NAMES)
def test_the_order_of_the_rows_does_not_matter(score, data):
    outputs, labels = data
    order = np.random.default_rng(1).permutation(len(outputs))
    assert score.value(outputs[order], labels[order]) == pytest.approx(score.value(outputs, labels))
    shuffled = quality.row_values(score, outputs[order], labels[order])
    np.testing.assert_allclose(shuffled, quality.row_values(score, outputs, labels)[order])


@pytest.mark.parametrize(("score", "data"), EVERY, ids=NAMES)
def test_row_values_equal_slow_jackknife_pseudo_values(score, data):
    slow = quality.row_values(opaque(score), *data)
    np.testing.assert_allclose(quality.row_values(score, *data), slow, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("score", "data"), EVERY, ids=NAMES)
def test_intervals_hold_the_value_and_repeat_with_their_seed(score, data):
    outputs, labels = data
    stack = np.stack([outputs, outputs + 0.1 * np.random.default_rng(2).normal(size=outputs.shape)])
    first = quality.interval(score, stack, labels, draws=200, seed=3)
    assert first.low <= first.value <= first.high
    assert first.value == pytest.approx(np.mean([score.value(one, labels) for one in stack]))
    assert quality.interval(score, stack, labels, draws=200, seed=3) == first
    assert quality.interval(score, stack, labels, draws=200, seed=4) != first


@pytest.mark.parametrize(("score", "data"), EVERY, ids=NAMES)
def test_the_quick_interval_is_near_that_of_scoring_again(score, data):
    outputs, labels = data
    quick = quality.interval(score, outputs[None], labels, draws=2000)
    slow = quality.interval(opaque(score), outputs[None], labels)
    assert quick.value == pytest.approx(slow.value)
    width = quick.high - quick.low
    assert abs(quick.low - slow.low) < 0.35 * width
    assert abs(quick.high - slow.high) < 0.35 * width


def test_the_primary_scores_come_first():
    assert [score.name for score in quality.classification_scores(10)] == [
        "accuracy",
        "top5_accuracy",
        "nll",
        "calibration_error",
    ]
    assert [score.name for score in quality.regression_scores()] == ["r2", "rmse", "mae"]


def test_top_five_of_five_classes_is_not_a_score():
    assert "top5_accuracy" not in {score.name for score in quality.classification_scores(5)}
    assert "top5_accuracy" in {score.name for score in quality.classification_scores(6)}


def test_a_classifier_of_one_class_is_refused():
    with pytest.raises(ModelError, match="width >= 2"):
        quality.classification_scores(1)


def test_which_way_is_up():
    ups = {score.name for score, _ in EVERY if score.higher_is_better}
    assert ups == {"accuracy", "top5_accuracy", "r2"}


def test_calibration_error_equals_a_slow_reference():
    outputs, labels = classifier(rows=500)
    weights = np.exp(outputs)
    confidence = (weights / weights.sum(axis=1, keepdims=True)).max(axis=1)
    right = outputs.argmax(axis=1) == labels
    expected = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert CALIBRATION.value(outputs, labels) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_of_sure_and_right_is_zero_and_of_sure_and_wrong_is_one():
    sure = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert CALIBRATION.value(sure, np.array([0, 1])) == 0.0
    assert CALIBRATION.value(sure, np.array([1, 0])) == 1.0


def test_nll_of_a_model_that_knows_nothing_is_the_log_of_the_number_of_classes():
    assert NLL.value(np.zeros((4, 10)), np.arange(4)) == pytest.approx(np.log(10))


def test_regression_scores_by_hand():
    outputs, labels = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0])
    assert R2.value(outputs, labels) == pytest.approx(1 - 5 / 2)
    assert RMSE.value(outputs, labels) == pytest.approx(np.sqrt(5 / 3))
    assert MAE.value(outputs, labels) == pytest.approx(1.0)


def test_r2_of_several_targets_is_their_mean():
    outputs, labels = regressor(width=3)
    alone = [R2.value(outputs[:, [k]], labels[:, k]) for k in range(3)]
    assert R2.value(outputs, labels) == pytest.approx(np.mean(alone))


def test_r2_keeps_its_digits_far_from_the_origin():
    outputs, labels = regressor()
    assert R2.value(outputs + 1e9, labels + 1e9) == pytest.approx(R2.value(outputs, labels))


@given(st.integers(3, 40), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_pseudo_values_of_a_mean_are_its_rows(rows, seed):
    outputs, labels = regressor(rows=rows, seed=seed)
    slow = quality.row_values(opaque(MAE), outputs, labels)
    np.testing.assert_allclose(slow, quality.row_values(MAE, outputs, labels), atol=1e-10)


def test_pseudo_values_of_one_row_are_refused():
    with pytest.raises(DataError, match="rows >= 2"):
        quality.row_values(RMSE, np.zeros((1, 1)), np.zeros(1))


def test_a_score_that_hangs_on_one_row_says_which():
    with pytest.raises(DataError, match=r"`r2` must be defined.*row 2 cannot be spared"):
        quality.row_values(R2, np.zeros((4, 1)), np.array([7.0, 7.0, 8.0, 7.0]))


def test_the_bootstrap_of_r2_leaves_out_draws_without_any():
    found = quality.interval(R2, np.zeros((1, 3, 1)), np.array([1.0, 1.0, 2.0]), draws=300)
    assert np.isfinite([found.low, found.value, found.high]).all()


def test_one_seed_gives_the_interval_of_its_rows():
    rows = np.random.default_rng(0).normal(size=(1, 2000))
    found = quality.score_interval(rows, draws=2000)
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * rows.std() / np.sqrt(2000), rel=0.1)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 1000))
    narrow = quality.score_interval(rows)
    wide = quality.score_interval(rows + rng.normal(size=(5, 1)))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_rows_are_drawn_together_for_all_seeds():
    one = np.random.default_rng(0).normal(size=(1, 500))
    five = np.repeat(one, 5, axis=0)
    single, many = quality.score_interval(one), quality.score_interval(five)
    assert many.high - many.low == pytest.approx(single.high - single.low, rel=0.1)


def test_constant_rows_have_an_interval_of_no_width():
    found = quality.score_interval(np.full((3, 50), 0.25))
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)


def test_draws_come_in_chunks_without_changing_the_count(monkeypatch):
    monkeypatch.setattr("understudy.evaluate.resampling.CELLS", 700)
    found = quality.score_interval(np.random.default_rng(0).normal(size=(3, 100)), draws=50)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("rows", [np.zeros((0, 4)), np.zeros((2, 0)), np.array([[1.0, np.nan]])])
def test_intervals_need_finite_values(rows):
    with pytest.raises(DataError, match="finite values of at least one seed and one row"):
        quality.score_interval(rows)


@pytest.mark.parametrize(("draws", "level"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_draws_and_level_have_laws(draws, level):
    with pytest.raises(DataError, match="`draws >= 1` and `0 < level < 1`"):
        quality.score_interval(np.ones((1, 2)), draws=draws, level=level)


def test_no_seeds_have_no_interval():
    with pytest.raises(DataError, match="seeds >= 1"):
        quality.interval(MAE, np.zeros((0, 3, 1)), np.zeros(3))


def test_nothing_is_changed_in_what_the_caller_passed():
    outputs, labels = regressor()
    before = outputs.copy(), labels.copy()
    quality.row_values(R2, outputs, labels)
    quality.interval(R2, outputs[None], labels, draws=10)
    np.testing.assert_array_equal(outputs, before[0])
    np.testing.assert_array_equal(labels, before[1])
