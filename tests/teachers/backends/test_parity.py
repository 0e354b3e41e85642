"""How far two sets of answers are apart."""

from math import inf, log, nan

import pytest
import torch

from understudy.teachers.backends.parity import difference


def of(found, expected, output="logits"):
    return difference(torch.tensor(found), torch.tensor(expected), output=output)


@pytest.mark.parametrize("output", ["logits", "values"])
def test_equal_answers_do_not_differ(output):
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert difference(rows, rows.clone(), output=output) == 0


def test_logits_are_compared_as_log_probabilities_in_nats():
    # From one half to three quarters: ln(3/4) - ln(1/2), and ln(1/4) - ln(1/2), which is more.
    assert of([[log(3.0), 0.0]], [[0.0, 0.0]]) == pytest.approx(log(2.0))


def test_a_constant_in_a_row_of_logits_means_nothing():
    assert of([[11.0, 13.0]], [[1.0, 3.0]]) == pytest.approx(0, abs=1e-6)


def test_values_are_compared_in_standard_deviations_of_their_column():
    expected = [[0.0, 0.0], [2.0, 200.0]]  # standard deviations 1 and 100
    assert of([[0.5, 0.0], [2.0, 200.0]], expected, "values") == pytest.approx(0.5)
    assert of([[0.0, 0.5], [2.0, 200.0]], expected, "values") == pytest.approx(0.005)


def test_a_single_logit_is_compared_as_a_value():
    assert of([[1.0], [3.0]], [[0.0], [2.0]]) == pytest.approx(1.0)


def test_a_column_that_does_not_vary_is_compared_in_shares_of_its_size():
    assert of([[4.0]], [[5.0]], "values") == pytest.approx(0.2)
    assert of([[0.0]], [[0.0]], "values") == 0
    assert of([[1e-3]], [[0.0]], "values") > 1e6


@pytest.mark.parametrize("wrong", [nan, inf, -inf])
@pytest.mark.parametrize("output", ["logits", "values"])
def test_one_that_is_not_finite_differs_without_bound(wrong, output):
    assert of([[wrong, 1.0], [0.0, 1.0]], [[2.0, 1.0], [0.0, 1.0]], output) == inf


def test_classes_that_both_rule_out_are_alike():
    assert of([[-inf, 0.0, 1.0]], [[-inf, 0.0, 1.0]]) == 0


def test_other_shapes_differ_without_bound():
    assert of([[1.0, 2.0]], [[1.0, 2.0, 3.0]]) == inf
