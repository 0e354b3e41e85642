"""Neuron selectivity: laws, a float64 reference per kernel, what it does not see, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws
from understudy.losses.selectivity import NST, nst

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
KERNELS = ["polynomial", "linear", "gaussian"]


def random_channels(student, generator):
    shape = (len(student), student.shape[1] + 2, *student.shape[2:])
    return 2 * torch.randn(shape, generator=generator).to(student.dtype)


class TestNST(LossLaws):
    @pytest.fixture(params=KERNELS)
    def case(self, request):
        return LossCase(
            loss=NST(kernel=request.param),
            target=random_channels,
            equal=torch.clone,
            shape=(3, 2, 4),
            narrow=(1, 1, 2),
        )


class TestTheStudentsPartOfNST(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=NST(form="student"), target=random_channels, shape=(3, 2, 4), narrow=(1, 1, 2)
        )


def channels(features):
    vectors = features.reshape(len(features), -1)
    return [v / math.sqrt((v**2).sum()) for v in vectors]


def mean_kernel(one, other, kernel, width):
    total = 0.0
    for a in one:
        for b in other:
            product = float((a * b).sum())
            if kernel == "gaussian":
                total += math.exp(-((a - b) ** 2).sum() / (2 * width))
            else:
                total += product**2 if kernel == "polynomial" else product
    return total / (len(one) * len(other))


def reference(student, teacher, kernel, width=None):
    own, goal = channels(student), channels(teacher)
    if width is None:
        width = np.mean([((a - b) ** 2).sum() for a in own for b in goal])
    return (
        mean_kernel(own, own, kernel, width)
        + mean_kernel(goal, goal, kernel, width)
        - 2 * mean_kernel(own, goal, kernel, width)
    )


@pytest.mark.parametrize("kernel", KERNELS)
@quickly
@given(seed=seeds)
def test_it_agrees_with_a_float64_reference(kernel, seed):
    draw = np.random.default_rng(seed)
    student, teacher = draw.standard_normal((3, 4, 2, 3)), draw.standard_normal((3, 5, 2, 3))
    expected = [reference(s, t, kernel) for s, t in zip(student, teacher, strict=True)]
    values = nst(torch.tensor(student), torch.tensor(teacher), kernel=kernel)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", ["polynomial", "linear"])
def test_its_gradient_is_that_of_its_value(kernel):
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 2, 3, generator=draw, dtype=torch.float64)
    assert gradcheck(lambda s: nst(s, teacher, kernel=kernel), student)


def test_the_gaussian_kernel_keeps_its_width_while_it_learns():
    draw = np.random.default_rng(4)
    student, teacher = draw.standard_normal((3, 1, 4)), draw.standard_normal((2, 1, 4))
    learner = torch.tensor(student[None], requires_grad=True)
    nst(learner, torch.tensor(teacher[None]), kernel="gaussian").sum().backward()
    own, goal = channels(student), channels(teacher)
    width = np.mean([((a - b) ** 2).sum() for a in own for b in goal])
    slopes = np.zeros_like(student)
    for index in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[index] = 1e-6
        rise = reference(student + step, teacher, "gaussian", width)
        slopes[index] = (rise - reference(student - step, teacher, "gaussian", width)) / 2e-6
    np.testing.assert_allclose(learner.grad[0].numpy(), slopes, rtol=1e-6, atol=1e-9)


def test_a_gaussian_kernel_of_single_equal_channels_is_not_infinitely_narrow():
    teacher = torch.randn(3, 1, 2, 4, generator=torch.Generator().manual_seed(9))
    student = teacher.clone().requires_grad_()
    values = nst(student, teacher, kernel="gaussian")
    assert torch.equal(values, torch.zeros(3))
    values.sum().backward()
    assert student.grad.abs().max() < 1e-3


def test_the_students_part_has_the_same_gradient_and_lacks_a_constant():
    draw = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 3, 4, 2, 3, generator=draw, dtype=torch.float64)
    grads = []
    for form in ("full", "student"):
        learner = student.clone().requires_grad_()
        nst(learner, teacher, form=form).sum().backward()
        grads.append(learner.grad)
    assert torch.equal(*grads)
    gap = nst(student, teacher) - nst(student, teacher, form="student")
    constant = torch.tensor(
        [mean_kernel(channels(t), channels(t), "polynomial", None) for t in teacher.numpy()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(gap, constant)


@pytest.mark.parametrize("kernel", KERNELS)
def test_neither_order_nor_number_nor_size_of_channels_counts(kernel):
    student = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(6)).double()
    teacher = torch.cat([7 * student.flip(1), student], dim=1)
    values = nst(student, teacher, kernel=kernel)
    torch.testing.assert_close(values, torch.zeros(3).double(), rtol=0, atol=1e-12)


def test_a_channel_that_is_switched_off_has_no_gradient_and_breaks_nothing():
    draw = torch.Generator().manual_seed(7)
    student, teacher = torch.randn(2, 2, 3, 2, 3, generator=draw)
    student[:, 1] = 0
    for kernel in KERNELS:
        learner = student.clone().requires_grad_()
        nst(learner, teacher, kernel=kernel).sum().backward()
        assert learner.grad.isfinite().all()
        assert (learner.grad[:, 1] == 0).all()
        assert (learner.grad[:, 0] != 0).any()


def test_many_channels_do_not_need_a_tensor_of_all_pairs_at_all_places():
    # 512 by 512 channels at 400 places would be 400 MB for a single row.
    student = torch.randn(1, 512, 20, 20, generator=torch.Generator().manual_seed(8))
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel()) or t, lambda t: t
    ):
        nst(student.requires_grad_(), student.detach().flip(1))
    assert max(sizes) <= 512 * 512


@pytest.mark.usefixtures("as_users_run_it")
def test_maps_of_another_size_and_single_pixels_are_refused():
    law = r"must hold, but got student \(2, 3, 2, 4\) and teacher \(2, 3, 4, 2\)"
    with pytest.raises(ValueError, match=law):
        nst(torch.zeros(2, 3, 2, 4), torch.zeros(2, 3, 4, 2))
    with pytest.raises(ValueError, match="`places >= 2` must hold, but got student"):
        nst(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1))


@pytest.mark.usefixtures("as_users_run_it")
def test_choices_that_do_not_exist_are_refused():
    for bad, law in [
        ({"kernel": "rbf"}, "`kernel` must be one"),
        ({"form": "half"}, "`form` must"),
    ]:
        with pytest.raises(ValueError, match=law):
            NST(**bad)
        with pytest.raises(ValueError, match=law):
            nst(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), **bad)


def test_the_module_prints_its_constants():
    assert str(NST()) == "NST(kernel='polynomial', form='full')"
