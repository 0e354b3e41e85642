"""Factor transfer: laws, a float64 reference for both published forms, what it refuses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws
from understudy.losses.factors import FactorTransfer, factor_transfer

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def random_factors(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


class TestFactorTransfer(LossLaws):
    @pytest.fixture(params=["whole", "map"])
    def case(self, request):
        return LossCase(
            loss=FactorTransfer(form=request.param),
            target=random_factors,
            equal=torch.clone,
            shape=(3, 2, 4),
            narrow=(1, 1, 2),
        )


class TestFactorTransferOfVectors(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=FactorTransfer(), target=random_factors, equal=torch.clone)


def of_length_one(numbers):
    return numbers / math.sqrt(sum(n**2 for n in numbers))


@quickly
@given(seed=seeds)
def test_both_forms_agree_with_a_float64_reference(seed):
    draw = np.random.default_rng(seed)
    student, teacher = draw.standard_normal((4, 3, 2, 2)), 5 * draw.standard_normal((4, 3, 2, 2))
    whole, places = np.zeros(4), np.zeros(4)
    for row in range(4):
        own, goal = (of_length_one(x[row].ravel()) for x in (student, teacher))
        whole[row] = sum(abs(own - goal)) / 12
        own, goal = (of_length_one((x[row] ** 2).mean(axis=0).ravel()) for x in (student, teacher))
        places[row] = sum(abs(own - goal)) / 4
    own, goal = torch.tensor(student), torch.tensor(teacher)
    np.testing.assert_allclose(factor_transfer(own, goal).numpy(), whole, rtol=1e-10)
    np.testing.assert_allclose(factor_transfer(own, goal, form="map").numpy(), places, rtol=1e-10)


@pytest.mark.parametrize("form", ["whole", "map"])
def test_the_gradient_is_that_of_the_value(form):
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 2, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, generator=draw, dtype=torch.float64)
    assert gradcheck(lambda s: factor_transfer(s, teacher, form=form), student)


def test_the_size_of_a_factor_does_not_count_and_its_channels_only_as_a_whole():
    student, teacher = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    whole, places = (factor_transfer(student, teacher, form=f) for f in ("whole", "map"))
    torch.testing.assert_close(factor_transfer(5 * student, teacher / 7), whole)
    turned = student.flip(1)
    torch.testing.assert_close(factor_transfer(turned, teacher, form="map"), places)
    assert (factor_transfer(turned, teacher) - whole).abs().min() > 1e-3


@pytest.mark.usefixtures("as_users_run_it")
def test_vectors_have_no_map_and_other_forms_do_not_exist():
    vectors = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="`places >= 2` must hold, but got student"):
        factor_transfer(vectors, vectors, form="map")
    for refusing in (FactorTransfer, lambda form: factor_transfer(vectors, vectors, form=form)):
        with pytest.raises(ValueError, match="`form` must be one of whole, map, but got form='l2'"):
            refusing(form="l2")


def test_the_module_prints_its_form():
    assert str(FactorTransfer()) == "FactorTransfer(form='whole')"
