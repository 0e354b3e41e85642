"""Decoupled losses: laws, references from the definition, two classes, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
from understudy.losses.decoupled import DKD, NKD, dkd, nkd
from understudy.losses.logits import hard_label, soft_target_kl

weights = st.floats(0.0, 8.0)


def some_labels(seed, rows, classes):
    return np.random.default_rng(seed + 1).integers(0, classes, size=rows)


def reference_dkd(student, teacher, labels, alpha, beta, temperature):
    """As the paper defines it: two coarse outcomes, then the others normalised."""
    values = []
    for own, goal, y in zip(student / temperature, teacher / temperature, labels, strict=True):
        q, p = softmax(own), softmax(goal)
        coarse = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        fine = kl(np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y]))
        values.append(alpha * coarse + beta * fine)
    return temperature**2 * np.mean(values)


def reference_nkd(student, teacher, labels, gamma, temperature):
    values = []
    for own, goal, y in zip(student, teacher, labels, strict=True):
        true = -softmax(goal)[y] * np.log(softmax(own)[y])
        q, p = (softmax(np.delete(x, y) / temperature) for x in (own, goal))
        values.append(true - gamma * temperature**2 * (p * np.log(q)).sum())
    return np.mean(values)


class TestDKD(LossLaws):
    @pytest.fixture(params=[1.0, 4.0])
    def case(self, request):
        loss = DKD(temperature=request.param)
        return LossCase(loss=loss, target=random_logits, also=beside_labels, equal=torch.clone)


class TestNKD(LossLaws):
    @pytest.fixture(params=[1.0, 4.0])
    def case(self, request):
        loss = NKD(temperature=request.param)
        return LossCase(loss=loss, target=random_logits, also=beside_labels)


@quickly
@given(seed=seeds, alpha=weights, beta=weights, temperature=temperatures)
def test_dkd_agrees_with_its_definition(seed, alpha, beta, temperature):
    student, teacher = two_sets(seed, rows=3, classes=4, scale=2.0)
    labels = some_labels(seed, 3, 4)
    constants = {"alpha": alpha, "beta": beta, "temperature": temperature}
    agrees(
        lambda own: dkd(own, torch.tensor(teacher), torch.tensor(labels), **constants),
        lambda own: reference_dkd(own, teacher, labels, *constants.values()),
        student,
    )


@quickly
@given(seed=seeds, gamma=weights, temperature=temperatures)
def test_nkd_agrees_with_its_definition(seed, gamma, temperature):
    student, teacher = two_sets(seed, rows=3, classes=4, scale=2.0)
    labels = some_labels(seed, 3, 4)
    constants = {"gamma": gamma, "temperature": temperature}
    agrees(
        lambda own: nkd(own, torch.tensor(teacher), torch.tensor(labels), **constants),
        lambda own: reference_nkd(own, teacher, labels, gamma, temperature),
        student,
    )


def test_the_two_parts_make_up_the_soft_target_where_the_second_is_weighed_by_doubt():
    student, teacher = map(torch.tensor, two_sets(1))
    labels = torch.tensor(some_labels(1, 6, 10))
    both = {"labels": labels, "temperature": 2.0}
    coarse = dkd(student, teacher, **both, alpha=1.0, beta=0.0)
    fine = dkd(student, teacher, **both, alpha=0.0, beta=1.0)
    doubt = 1 - torch.softmax(teacher / 2, dim=1).gather(1, labels[:, None]).squeeze(1)
    whole = soft_target_kl(student, teacher, temperature=2.0)
    torch.testing.assert_close(coarse + doubt * fine, whole)


def test_two_classes_have_no_others_to_tell_apart():
    student, teacher = (torch.tensor(x[:, :2], requires_grad=True) for x in two_sets(2))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    fine = dkd(student, teacher, labels, alpha=0.0, beta=8.0, temperature=4.0)
    assert (fine == 0).all()
    coarse = dkd(student, teacher, labels, alpha=1.0, beta=8.0, temperature=4.0)
    torch.testing.assert_close(coarse, soft_target_kl(student, teacher, temperature=4.0))
    other = nkd(student, teacher, labels, gamma=1e9, temperature=1.0)
    assert torch.equal(other, nkd(student, teacher, labels, gamma=0.0, temperature=1.0))


def test_the_true_class_of_nkd_is_a_cross_entropy_weighed_by_the_teacher():
    student, teacher = map(torch.tensor, two_sets(3))
    labels = torch.tensor(some_labels(3, 6, 10))
    values = nkd(student, teacher, labels, gamma=0.0, temperature=3.0)
    sure = torch.softmax(teacher, dim=1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(values, sure * hard_label(student, labels))


def test_a_gap_at_which_the_published_code_is_infinite_is_exact():
    # log(softmax) of the true class underflows in float32 from a gap of about 104.
    student, teacher = torch.tensor([[-400.0, 0.0, 1.0]]), torch.tensor([[400.0, 1.0, 0.0]])
    student.requires_grad_()
    labels = torch.tensor([0])
    value = dkd(student, teacher, labels, alpha=1.0, beta=0.0, temperature=1.0)
    assert value.item() == pytest.approx(401.3133, rel=1e-6)
    value.sum().backward()
    shares = torch.softmax(torch.tensor([0.0, 1.0]), dim=0)
    torch.testing.assert_close(student.grad, torch.tensor([[-1.0, *shares.tolist()]]))


def test_a_schedule_overrides_the_temperature_for_one_call():
    student, teacher = map(torch.tensor, two_sets(4))
    labels = torch.tensor(some_labels(4, 6, 10))
    assert torch.equal(
        DKD(beta=2.0)(student, teacher, labels=labels, temperature=7.0),
        dkd(student, teacher, labels, alpha=1.0, beta=2.0, temperature=7.0),
    )
    assert torch.equal(
        NKD()(student, teacher, labels=labels, temperature=7.0),
        nkd(student, teacher, labels, gamma=1.5, temperature=7.0),
    )


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_constants_are_refused(bad):
    with pytest.raises(ValueError, match="`alpha >= 0` must hold, but got alpha="):
        DKD(alpha=bad)
    with pytest.raises(ValueError, match="`beta >= 0` must hold, but got beta="):
        DKD(beta=bad)
    with pytest.raises(ValueError, match="`gamma >= 0` must hold, but got gamma="):
        NKD(gamma=bad)
    for module in (DKD, NKD):
        with pytest.raises(ValueError, match="`temperature > 0` must hold"):
            module(temperature=bad)


def test_modules_print_their_constants():
    assert str(DKD()) == "DKD(alpha=1.0, beta=8.0, temperature=4.0)"
    assert str(NKD()) == "NKD(gamma=1.5, temperature=1.0)"
