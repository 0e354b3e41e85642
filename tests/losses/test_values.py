"""Losses on values: laws first, then independent float64 references, then what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from understudy.losses import HardValue, SoftValue, hard_value, soft_value

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def random_values(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


class TestHardValue(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=HardValue(), target=random_values, equal=torch.clone, unlabelled=torch.nan
        )


class TestSoftValue(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=SoftValue(), target=random_values, equal=torch.clone)


@quickly
@given(seed=seeds, targets=st.integers(1, 5))
def test_both_agree_with_a_float64_reference(seed, targets):
    student, goal = np.random.default_rng(seed).standard_normal((2, 6, targets))
    expected = ((student - goal) ** 2).mean(axis=1)
    for loss in (hard_value, soft_value):
        values = loss(torch.tensor(student), torch.tensor(goal)).numpy()
        np.testing.assert_allclose(values, expected, rtol=1e-12)


@quickly
@given(seed=seeds)
def test_a_row_counts_whole_or_not_at_all(seed):
    draw = np.random.default_rng(seed)
    student, labels = draw.standard_normal((2, 6, 4))
    known = draw.random((6, 4)) < 0.8
    whole = known.all(axis=1)
    expected = ((student - labels) ** 2).mean(axis=1) * whole
    learner = torch.tensor(student, requires_grad=True)
    values = hard_value(learner, torch.tensor(np.where(known, labels, np.nan)))
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-12)
    values.sum().backward()
    assert learner.grad.isfinite().all()
    assert (learner.grad.numpy()[~whole] == 0).all()
    assert (learner.grad.numpy()[whole] != 0).all()


def test_a_teacher_that_answers_nan_is_not_mistaken_for_a_missing_label():
    teacher = torch.tensor([[torch.nan], [1.0]])
    values = soft_value(torch.zeros(2, 1), teacher)
    assert values[0].isnan()
    assert values[1].item() == 1.0


def test_float64_labels_keep_their_digits_against_a_float32_student():
    student, labels = torch.zeros(1, 1), torch.tensor([[1e-3]], dtype=torch.float64)
    assert hard_value(student, labels).item() == pytest.approx(1e-6, rel=1e-14)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("loss", "name"), [(hard_value, "labels"), (soft_value, "teacher")])
def test_nothing_is_stretched_and_both_shapes_are_named(loss, name):
    with pytest.raises(ValueError, match=rf"got student \(8, 1\) and {name} \(8, 10\)"):
        loss(torch.zeros(8, 1), torch.zeros(8, 10))
    with pytest.raises(ValueError, match=rf"got student \(8, 1\) and {name} \(8,\)"):
        loss(torch.zeros(8, 1), torch.zeros(8))


@pytest.mark.usefixtures("as_users_run_it")
def test_rows_without_any_column_are_refused():
    with pytest.raises(ValueError, match=r"`width >= 1`, but got \(8, 0\)"):
        soft_value(torch.zeros(8, 0), torch.zeros(8, 0))
