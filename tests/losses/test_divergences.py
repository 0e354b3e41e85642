"""Reverse and Jensen-Shannon divergences: laws, references, limits, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from conformance.numbers import (
    agrees,
    kl,
    quickly,
    random_logits,
    seeds,
    softmax,
    temperatures,
    two_sets,
)
from understudy.losses.divergences import JensenShannon, ReverseKL, jensen_shannon, reverse_kl
from understudy.losses.logits import soft_target_kl

HEADS = ["softmax", "sigmoid"]


def reference_reverse(student, teacher, temperature):
    rows = zip(student / temperature, teacher / temperature, strict=True)
    return temperature**2 * np.mean([kl(softmax(own), softmax(goal)) for own, goal in rows])


def reference_shannon(student, teacher, beta, temperature):
    values = []
    for own, goal in zip(student / temperature, teacher / temperature, strict=True):
        q, p = softmax(own), softmax(goal)
        middle = beta * p + (1 - beta) * q
        values.append(beta * kl(p, middle) + (1 - beta) * kl(q, middle))
    return temperature**2 * np.mean(values)


class TestReverseKL(LossLaws):
    @pytest.fixture(params=[("softmax", 1.0), ("softmax", 4.0), ("sigmoid", 1.0)])
    def case(self, request):
        head, temperature = request.param
        loss = ReverseKL(temperature=temperature, head=head)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone)


class TestJensenShannon(LossLaws):
    @pytest.fixture(params=[("softmax", 0.5), ("softmax", 0.1), ("sigmoid", 0.9)])
    def case(self, request):
        head, beta = request.param
        loss = JensenShannon(beta=beta, head=head)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone)


@quickly
@given(seed=seeds, temperature=temperatures)
def test_the_reverse_agrees_with_a_reference(seed, temperature):
    student, teacher = two_sets(seed, rows=3, classes=4)
    agrees(
        lambda own: reverse_kl(own, torch.tensor(teacher), temperature=temperature),
        lambda own: reference_reverse(own, teacher, temperature),
        student,
    )


@quickly
@given(seed=seeds, beta=st.floats(0.01, 0.99), temperature=temperatures)
def test_jensen_shannon_agrees_with_a_reference(seed, beta, temperature):
    student, teacher = two_sets(seed, rows=3, classes=4)
    agrees(
        lambda own: jensen_shannon(own, torch.tensor(teacher), beta=beta, temperature=temperature),
        lambda own: reference_shannon(own, teacher, beta, temperature),
        student,
    )


def test_the_reverse_is_the_soft_target_with_sides_exchanged():
    student, teacher = map(torch.tensor, two_sets(3))
    values = reverse_kl(student, teacher, temperature=2.0)
    torch.testing.assert_close(values, soft_target_kl(teacher, student, temperature=2.0))


@pytest.mark.parametrize("head", HEADS)
def test_jensen_shannon_is_symmetric_in_the_middle_and_bounded(head):
    student, teacher = (200 * torch.tensor(x) for x in two_sets(4))
    ahead = jensen_shannon(student, teacher, beta=0.5, temperature=1.0, head=head)
    back = jensen_shannon(teacher, student, beta=0.5, temperature=1.0, head=head)
    torch.testing.assert_close(ahead, back)
    outputs = 1 if head == "softmax" else student.shape[1]
    assert (ahead <= outputs * math.log(2) + 1e-12).all()
    assert ahead.max() > 0.5


def test_jensen_shannon_leads_from_the_forward_to_the_reverse_divergence():
    student, teacher = map(torch.tensor, two_sets(5, scale=1.0))
    near, far = 1e-6, 1 - 1e-6
    ahead = jensen_shannon(student, teacher, beta=near, temperature=1.0) / near
    torch.testing.assert_close(
        ahead, soft_target_kl(student, teacher, temperature=1.0), rtol=1e-3, atol=0
    )
    back = jensen_shannon(student, teacher, beta=far, temperature=1.0) / (1 - far)
    torch.testing.assert_close(
        back, reverse_kl(student, teacher, temperature=1.0), rtol=1e-3, atol=0
    )


def test_a_class_that_one_side_rules_out():
    certain = torch.tensor([[0.0, -torch.inf]])
    learner = torch.zeros(1, 2, requires_grad=True)
    assert reverse_kl(torch.zeros(1, 2), certain, temperature=1.0).item() == math.inf
    value = jensen_shannon(learner, certain, beta=0.5, temperature=1.0)
    expected = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.sum().backward()
    assert learner.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_class_that_both_rule_out_adds_nothing(temperature):
    student = torch.tensor([[0.3, -torch.inf, 2.0]], requires_grad=True)
    teacher = torch.tensor([[1.3, -torch.inf, 0.0]])
    for loss in (ReverseKL(), JensenShannon()):
        value = loss(student, teacher, temperature=temperature)
        kept = loss(student[:, [0, 2]], teacher[:, [0, 2]], temperature=temperature)
        torch.testing.assert_close(value, kept)
        (grad,) = torch.autograd.grad(value.sum(), student)
        assert grad.isfinite().all()
        assert grad[0, 1] == 0


def test_a_schedule_overrides_the_temperature_for_one_call():
    student, teacher = map(torch.tensor, two_sets(6))
    assert torch.equal(
        ReverseKL()(student, teacher, temperature=7.0),
        reverse_kl(student, teacher, temperature=7.0),
    )
    assert torch.equal(
        JensenShannon(beta=0.2)(student, teacher, temperature=7.0),
        jensen_shannon(student, teacher, beta=0.2, temperature=7.0),
    )


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, math.nan])
def test_a_blend_of_one_alone_is_refused(bad):
    with pytest.raises(ValueError, match=f"`0 < beta < 1` must hold, but got beta={bad}"):
        JensenShannon(beta=bad)
    with pytest.raises(ValueError, match="`0 < beta < 1` must hold"):
        jensen_shannon(torch.zeros(1, 2), torch.zeros(1, 2), beta=bad, temperature=1.0)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("module", [ReverseKL, JensenShannon])
def test_a_bad_temperature_or_head_is_refused(module):
    with pytest.raises(ValueError, match="`temperature > 0` must hold"):
        module(temperature=0.0)
    with pytest.raises(ValueError, match="`temperature > 0` must hold"):
        module()(torch.zeros(1, 2), torch.zeros(1, 2), temperature=math.nan)
    with pytest.raises(ValueError, match="`head` must be softmax or sigmoid"):
        module(head="linear")
    with pytest.raises(ValueError, match=r"`width >= 2`, but got \(3, 1\)"):
        module()(torch.zeros(3, 1), torch.zeros(3, 1))
    assert module(head="sigmoid")(torch.zeros(3, 1), torch.zeros(3, 1)).shape == (3,)


def test_modules_print_their_constants():
    assert str(ReverseKL()) == "ReverseKL(temperature=1.0, head=softmax)"
    assert str(JensenShannon()) == "JensenShannon(beta=0.5, temperature=1.0, head=softmax)"
