"""Weighted soft labels: laws, a reference, and what the weight does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given

from conformance.loss import LossCase, LossLaws
from conformance.numbers import (
    beside_labels,
    quickly,
    random_logits,
    seeds,
    softmax,
    temperatures,
    two_sets,
)
from understudy.losses.weighted import WSLD, wsld


def reference(student, teacher, labels, temperature):
    """The mean and its gradient, in which the weight is a constant."""
    values, slopes = [], []
    for own, goal, y in zip(student, teacher, labels, strict=True):
        behind = -np.log(softmax(own)[y]) / (-np.log(softmax(goal)[y]) + 1e-7)
        weight = temperature**2 * (1 - np.exp(-behind))
        p, q = softmax(goal / temperature), softmax(own / temperature)
        values.append(-weight * (p * np.log(q)).sum())
        slopes.append(weight * (q - p) / temperature)
    return np.mean(values), np.array(slopes) / len(slopes)


class TestWSLD(LossLaws):
    @pytest.fixture(params=[1.0, 2.0])
    def case(self, request):
        loss = WSLD(temperature=request.param)
        return LossCase(loss=loss, target=random_logits, also=beside_labels)


@quickly
@given(seed=seeds, temperature=temperatures)
def test_it_agrees_with_a_reference_in_value_and_gradient(seed, temperature):
    student, teacher = two_sets(seed)
    labels = np.random.default_rng(seed).integers(0, 10, size=6)
    learner = torch.tensor(student, requires_grad=True)
    mean = wsld(
        learner, torch.tensor(teacher), torch.tensor(labels), temperature=temperature
    ).mean()
    mean.backward()
    value, slope = reference(student, teacher, labels, temperature)
    np.testing.assert_allclose(mean.item(), value, rtol=1e-9)
    np.testing.assert_allclose(learner.grad.numpy(), slope, rtol=1e-7, atol=1e-12)


def test_a_student_that_is_ahead_of_its_teacher_hears_less_of_it():
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-5.0, 0.0]], dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.int64)
    soft = -(torch.softmax(teacher, dim=1) * torch.log_softmax(student, dim=1)).sum(dim=1)
    weight = wsld(student, teacher, labels, temperature=1.0) / soft
    assert weight[0] < 0.03
    assert weight[1].item() == pytest.approx(1 - math.exp(-1), rel=1e-6)
    assert weight[2] > 0.99


def test_a_teacher_that_is_certain_gives_full_weight_or_none():
    teacher = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    student = torch.tensor([[0.0, 0.0], [1000.0, 0.0]])
    values = wsld(student, teacher, torch.tensor([0, 0]), temperature=1.0)
    torch.testing.assert_close(values, torch.tensor([math.log(2), 0.0]))


def test_a_schedule_overrides_the_temperature_for_one_call():
    student, teacher = map(torch.tensor, two_sets(4))
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    values = WSLD()(student, teacher, labels=labels, temperature=7.0)
    assert torch.equal(values, wsld(student, teacher, labels, temperature=7.0))


def test_a_bad_temperature_is_refused():
    with pytest.raises(ValueError, match="`temperature > 0` must hold"):
        WSLD(temperature=0.0)
    assert str(WSLD()) == "WSLD(temperature=2.0)"
