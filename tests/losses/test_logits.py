"""Losses on logits: laws first, then independent float64 references, then what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from understudy.losses import (
    HardLabel,
    LogitMSE,
    SoftTargetKL,
    hard_label,
    logit_mse,
    soft_target_kl,
)

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
temperatures = st.floats(0.25, 20.0)


def random_logits(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


def random_labels(student, generator):
    return torch.randint(0, student.shape[1], student.shape[:1], generator=generator)


def two_sets(seed, rows=6, classes=10, scale=3.0):
    draw = np.random.default_rng(seed)
    return scale * draw.standard_normal((2, rows, classes))


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def reference_kl(student, teacher, temperature):
    goal = log_softmax(teacher / temperature)
    gap = goal - log_softmax(student / temperature)
    return temperature**2 * (np.exp(goal) * gap).sum(axis=1)


class TestSoftTargetKL(LossLaws):
    @pytest.fixture(params=[1.0, 4.0, 20.0])
    def case(self, request):
        loss = SoftTargetKL(temperature=request.param)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone)


class TestLogitMSE(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=LogitMSE(), target=random_logits, equal=torch.clone)


class TestHardLabel(LossLaws):
    @pytest.fixture(params=[0.0, 0.1])
    def case(self, request):
        loss = HardLabel(label_smoothing=request.param)
        return LossCase(loss=loss, target=random_labels, unlabelled=-1)


@quickly
@given(seed=seeds, temperature=temperatures)
def test_soft_targets_agree_with_a_float64_reference(seed, temperature):
    student, teacher = two_sets(seed)
    expected = reference_kl(student, teacher, temperature)
    exact = soft_target_kl(
        torch.tensor(student), torch.tensor(teacher), temperature=temperature
    ).numpy()
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-12)
    single = soft_target_kl(
        torch.tensor(student).float(), torch.tensor(teacher).float(), temperature=temperature
    ).numpy()
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-3)


@quickly
@given(seed=seeds, temperature=temperatures)
def test_the_gradient_of_soft_targets_is_t_times_the_gap_in_probability(seed, temperature):
    student, teacher = two_sets(seed)
    learner = torch.tensor(student, requires_grad=True)
    soft_target_kl(learner, torch.tensor(teacher), temperature=temperature).sum().backward()
    own, goal = (np.exp(log_softmax(x / temperature)) for x in (student, teacher))
    np.testing.assert_allclose(learner.grad.numpy(), temperature * (own - goal), atol=1e-12)


@quickly
@given(seed=seeds, temperature=temperatures, shift=st.floats(-50, 50))
def test_soft_targets_are_never_negative_and_blind_to_a_constant(seed, temperature, shift):
    student, teacher = map(torch.tensor, two_sets(seed))
    values = soft_target_kl(student, teacher, temperature=temperature)
    assert (values >= -1e-12).all()
    moved = soft_target_kl(student + shift, teacher, temperature=temperature)
    torch.testing.assert_close(moved, values, rtol=1e-8, atol=1e-9)


def test_soft_targets_approach_half_the_variance_of_the_gap_when_hot():
    student, teacher = map(torch.tensor, two_sets(0))
    hot = soft_target_kl(student, teacher, temperature=1e5)
    centred = (student - teacher) - (student - teacher).mean(dim=1, keepdim=True)
    torch.testing.assert_close(hot, centred.square().mean(dim=1) / 2, rtol=1e-3, atol=0)


def test_soft_targets_of_a_certain_teacher_are_the_cross_entropy_with_its_choice():
    student = torch.tensor(two_sets(1)[0])
    labels = torch.tensor([0, 3, 9, 9, 1, 5])
    certain = torch.full_like(student, -torch.inf).scatter(1, labels[:, None], 0.0)
    values = soft_target_kl(student, certain, temperature=1.0)
    torch.testing.assert_close(values, hard_label(student, labels))


def test_a_class_that_the_teacher_rules_out_adds_nothing_and_stays_differentiable():
    teacher = torch.tensor([[0.0, 1.0, -torch.inf], [2.0, -torch.inf, -torch.inf]])
    student = torch.tensor([[0.5, 1.0, -torch.inf], [2.0, 1.0, -torch.inf]], requires_grad=True)
    values = soft_target_kl(student, teacher, temperature=2.0)
    kept = soft_target_kl(student[:1, :2], teacher[:1, :2], temperature=2.0)
    torch.testing.assert_close(values[:1], kept)
    assert values[1].item() == pytest.approx(4 * math.log(1 + math.exp(-0.5)), rel=1e-6)
    values.sum().backward()
    assert student.grad.isfinite().all()
    assert (student.grad[:, 2] == 0).all()


def test_masked_classes_on_both_sides_are_still_zero_at_equality():
    logits = torch.tensor([[0.3, -torch.inf, 2.0]])
    assert soft_target_kl(logits, logits.clone(), temperature=4.0).item() == 0


def test_a_class_that_only_the_student_rules_out_costs_infinity():
    student = torch.tensor([[0.0, -torch.inf]])
    assert soft_target_kl(student, torch.zeros(1, 2), temperature=1.0).item() == math.inf


def test_stored_half_precision_targets_meet_a_float32_student():
    student, teacher = map(torch.tensor, two_sets(2))
    values = soft_target_kl(student.float(), teacher.half(), temperature=4.0)
    assert values.dtype == torch.float32
    expected = soft_target_kl(student.float(), teacher.half().float(), temperature=4.0)
    assert torch.equal(values, expected)


def test_a_schedule_overrides_the_temperature_of_the_module_for_one_call():
    student, teacher = map(torch.tensor, two_sets(3))
    loss = SoftTargetKL(temperature=2.0)
    warm = soft_target_kl(student, teacher, temperature=7.0)
    assert torch.equal(loss(student, teacher, temperature=7.0), warm)
    assert torch.equal(loss(student, teacher), soft_target_kl(student, teacher, temperature=2.0))


@quickly
@given(seed=seeds)
def test_logit_mse_agrees_with_a_float64_reference(seed):
    student, teacher = two_sets(seed)
    values = logit_mse(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(values, ((student - teacher) ** 2).mean(axis=1), rtol=1e-12)
    papers = LogitMSE(form="half_sum")(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(papers, ((student - teacher) ** 2).sum(axis=1) / 2, rtol=1e-12)


@pytest.mark.usefixtures("as_users_run_it")
def test_a_form_of_logit_mse_that_there_is_not_is_refused():
    for make in (LogitMSE, lambda form: logit_mse(torch.zeros(1, 2), torch.zeros(1, 2), form=form)):
        with pytest.raises(
            ValueError, match="`form` must be one of mean, half_sum, but got form='"
        ):
            make(form="sum")


@quickly
@given(seed=seeds, smoothing=st.floats(0, 0.5))
def test_hard_labels_agree_with_a_float64_reference(seed, smoothing):
    student, _ = two_sets(seed)
    labels = np.random.default_rng(seed).integers(-1, 10, size=len(student))
    wanted = (1 - smoothing) * np.eye(10)[labels] + smoothing / 10
    expected = -(wanted * log_softmax(student)).sum(axis=1) * (labels != -1)
    values = hard_label(
        torch.tensor(student), torch.tensor(labels), label_smoothing=smoothing
    ).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def test_a_batch_without_any_label_is_zero_and_has_no_gradient():
    student = torch.randn(4, 3, requires_grad=True)
    values = hard_label(student, torch.full((4,), -1))
    assert torch.equal(values, torch.zeros(4))
    values.sum().backward()
    assert torch.equal(student.grad, torch.zeros(4, 3))


def test_a_label_beyond_the_last_class_is_refused():
    with pytest.raises(IndexError, match="out of bounds"):
        hard_label(torch.zeros(1, 3), torch.tensor([3]))


BAD_TEMPERATURES = [0.0, -1.0, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD_TEMPERATURES)
def test_a_temperature_that_is_not_positive_and_finite_is_refused(bad):
    law = f"`temperature > 0` must hold, but got temperature={bad}"
    logits = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=law):
        SoftTargetKL(temperature=bad)
    with pytest.raises(ValueError, match=law):
        soft_target_kl(logits, logits, temperature=bad)
    with pytest.raises(ValueError, match=law):
        SoftTargetKL()(logits, logits, temperature=bad)


@pytest.mark.parametrize("bad", [-0.1, 1.0, math.nan, math.inf])
def test_a_smoothing_outside_zero_to_one_is_refused(bad):
    law = f"`0 <= label_smoothing < 1` must hold, but got label_smoothing={bad}"
    with pytest.raises(ValueError, match=law):
        HardLabel(label_smoothing=bad)
    with pytest.raises(ValueError, match=law):
        hard_label(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), label_smoothing=bad)


@pytest.mark.usefixtures("as_users_run_it")
def test_one_column_is_not_stretched_over_ten():
    with pytest.raises(ValueError, match=r"got student \(8, 1\) and teacher \(8, 10\)"):
        soft_target_kl(torch.zeros(8, 1), torch.zeros(8, 10), temperature=1.0)
    with pytest.raises(ValueError, match=r"got student \(8, 10\) and teacher \(8, 1\)"):
        logit_mse(torch.zeros(8, 10), torch.zeros(8, 1))


@pytest.mark.usefixtures("as_users_run_it")
def test_a_distribution_over_one_class_is_refused_as_it_would_teach_nothing():
    law = r"`width >= 2`, but got \(8, 1\)"
    with pytest.raises(ValueError, match=law):
        soft_target_kl(torch.zeros(8, 1), torch.zeros(8, 1), temperature=1.0)
    with pytest.raises(ValueError, match=law):
        hard_label(torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64))


@pytest.mark.usefixtures("as_users_run_it")
def test_labels_of_another_type_are_refused():
    with pytest.raises(ValueError, match=r"torch.int64` must hold, but got torch.float32"):
        hard_label(torch.zeros(2, 3), torch.zeros(2))


def test_modules_print_their_constants():
    assert str(SoftTargetKL(temperature=2.5)) == "SoftTargetKL(temperature=2.5)"
    assert str(HardLabel(label_smoothing=0.1)) == "HardLabel(label_smoothing=0.1)"
