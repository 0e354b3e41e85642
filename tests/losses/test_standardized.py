"""Standardised logits: the transform, the laws of what is wrapped, and what is passed on."""

import numpy as np
import pytest
import torch
from hypothesis import given

from conformance.loss import LossCase, LossLaws
from conformance.numbers import (
    agrees,
    beside_labels,
    kl,
    quickly,
    random_logits,
    seeds,
    softmax,
    temperatures,
    two_sets,
)
from understudy.losses.decoupled import DKD
from understudy.losses.logits import LogitMSE, SoftTargetKL
from understudy.losses.standardized import Standardized, standardize
from understudy.losses.tempered import CTKD


def scored(row):
    mean = sum(row) / len(row)
    deviation = np.sqrt(sum((x - mean) ** 2 for x in row) / (len(row) - 1))
    return (row - mean) / (1e-7 + deviation)


def reference(student, teacher, temperature):
    values = [
        kl(softmax(scored(goal) / temperature), softmax(scored(own) / temperature))
        for own, goal in zip(student, teacher, strict=True)
    ]
    return temperature**2 * np.mean(values)


class TestStandardized(LossLaws):
    # Two classes have the scores ±0.707 whatever their logits: no gradient, but still finite.
    @pytest.fixture(params=[SoftTargetKL(temperature=2.0), LogitMSE()], ids=["kl", "mse"])
    def case(self, request):
        loss = Standardized(loss=request.param)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone)


class TestStandardizedBesideLabels(LossLaws):
    @pytest.fixture
    def case(self):
        loss = Standardized(loss=DKD())
        return LossCase(loss=loss, target=random_logits, also=beside_labels, equal=torch.clone)


@quickly
@given(seed=seeds, temperature=temperatures)
def test_the_usual_loss_agrees_with_a_reference(seed, temperature):
    student, teacher = two_sets(seed, rows=3, classes=4)
    agrees(
        lambda own: Standardized(loss=SoftTargetKL(temperature=temperature))(
            own, torch.tensor(teacher)
        ),
        lambda own: reference(own, teacher, temperature),
        student,
    )


def test_rows_have_mean_zero_and_an_unbiased_deviation_of_one():
    values = standardize(torch.tensor(two_sets(1)[0]))
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(6, dtype=torch.float64))
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(values.std(dim=1), ones, rtol=1e-6, atol=0)
    assert (values.std(dim=1, unbiased=False) < 0.95).all()


def test_size_and_level_of_a_row_do_not_matter():
    student, teacher = map(torch.tensor, two_sets(2))
    loss = Standardized()
    torch.testing.assert_close(
        loss(7 * student - 3, 0.1 * teacher + 50), loss(student, teacher), rtol=1e-5, atol=1e-6
    )


def test_the_default_is_the_soft_target_at_temperature_two():
    student, teacher = map(torch.tensor, two_sets(3))
    expected = SoftTargetKL(temperature=2.0)(standardize(student), standardize(teacher))
    assert torch.equal(Standardized()(student, teacher), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("level", [0.0, 0.1, -123.4, 1e6])
def test_a_constant_row_is_zero_and_has_no_gradient(dtype, level):
    row = torch.full((1, 7), level, dtype=dtype, requires_grad=True)
    values = standardize(row)
    assert torch.equal(values, torch.zeros_like(values))
    values[0, 0].backward()
    assert torch.equal(row.grad, torch.zeros_like(row))


def test_a_row_that_differs_by_little_is_still_told_apart():
    row = torch.tensor([[1.0, 1.0, 1.0 + 1e-4]])
    values = standardize(row)
    assert values.argmax() == 2
    assert values.std().item() == pytest.approx(1, rel=0.01)


def test_labels_and_temperature_are_passed_on_where_they_are_given():
    student, teacher = map(torch.tensor, two_sets(4))
    own, goal = standardize(student), standardize(teacher)
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    dkd, ctkd, heat = DKD(), CTKD(), torch.tensor(3.0)
    assert torch.equal(
        Standardized(loss=dkd)(student, teacher, labels=labels, temperature=3.0),
        dkd(own, goal, labels=labels, temperature=3.0),
    )
    assert torch.equal(
        Standardized(loss=ctkd)(student, teacher, temperature=heat),
        ctkd(own, goal, temperature=heat),
    )


def test_it_reads_no_listed_outcomes_though_the_loss_inside_could():
    assert hasattr(SoftTargetKL, "outcomes")
    assert not hasattr(Standardized(), "outcomes")


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("shape", [(4, 1), (4,), (2, 3, 4)])
def test_what_has_no_deviation_is_refused(shape):
    with pytest.raises(ValueError, match=r"`logits` must be .* with `classes >= 2`, but got"):
        standardize(torch.zeros(shape))
