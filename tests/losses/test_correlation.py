"""Correlations of rows and columns: laws, the published formula, Pearson's own, constant sides."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from conformance.numbers import (
    agrees,
    quickly,
    random_logits,
    seeds,
    softmax,
    temperatures,
    two_sets,
)
from understudy.losses.correlation import DIST, dist

PUBLISHED = {"beta": 1.0, "gamma": 1.0, "tau": 1.0, "eps": 1e-8}


def apart(a, b, eps):
    a, b = a - a.mean(), b - b.mean()
    return 1 - (a * b).sum() / (np.sqrt((a**2).sum()) * np.sqrt((b**2).sum()) + eps)


def reference(student, teacher, *, beta, gamma, tau, eps):
    q, p = (np.array([softmax(row / tau) for row in x]) for x in (student, teacher))
    rows = np.mean([apart(a, b, eps) for a, b in zip(q, p, strict=True)])
    columns = np.mean([apart(a, b, eps) for a, b in zip(q.T, p.T, strict=True)])
    return tau**2 * (beta * rows + gamma * columns)


class TestDIST(LossLaws):
    # Not 0 at equality: the published eps keeps small columns away from a correlation of 1.
    @pytest.fixture
    def case(self):
        return LossCase(loss=DIST(), target=random_logits, rowwise=False, alone=False)


class TestPearson(LossLaws):
    @pytest.fixture(params=[1.0, 4.0])
    def case(self, request):
        return LossCase(
            loss=DIST(eps=0.0, tau=request.param),
            target=random_logits,
            equal=torch.clone,
            rowwise=False,
            alone=False,
        )


class TestColumnsAlone(LossLaws):
    @pytest.fixture
    def case(self):
        loss = DIST(beta=0.0, eps=0.0)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone, rowwise=False)


class TestRowsAlone(LossLaws):
    @pytest.fixture
    def case(self):
        loss = DIST(gamma=0.0, eps=0.0)
        return LossCase(loss=loss, target=random_logits, equal=torch.clone)


@quickly
@given(
    seed=seeds,
    beta=st.floats(0.0, 3.0),
    gamma=st.floats(0.0, 3.0),
    tau=temperatures,
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
)
def test_the_mean_over_rows_is_the_published_number(seed, beta, gamma, tau, eps):
    student, teacher = two_sets(seed, rows=4, classes=3, scale=1.5)
    constants = {"beta": beta, "gamma": gamma, "tau": tau, "eps": eps}
    agrees(
        lambda own: dist(own, torch.tensor(teacher), **constants),
        lambda own: reference(own, teacher, **constants),
        student,
        rtol=1e-8,
    )


def test_at_equality_the_published_eps_leaves_what_it_says():
    logits = torch.tensor(two_sets(1, rows=8, classes=40, scale=6.0)[0])
    values = dist(logits, logits.clone(), **PUBLISHED)
    chances = torch.softmax(logits, dim=1)
    left = [
        (1e-8 / (chances.var(dim=d, unbiased=False) * chances.shape[d] + 1e-8)).mean()
        for d in (0, 1)
    ]
    torch.testing.assert_close(values.mean(), sum(left))
    assert values.mean() > 1e-3


def test_the_columns_of_one_row_are_constant_and_cost_their_whole_weight():
    student, teacher = (torch.tensor(x[:1]) for x in two_sets(2))
    values = dist(student, teacher, beta=2.0, gamma=100.0, tau=1.0, eps=1e-8)
    expected = 2 * apart(softmax(student[0].numpy()), softmax(teacher[0].numpy()), 1e-8) + 100
    assert values.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, 123.4])
def test_a_row_that_is_constant_but_for_rounding_has_no_gradient(dtype, level):
    student = torch.full((1, 7), level, dtype=dtype, requires_grad=True)
    teacher = torch.arange(7, dtype=dtype).unsqueeze(0)
    for eps, expected in [(1e-8, 1.0), (0.0, 0.5)]:
        value = dist(student, teacher, beta=1.0, gamma=0.0, tau=1.0, eps=eps)
        assert value.item() == pytest.approx(expected)
        (grad,) = torch.autograd.grad(value.sum(), student)
        assert torch.equal(grad, torch.zeros_like(grad))


def test_two_constant_sides_agree_without_eps():
    assert dist(torch.zeros(3, 4), torch.ones(3, 4), **{**PUBLISHED, "eps": 0.0}).sum() == 0


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_constants_are_refused(bad):
    for name in ("beta", "gamma", "eps"):
        with pytest.raises(ValueError, match=f"`{name} >= 0` must hold, but got {name}="):
            DIST(**{name: bad})
        with pytest.raises(ValueError, match=f"`{name} >= 0` must hold"):
            dist(torch.zeros(2, 2), torch.zeros(2, 2), **{**PUBLISHED, name: bad})
    with pytest.raises(ValueError, match="`tau > 0` must hold"):
        DIST(tau=bad)


def test_the_module_prints_its_constants():
    assert str(DIST()) == "DIST(beta=1.0, gamma=1.0, tau=1.0, eps=1e-08)"
