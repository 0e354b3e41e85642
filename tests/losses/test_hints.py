"""Losses on features as they are: laws first, then float64 references, then what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from understudy.losses.hints import MGD, Hint, SimKD, hint, mgd, simkd

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
SHAPES = [(3, 2, 4), (5, 3), (6,)]


def random_features(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


class TestHint(LossLaws):
    @pytest.fixture(params=["mean", "sum"])
    def form(self, request):
        return request.param

    @pytest.fixture(params=SHAPES)
    def case(self, request, form):
        loss = Hint(form=form)
        return LossCase(
            loss=loss,
            target=random_features,
            equal=torch.clone,
            shape=request.param,
            narrow=(1,) * len(request.param),
        )


class TestMGD(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=MGD(),
            target=random_features,
            equal=torch.clone,
            shape=(3, 2, 4),
            narrow=(1, 1, 1),
        )


class TestSimKD(LossLaws):
    @pytest.fixture(params=SHAPES)
    def case(self, request):
        return LossCase(
            loss=SimKD(),
            target=random_features,
            equal=torch.clone,
            shape=request.param,
            narrow=(1,) * len(request.param),
        )


def squared_distance(student, teacher):
    return np.array(
        [
            sum((s - t) ** 2 for s, t in zip(a.ravel(), b.ravel(), strict=True))
            for a, b in zip(student, teacher, strict=True)
        ]
    )


@quickly
@given(seed=seeds, shape=st.sampled_from(SHAPES))
def test_all_agree_with_a_float64_reference(seed, shape):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 4, *shape))
    total, count = squared_distance(student, teacher), student[0].size
    own, goal = torch.tensor(student), torch.tensor(teacher)
    expected = {hint: total / count, mgd: total, simkd: total / count}
    for loss, values in expected.items():
        np.testing.assert_allclose(loss(own, goal).numpy(), values, rtol=1e-12)
    np.testing.assert_allclose(hint(own, goal, form="sum").numpy(), total / 2, rtol=1e-12)


@quickly
@given(seed=seeds)
def test_the_gradient_of_each_is_the_gap_times_a_constant(seed):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 4, 3, 2, 4))
    slopes = {
        hint: 2 / 24,
        lambda s, t: hint(s, t, form="sum"): 1.0,
        mgd: 2.0,
        simkd: 2 / 24,
    }
    for loss, slope in slopes.items():
        learner = torch.tensor(student, requires_grad=True)
        loss(learner, torch.tensor(teacher)).sum().backward()
        np.testing.assert_allclose(learner.grad.numpy(), slope * (student - teacher), rtol=1e-12)


def test_the_mean_over_rows_is_the_authors_scalar():
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, 2, 2, generator=draw, dtype=torch.float64)
    mean = torch.nn.functional.mse_loss(student, teacher)
    torch.testing.assert_close(hint(student, teacher).mean(), mean)
    torch.testing.assert_close(simkd(student, teacher).mean(), mean)
    summed = torch.nn.functional.mse_loss(student, teacher, reduction="sum") / 5
    torch.testing.assert_close(mgd(student, teacher).mean(), summed)
    torch.testing.assert_close(hint(student, teacher, form="sum").mean(), summed / 2)


def test_stored_half_precision_features_meet_a_float64_student():
    student = torch.zeros(1, 2, dtype=torch.float64)
    teacher = torch.tensor([[300.0, 300.0]], dtype=torch.float16)
    assert hint(student, teacher).dtype == torch.float64
    # 90,000 is beyond half precision.
    assert hint(student, teacher).item() == 90_000
    assert hint(student.half(), teacher).item() == 90_000


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("loss", [hint, mgd, simkd])
def test_one_pixel_is_not_stretched_over_a_map(loss):
    law = r"must hold, but got student \(2, 3, 1, 1\) and teacher \(2, 3, 4, 4\)"
    with pytest.raises(ValueError, match=law):
        loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 4, 4))


@pytest.mark.usefixtures("as_users_run_it")
def test_a_form_that_does_not_exist_is_refused_when_built_and_when_called():
    law = r"`form` must be one of mean, sum, but got form='max'"
    with pytest.raises(ValueError, match=law):
        Hint(form="max")
    with pytest.raises(ValueError, match=law):
        hint(torch.zeros(1, 2), torch.zeros(1, 2), form="max")


def test_the_module_prints_its_form():
    assert str(Hint(form="sum")) == "Hint(form='sum')"
