"""A learnt temperature: laws, its own gradient, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given

from conformance.loss import LossCase, LossLaws
from conformance.numbers import kl, quickly, random_logits, seeds, slope, softmax, two_sets
from understudy.losses.logits import soft_target_kl
from understudy.losses.tempered import CTKD, ctkd


def reference(student, teacher, heat):
    pairs = zip(student, teacher, strict=True)
    return heat**2 * np.mean([kl(softmax(goal / heat), softmax(own / heat)) for own, goal in pairs])


class TestCTKD(LossLaws):
    @pytest.fixture(params=[torch.tensor(1.0), torch.tensor([15.6])], ids=["one", "usual"])
    def case(self, request):
        constants = {"temperature": request.param}
        return LossCase(loss=CTKD(), target=random_logits, equal=torch.clone, constants=constants)


@quickly
@given(seed=seeds)
@pytest.mark.parametrize("heat", [0.8, 4.0, 15.6])
def test_the_gradient_reaches_student_and_temperature(seed, heat):
    student, teacher = two_sets(seed, rows=3, classes=4)
    learner = torch.tensor(student, requires_grad=True)
    temperature = torch.tensor(heat, dtype=torch.float64, requires_grad=True)
    mean = ctkd(learner, torch.tensor(teacher), temperature=temperature).mean()
    mean.backward()
    np.testing.assert_allclose(mean.item(), reference(student, teacher, heat), rtol=1e-9)
    by_student = slope(lambda own: reference(own, teacher, heat), student)
    np.testing.assert_allclose(learner.grad.numpy(), by_student, rtol=1e-4, atol=1e-6)
    by_heat = slope(lambda t: reference(student, teacher, t[0]), np.array([heat]))
    np.testing.assert_allclose(temperature.grad.item(), by_heat[0], rtol=1e-4, atol=1e-6)


def test_a_temperature_that_does_not_learn_is_the_soft_target():
    student, teacher = map(torch.tensor, two_sets(1))
    values = ctkd(student, teacher, temperature=torch.tensor([3.0]))
    torch.testing.assert_close(values, soft_target_kl(student, teacher, temperature=3.0))


def test_a_class_that_the_teacher_rules_out_leaves_the_temperature_a_gradient():
    temperature = torch.tensor(2.0, requires_grad=True)
    student = torch.tensor([[0.5, 1.0, 3.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0, -torch.inf]])
    values = ctkd(student, teacher, temperature=temperature)
    torch.testing.assert_close(values, soft_target_kl(student, teacher, temperature=2.0))
    values.sum().backward()
    assert temperature.grad.isfinite()
    assert temperature.grad != 0
    assert student.grad.isfinite().all()


def test_a_half_precision_temperature_is_widened():
    student, teacher = (torch.tensor(x).float() for x in two_sets(2))
    values = ctkd(student, teacher, temperature=torch.tensor(3.0, dtype=torch.bfloat16))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, soft_target_kl(student, teacher, temperature=3.0))


@pytest.mark.usefixtures("as_users_run_it")
def test_a_temperature_per_row_is_refused():
    law = r"`temperature.numel\(\) == 1` must hold, but got temperature \(2, 1\)"
    with pytest.raises(ValueError, match=law):
        ctkd(torch.zeros(2, 3), torch.zeros(2, 3), temperature=torch.ones(2, 1))
