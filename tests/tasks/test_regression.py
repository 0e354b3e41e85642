"""Regression: the laws, with and without known scales, then what is particular to numbers."""

import numpy as np
import pytest
import torch

from conformance.task import TaskCase, TaskLaws
from understudy.tasks import Regression


def some_labels(rows, generator):
    return torch.randn(rows, 2, generator=generator)


class TestRegression(TaskLaws):
    @pytest.fixture
    def case(self):
        task = Regression(targets=("width", "height"))
        return TaskCase(task=task, labels=some_labels, perfect=torch.clone, unlabelled=torch.nan)


class TestRegressionInUnits(TaskLaws):
    """A known scale changes what is comparable, not what a loss of comparable values is."""

    @pytest.fixture
    def case(self):
        task = Regression(targets=("width", "height"), mean=(1000.0, 0.5), std=(250.0, 0.01))
        return TaskCase(task=task, labels=some_labels, perfect=torch.clone, unlabelled=torch.nan)


def test_it_is_about_targets():
    task = Regression(targets=("price",))
    assert (task.name, task.output, task.width) == ("regression", "values", 1)
    assert [score.name for score in task.scores] == ["r2", "rmse", "mae"]


def test_comparable_values_are_in_units_of_the_labels_spread():
    task = Regression(targets=("price", "share"), mean=(1e5, 0.5), std=(2e4, 0.1))
    values = torch.tensor([[1e5, 0.5], [1.2e5, 0.4]])
    torch.testing.assert_close(task.comparable(values), torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert Regression(targets=("price",)).comparable(values) is values


def test_a_row_that_lacks_one_target_has_no_label():
    task = Regression(targets=("a", "b"))
    labels = torch.tensor([[1.0, 2.0], [torch.nan, 2.0], [torch.nan, torch.nan]])
    assert task.labelled(labels).tolist() == [True, False, False]
    loss = task.hard_loss(torch.zeros(3, 2), labels)
    assert loss.tolist() == [2.5, 0.0, 0.0]


def test_people_read_the_values_themselves():
    outputs = np.array([[1.5, -2.0]], np.float32)
    np.testing.assert_array_equal(Regression(targets=("a", "b")).readable(outputs), outputs)
