"""What a row says of a model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import DataError, ModelError
from understudy.evaluate import measures

LOGITS = np.array([[4.0, 1.0, 0.0], [0.0, 2.0, 2.0], [1.0, 0.0, 3.0]])


def test_a_hit_is_the_first_of_the_largest_outputs():
    np.testing.assert_array_equal(measures.hits(LOGITS, np.array([0, 1, 2])), [1, 1, 1])
    np.testing.assert_array_equal(measures.hits(LOGITS, np.array([1, 2, 0])), [0, 0, 0])


def test_a_constant_model_gains_nothing_from_ties_in_the_top_five():
    labels = np.arange(8)
    found = measures.top5_hits(np.zeros((8, 8)), labels)
    np.testing.assert_array_equal(found, labels < 5)


def test_top_five_hits_agree_with_a_sort_where_no_outputs_are_equal():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 11)), rng.integers(0, 11, 200)
    best = np.argsort(-logits, axis=1)[:, :5]
    expected = [label in row for label, row in zip(labels, best, strict=True)]
    np.testing.assert_array_equal(measures.top5_hits(logits, labels), expected)


def test_surprise_is_the_negative_log_of_the_label_s_probability():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    weights = np.exp(logits)
    expected = -np.log(weights[np.arange(50), labels] / weights.sum(axis=1))
    np.testing.assert_allclose(measures.surprise(logits, labels), expected, rtol=1e-12)


@given(shift=st.floats(-1e6, 1e6), scale=st.floats(0.0, 1e6))
@settings(max_examples=50, deadline=None)
def test_surprise_is_finite_and_never_negative_however_large_the_logits(shift, scale):
    found = measures.surprise(LOGITS * scale + shift, np.array([2, 0, 1]))
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_confidence_on_the_edge_of_a_bin_belongs_to_the_lower_bin():
    confidence, _, place = measures.confidence_bins(np.zeros((1, 2)), np.array([0]), 2)
    assert confidence[0] == 0.5
    assert place[0] == 0


def test_a_sure_model_is_in_the_last_bin():
    _, _, place = measures.confidence_bins(np.array([[1000.0, 0.0]]), np.array([0]), 15)
    assert place[0] == 14


def test_float32_answers_are_scored_in_float64():
    found = measures.surprise(LOGITS.astype(np.float32), np.array([0, 1, 2]))
    assert found.dtype == np.float64


@pytest.mark.parametrize("labels", [[0, 3, 1], [0, -1, 1]])
def test_labels_out_of_range_name_the_range_and_the_remedy(labels):
    with pytest.raises(DataError, match=r"`0 <= label < 3`.*score only labelled rows"):
        measures.hits(LOGITS, np.array(labels))


@pytest.mark.parametrize("labels", [np.zeros(3), np.zeros((3, 1), int), np.zeros(2, int)])
def test_classification_wants_one_integer_per_row(labels):
    with pytest.raises(DataError, match="one integer label per row"):
        measures.hits(LOGITS, labels)


def test_no_rows_are_not_a_score():
    with pytest.raises(DataError, match="no rows"):
        measures.hits(np.zeros((0, 3)), np.zeros(0, int))


def test_an_answer_that_is_not_finite_is_the_model_s_fault():
    broken = LOGITS.copy()
    broken[1, 0] = np.nan
    with pytest.raises(ModelError, match="1 rows of 3"):
        measures.surprise(broken, np.array([0, 1, 2]))


def test_regression_wants_one_target_per_output():
    with pytest.raises(DataError, match=r"one target per output.*\(3, 2\).*\(3, 3\)"):
        measures.squared_errors(LOGITS, np.zeros((3, 2)))


def test_a_missing_target_is_refused():
    with pytest.raises(DataError, match="finite target"):
        measures.absolute_errors(LOGITS[:, :1], np.array([1.0, np.nan, 2.0]))


def test_r2_of_constant_targets_is_refused():
    with pytest.raises(DataError, match="every target to vary"):
        measures.r2_rows(LOGITS[:, :1], np.ones(3))
