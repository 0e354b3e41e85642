"""Classification: the laws, then what is particular to classes."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from conformance.task import TaskCase, TaskLaws
from understudy.tasks import Classification

CLASSES = ("ant", "bee", "cat")


class TestClassification(TaskLaws):
    @pytest.fixture
    def case(self):
        return TaskCase(
            task=Classification(classes=CLASSES),
            labels=lambda rows, generator: torch.randint(3, (rows,), generator=generator),
            perfect=lambda labels: 100.0 * torch.nn.functional.one_hot(labels, 3),
            unlabelled=-1,
            nearly=1e-6,
        )


def test_it_is_about_classes():
    task = Classification(classes=CLASSES)
    assert (task.name, task.output, task.width) == ("classification", "logits", 3)
    assert [score.name for score in task.scores] == ["accuracy", "nll", "calibration_error"]
    many = Classification(classes=tuple("abcdef"))
    assert "top5_accuracy" in [score.name for score in many.scores]


def test_the_hard_loss_is_the_cross_entropy_in_nats():
    logits, labels = np.random.default_rng(0).standard_normal((6, 3)), np.array([0, 1, 2, 0, 1, 2])
    expected = -np.log(softmax(logits, axis=1)[np.arange(6), labels])
    found = Classification(classes=CLASSES).hard_loss(torch.tensor(logits), torch.tensor(labels))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_logits_are_comparable_as_they_are():
    logits = torch.randn(2, 3)
    assert Classification(classes=CLASSES).comparable(logits) is logits


def test_people_read_probabilities_even_of_huge_logits():
    outputs = np.array([[1000.0, 1000.0, -1000.0], [0.0, np.log(3.0), -np.inf]])
    expected = [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]
    found = Classification(classes=CLASSES).readable(outputs)
    np.testing.assert_allclose(found, expected, atol=1e-15)
