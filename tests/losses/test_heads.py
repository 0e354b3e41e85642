"""Heads: the laws for outputs that are true or not by themselves, and the softmax they hide."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given

from conformance.loss import LossCase, LossLaws
from conformance.numbers import agrees, kl, quickly, random_logits, seeds, temperatures, two_sets
from understudy.losses.heads import HardLabels, binary_soft_target_kl, hard_labels
from understudy.losses.logits import SoftTargetKL, soft_target_kl


def random_truths(student, generator):
    return torch.randint(0, 2, student.shape, generator=generator).to(student.dtype)


def both_outcomes(logit, temperature):
    """Each from its own exponential: one minus the other loses the digits of a rare outcome."""
    return 1 / (1 + np.exp(-logit / temperature)), 1 / (1 + np.exp(logit / temperature))


def reference(student, teacher, temperature):
    """The mean over rows of the sum over outputs."""
    total = 0.0
    for own, goal in zip(student.ravel(), teacher.ravel(), strict=True):
        total += kl(both_outcomes(goal, temperature), both_outcomes(own, temperature))
    return temperature**2 * total / len(student)


class TestSigmoidHead(LossLaws):
    @pytest.fixture(params=[1.0, 4.0])
    def case(self, request):
        loss = SoftTargetKL(temperature=request.param, head="sigmoid")
        return LossCase(loss=loss, target=random_logits, equal=torch.clone, narrow=(1,))


class TestHardLabels(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=HardLabels(), target=random_truths, unlabelled=torch.nan, narrow=(1,))


@quickly
@given(seed=seeds, temperature=temperatures)
def test_each_output_is_a_distribution_of_its_own(seed, temperature):
    student, teacher = two_sets(seed, rows=3, classes=4)
    agrees(
        lambda own: binary_soft_target_kl(own, torch.tensor(teacher), temperature=temperature),
        lambda own: reference(own, teacher, temperature),
        student,
    )


def test_one_sigmoid_is_a_softmax_over_zero_and_its_logit():
    student, teacher = (torch.tensor(x[:, :1]) for x in two_sets(1))
    values = binary_soft_target_kl(student, teacher, temperature=3.0)
    wide = [torch.cat([torch.zeros_like(x), x], dim=1) for x in (student, teacher)]
    torch.testing.assert_close(values, soft_target_kl(*wide, temperature=3.0))
    module = SoftTargetKL(temperature=3.0, head="sigmoid")
    assert torch.equal(module(student, teacher), values)
    assert torch.equal(soft_target_kl(student, teacher, temperature=3.0, head="sigmoid"), values)


def test_outputs_add_up():
    student, teacher = map(torch.tensor, two_sets(2))
    single = [
        binary_soft_target_kl(student[:, [i]], teacher[:, [i]], temperature=2.0) for i in range(10)
    ]
    whole = binary_soft_target_kl(student, teacher, temperature=2.0)
    torch.testing.assert_close(whole, torch.stack(single).sum(dim=0))


def test_a_teacher_that_is_certain_by_infinity_is_the_cross_entropy_with_its_answer():
    student = torch.tensor([[0.3, -2.0]], requires_grad=True)
    certain = torch.tensor([[math.inf, -math.inf]])
    values = binary_soft_target_kl(student, certain, temperature=1.0)
    torch.testing.assert_close(values, hard_labels(student, torch.tensor([[1.0, 0.0]])))
    values.sum().backward()
    assert student.grad.isfinite().all()


@quickly
@given(seed=seeds)
def test_hard_labels_agree_with_a_reference_and_count_known_outputs_only(seed):
    student, _ = two_sets(seed, rows=4, classes=5)
    draw = np.random.default_rng(seed)
    labels = draw.choice([0.0, 1.0, 0.25, np.nan], size=student.shape)

    def cost(own):
        total = 0.0
        for z, y in zip(own.ravel(), labels.ravel(), strict=True):
            true = 1 / (1 + np.exp(-z))
            total -= 0 if np.isnan(y) else y * np.log(true) + (1 - y) * np.log(1 - true)
        return total / len(own)

    agrees(lambda own: hard_labels(own, torch.tensor(labels)), cost, student)


def test_an_unknown_output_beside_a_known_one_has_no_gradient_whatever_its_logit():
    student = torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]], requires_grad=True)
    labels = torch.tensor([[1.0, torch.nan], [torch.nan, 0.0]])
    values = hard_labels(student, labels)
    values.sum().backward()
    expected = torch.tensor([math.log1p(math.exp(-1)), math.log1p(math.exp(2))])
    torch.testing.assert_close(values, expected)
    assert student.grad[0, 1] == 0
    assert student.grad[1, 0] == 0
    assert (student.grad.diagonal() != 0).all()


def test_a_sigmoid_head_reads_no_listed_outcomes():
    ids, mass = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1)
    with pytest.raises(ValueError, match="`head == softmax` must hold for listed outcomes"):
        SoftTargetKL(head="sigmoid").outcomes(
            torch.zeros(1, 3), ids=ids, log_mass=mass, rest=mass[0]
        )


@pytest.mark.usefixtures("as_users_run_it")
def test_a_head_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="`head` must be softmax or sigmoid, but got head='tanh'"):
        SoftTargetKL(head="tanh")
    with pytest.raises(ValueError, match="`head` must be softmax or sigmoid"):
        soft_target_kl(torch.zeros(1, 2), torch.zeros(1, 2), temperature=1.0, head="tanh")


def test_the_head_is_printed_where_it_is_not_the_usual_one():
    assert str(SoftTargetKL(head="sigmoid")) == "SoftTargetKL(temperature=4.0, head=sigmoid)"
