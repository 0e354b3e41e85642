"""The skewed divergences: laws, references, the authors' cross entropy, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from conformance.numbers import (
    agrees,
    kl,
    quickly,
    random_logits,
    seeds,
    softmax,
    temperatures,
    two_sets,
)
from understudy.losses.blends import divergence_from_blend
from understudy.losses.divergences import reverse_kl
from understudy.losses.logits import soft_target_kl
from understudy.losses.skewed import SkewKL, skew_kl


def reference(student, teacher, skew, temperature, direction):
    values = []
    for own, goal in zip(student / temperature, teacher / temperature, strict=True):
        q, p = softmax(own), softmax(goal)
        first, second = (p, q) if direction == "forward" else (q, p)
        values.append(kl(first, skew * first + (1 - skew) * second))
    return temperature**2 * np.mean(values)


class TestSkewKL(LossLaws):
    @pytest.fixture(params=[("forward", "softmax"), ("reverse", "softmax"), ("forward", "sigmoid")])
    def case(self, request):
        direction, head = request.param
        loss = SkewKL(direction=direction, head=head)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone)


class TestSkewCrossEntropy(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=SkewKL(form="cross_entropy"), target=random_logits)


@quickly
@given(
    seed=seeds,
    skew=st.floats(0.01, 0.99),
    temperature=temperatures,
    direction=st.sampled_from(["forward", "reverse"]),
)
def test_both_directions_agree_with_a_reference(seed, skew, temperature, direction):
    student, teacher = two_sets(seed, rows=3, classes=4)
    agrees(
        lambda own: skew_kl(
            own, torch.tensor(teacher), skew=skew, temperature=temperature, direction=direction
        ),
        lambda own: reference(own, teacher, skew, temperature, direction),
        student,
    )


def test_the_authors_forward_loss_is_the_cross_entropy_with_the_mixture():
    student, teacher = two_sets(1)
    expected = []
    for own, goal in zip(student, teacher, strict=True):
        p = softmax(goal)
        mixture = 0.1 * p + 0.9 * softmax(own)
        expected.append(-(p * np.log(mixture)).sum())
    own, goal = torch.tensor(student, requires_grad=True), torch.tensor(teacher)
    values = SkewKL(form="cross_entropy")(own, goal)
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-12)
    (ours,) = torch.autograd.grad(values.sum(), own)
    (plain,) = torch.autograd.grad(SkewKL()(own, goal).sum(), own)
    torch.testing.assert_close(ours, plain)


def test_without_skew_they_are_the_plain_divergences():
    student, teacher = map(torch.tensor, two_sets(2, scale=1.0))
    ahead = skew_kl(student, teacher, skew=1e-9, temperature=2.0)
    torch.testing.assert_close(ahead, soft_target_kl(student, teacher, temperature=2.0))
    back = skew_kl(student, teacher, skew=1e-9, temperature=2.0, direction="reverse")
    torch.testing.assert_close(back, reverse_kl(student, teacher, temperature=2.0))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("skew", [0.1, 1e-9])
def test_the_skew_bounds_the_value_in_single_precision_too(direction, skew):
    student, teacher = torch.tensor([[-900.0, 0.0]]), torch.tensor([[0.0, -900.0]])
    student.requires_grad_()
    value = skew_kl(student, teacher, skew=skew, temperature=1.0, direction=direction)
    assert value.item() == pytest.approx(math.log(1 / skew), rel=1e-6)
    value.sum().backward()
    assert student.grad.isfinite().all()


def test_the_blend_has_the_right_slope_where_the_two_agree():
    # Both branches meet here, so a wrong one would show only as a gradient.
    logs = torch.log_softmax(torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64), dim=1)
    second = logs.clone().requires_grad_()
    divergence_from_blend(logs, second, rest=0.3, share=0.7).sum().backward()
    torch.testing.assert_close(second.grad, -0.7 * logs.exp())


def test_a_class_that_one_side_rules_out_is_finite():
    learner = torch.zeros(1, 2, requires_grad=True)
    certain = torch.tensor([[0.0, -torch.inf]])
    for direction, expected in [
        ("forward", -math.log(0.1 + 0.9 * 0.5)),
        ("reverse", -0.5 * math.log(0.1 + 1.8) - 0.5 * math.log(0.1)),
    ]:
        value = SkewKL(direction=direction)(learner, certain)
        assert value.item() == pytest.approx(expected, rel=1e-6)
        (grad,) = torch.autograd.grad(value.sum(), learner)
        assert grad.isfinite().all()


def test_a_schedule_overrides_the_temperature_for_one_call():
    student, teacher = map(torch.tensor, two_sets(3))
    values = SkewKL(skew=0.3)(student, teacher, temperature=5.0)
    assert torch.equal(values, skew_kl(student, teacher, skew=0.3, temperature=5.0))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("constants", "law"),
    [
        ({"skew": 0.0}, "`0 < skew < 1` must hold, but got skew=0.0"),
        ({"skew": 1.0}, "`0 < skew < 1` must hold"),
        ({"temperature": -1.0}, "`temperature > 0` must hold"),
        ({"direction": "back"}, "`direction` must be one of forward, reverse"),
        ({"form": "entropy"}, "`form` must be one of divergence, cross_entropy"),
        ({"direction": "reverse", "form": "cross_entropy"}, "must hold for the reverse"),
        ({"head": "linear"}, "`head` must be softmax or sigmoid"),
    ],
)
def test_bad_constants_are_refused(constants, law):
    with pytest.raises(ValueError, match=law):
        SkewKL(**constants)
    logits = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=law):
        skew_kl(logits, logits, **{"skew": 0.1, "temperature": 1.0, **constants})


def test_the_module_prints_its_constants():
    printed = "SkewKL(skew=0.1, temperature=1.0, direction=forward, form=divergence, head=softmax)"
    assert str(SkewKL()) == printed
