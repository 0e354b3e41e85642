"""Variational information distillation: laws, a float64 reference, what it learns, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws
from understudy.losses.variational import VID, vid

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def random_features(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


class TestVID(LossLaws):
    @pytest.fixture(params=[(3, 2, 4), (5, 3), (3,)])
    def case(self, request):
        return LossCase(
            loss=VID(),
            target=random_features,
            shape=request.param,
            narrow=None,
            constants={"log_scale": torch.tensor([-2.0, 0.5, 5.0])},
        )


def reference(student, teacher, log_scale, eps):
    values = np.zeros(len(student))
    for index in np.ndindex(student.shape):
        variance = math.log1p(math.exp(log_scale[index[1]])) + eps
        square = (student[index] - teacher[index]) ** 2
        values[index[0]] += (square / variance + math.log(variance)) / 2
    return values / student[0].size


@quickly
@given(seed=seeds, eps=st.sampled_from([1e-5, 0.1]))
def test_it_agrees_with_a_float64_reference(seed, eps):
    draw = np.random.default_rng(seed)
    student, teacher = draw.standard_normal((2, 4, 3, 2, 2))
    log_scale = 3 * draw.standard_normal(3)
    values = vid(
        torch.tensor(student), torch.tensor(teacher), log_scale=torch.tensor(log_scale), eps=eps
    )
    np.testing.assert_allclose(
        values.numpy(), reference(student, teacher, log_scale, eps), rtol=1e-8
    )


def test_the_gradient_reaches_the_means_and_the_variances():
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 2, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, generator=draw, dtype=torch.float64)
    scale = torch.randn(3, generator=draw, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda s, a: vid(s, teacher, log_scale=a), (student, scale))


def test_it_is_negative_where_the_student_is_rightly_sure():
    features = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    sure = torch.full((3,), -20.0)
    values = vid(features, features, log_scale=sure)
    torch.testing.assert_close(values, torch.full((2,), math.log(1e-5) / 2), rtol=1e-3, atol=0)


def test_the_best_variance_is_the_mean_squared_error_of_its_channel():
    draw = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 8, 3, 2, 2, generator=draw, dtype=torch.float64)
    errors = (student - teacher).square().mean(dim=(0, 2, 3))
    scale = (errors - 1e-5).expm1().log().requires_grad_()
    vid(student, teacher, log_scale=scale).mean().backward()
    torch.testing.assert_close(scale.grad, torch.zeros(3).double(), rtol=0, atol=1e-12)
    best = vid(student, teacher, log_scale=scale).mean().item()
    assert best == pytest.approx((errors.log().mean().item() + 1) / 2, rel=1e-9)


def test_a_very_large_scale_is_its_own_variance():
    # log(1 + exp(x)) written out overflows from 89 on.
    zeros = torch.zeros(1, 1)
    value = vid(zeros, zeros, log_scale=torch.tensor([500.0]))
    assert value.item() == pytest.approx(math.log(500) / 2, rel=1e-6)


def test_the_scale_of_tokens_belongs_to_their_width():
    student, teacher = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(4))
    scale = torch.tensor([-1.0, 0.0, 2.0])
    as_maps = [x.transpose(1, 2)[..., None] for x in (student, teacher)]
    torch.testing.assert_close(
        vid(student, teacher, log_scale=scale), vid(*as_maps, log_scale=scale)
    )


@pytest.mark.usefixtures("as_users_run_it")
def test_one_scale_for_all_channels_is_not_stretched():
    features = torch.zeros(2, 3, 4, 4)
    law = r"must hold, but got log_scale \(1,\) and teacher \(2, 3, 4, 4\)"
    with pytest.raises(ValueError, match=law):
        vid(features, features, log_scale=torch.zeros(1))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("bad", [0.0, -1e-5, math.nan])
def test_a_smallest_variance_that_is_not_positive_is_refused(bad):
    law = f"`eps > 0` must hold, but got eps={bad}"
    with pytest.raises(ValueError, match=law):
        VID(eps=bad)
    with pytest.raises(ValueError, match=law):
        vid(torch.zeros(1, 1), torch.zeros(1, 1), log_scale=torch.zeros(1), eps=bad)


def test_the_module_prints_its_constant():
    assert str(VID()) == "VID(eps=1e-05)"
