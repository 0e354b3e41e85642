"""Losses before a ReLU: laws, float64 references, the authors' scalars, margins, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws, each
from understudy.losses.boundaries import (
    ActivationBoundary,
    Overhaul,
    activation_boundary,
    margin,
    overhaul,
)

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
SHAPES = [(2, 4, 6), (3, 2, 3), (4,)]
MARGINS = [torch.tensor([-0.5, -1.0]), torch.tensor([-0.1, -2.0, -0.7]), torch.full((4,), -0.3)]


def random_features(student, generator):
    return each(lambda s: 2 * torch.randn(s.shape, generator=generator).to(s.dtype), student)


class TestActivationBoundary(LossLaws):
    @pytest.fixture(params=[1.0, 0.25])
    def case(self, request):
        return LossCase(
            loss=ActivationBoundary(margin=request.param),
            target=random_features,
            shape=SHAPES,
            narrow=[(1, 1, 1)],
            # A row that is on the teacher's side everywhere has learnt its layer.
            every_row=False,
        )


class TestOverhaul(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=Overhaul(),
            target=random_features,
            equal=lambda rows: each(torch.clone, rows),
            shape=SHAPES,
            narrow=None,
            constants={"margins": MARGINS},
        )


def layers(draw, rows=3):
    return [3 * draw.standard_normal((rows, *shape)) for shape in SHAPES]


def tensors(numbers):
    return [torch.tensor(n) for n in numbers]


def boundary_reference(student, teacher, far):
    values = np.zeros(len(student[0]))
    for i, (own, goal) in enumerate(zip(student, teacher, strict=True)):
        for index in np.ndindex(own.shape):
            s, t = own[index], goal[index]
            if t > 0 and s <= far:
                values[index[0]] += (s - far) ** 2 / 2 ** (len(student) - 1 - i)
            if t <= 0 and s > -far:
                values[index[0]] += (s + far) ** 2 / 2 ** (len(student) - 1 - i)
    return values


@quickly
@given(seed=seeds, far=st.floats(0.25, 4.0))
def test_boundaries_agree_with_a_float64_reference(seed, far):
    draw = np.random.default_rng(seed)
    student, teacher = layers(draw), layers(draw)
    teacher[0][0, 0, 0, 0] = 0.0
    expected = 3 / 1000 * boundary_reference(student, teacher, far)
    values = activation_boundary(tensors(student), tensors(teacher), margin=far)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-10)


def overhaul_reference(student, teacher):
    values = np.zeros(len(student[0]))
    for i, (own, goal) in enumerate(zip(student, teacher, strict=True)):
        for index in np.ndindex(own.shape):
            s, t, low = own[index], goal[index], MARGINS[i][index[1]].item()
            target = max(t, low)
            if s > target or target > 0:
                values[index[0]] += (s - target) ** 2 / 2 ** (len(student) - 1 - i)
    return values


@quickly
@given(seed=seeds)
def test_the_overhaul_agrees_with_a_float64_reference(seed):
    draw = np.random.default_rng(seed)
    student, teacher = layers(draw), layers(draw)
    expected = overhaul_reference(student, teacher) / 1000
    values = overhaul(tensors(student), tensors(teacher), margins=MARGINS)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "loss", [activation_boundary, lambda s, t: overhaul(s, t, margins=MARGINS)]
)
def test_the_gradient_of_each_is_that_of_its_value(loss):
    draw = np.random.default_rng(3)
    student, teacher = tensors(layers(draw)), tensors(layers(draw))
    for layer in student:
        layer.requires_grad_()
    assert gradcheck(lambda *own: loss(list(own), teacher), tuple(student))


def test_the_mean_over_rows_is_the_authors_scalar():
    draw = np.random.default_rng(5)
    student, teacher = layers(draw, rows=6), layers(draw, rows=6)
    # They sum over the batch as well, divide by its size, and multiply in the trainer.
    boundaries = boundary_reference(student, teacher, 1.0).sum() / 6 / 1000 * 3
    value = activation_boundary(tensors(student), tensors(teacher)).mean().item()
    assert value == pytest.approx(boundaries, rel=1e-10)
    overhauled = overhaul_reference(student, teacher).sum() / 6 / 1000
    value = overhaul(tensors(student), tensors(teacher), margins=MARGINS).mean().item()
    assert value == pytest.approx(overhauled, rel=1e-10)


def test_a_student_beyond_the_margin_on_the_teachers_side_has_learnt_the_boundary():
    teacher = [torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1))]
    student = [(1.5 * teacher[0].sign()).requires_grad_()]
    values = activation_boundary(student, teacher)
    assert torch.equal(values, torch.zeros(3))
    values.sum().backward()
    assert (student[0].grad == 0).all()
    near = [0.5 * teacher[0].sign()]
    torch.testing.assert_close(
        activation_boundary(near, teacher, scale=1.0), torch.full((3,), 16 * 0.25)
    )


def test_the_overhaul_is_zero_where_a_relu_hides_the_difference():
    teacher = [torch.tensor([[2.0, -0.2, -5.0, -0.2]])]
    margins = [torch.full((4,), -0.5)]
    student = [torch.tensor([[2.0, -9.0, -0.5, -0.2]], requires_grad=True)]
    values = overhaul(student, teacher, margins=margins)
    assert values.item() == 0
    values.sum().backward()
    assert (student[0].grad == 0).all()
    louder = [torch.tensor([[2.0, 0.8, -0.5, -0.2]])]
    assert overhaul(louder, teacher, margins=margins, scale=1.0).item() == pytest.approx(1.0)


def mean_below_zero(weight, bias):
    """By the trapezoid rule, in float64, on a density that is scaled by its largest value."""
    deviation = abs(weight)
    top = min(0.0, bias)
    # Beyond this the density is below e^-200 of what it is at the top.
    reach = min(20 * deviation, 200 * deviation**2 / max(abs(bias), 1e-9)) if bias > 0 else 0
    low = top - (reach or 20 * deviation)
    points = np.linspace(low, 0.0, 400_001)
    density = np.exp(-(((points - bias) ** 2) - (top - bias) ** 2) / (2 * deviation**2))
    return np.trapezoid(points * density, points) / np.trapezoid(density, points)


@pytest.mark.parametrize("ratio", [-8.0, -1.0, 0.0, 0.5, 3.0, 3.2, 8.0, 30.0, 39.9, 40.1, 300.0])
def test_a_margin_is_the_mean_of_what_is_negative(ratio):
    weight, bias = -0.7, 0.7 * ratio
    expected = mean_below_zero(weight, bias)
    args = torch.tensor([weight], dtype=torch.float64), torch.tensor([bias], dtype=torch.float64)
    assert margin(*args, rare=0.0).item() == pytest.approx(expected, rel=1e-6)
    # The authors have another number where fewer than one in a thousand are negative.
    authors = -3 * abs(weight) if ratio > 3.1 else expected
    assert margin(*args).item() == pytest.approx(authors, rel=1e-6)


def test_a_margin_of_any_batch_norm_is_finite_and_not_positive():
    weight = torch.tensor([0.0, 0.0, 0.0, 1e-30, 1e-30, 1e30, -1.0, 1.0])
    bias = torch.tensor([-2.0, 0.0, 2.0, 5.0, -5.0, 1.0, 1e30, -1e30])
    for rare in (0.0, 0.001):
        low = margin(weight, bias, rare=rare)
        assert low.isfinite().all()
        assert (low <= 0).all()
    assert low[:3].tolist() == [-2.0, 0.0, 0.0]
    assert low[4].item() == -5.0
    assert low[7].item() == pytest.approx(-1e30)


def test_a_margin_does_not_learn_and_keeps_its_precision():
    weight = torch.ones(3, dtype=torch.float16, requires_grad=True)
    low = margin(weight, torch.zeros(3, dtype=torch.float16))
    assert low.dtype == torch.float32
    assert not low.requires_grad
    assert low[0].item() == pytest.approx(-math.sqrt(2 / math.pi), rel=1e-6)


@pytest.mark.usefixtures("as_users_run_it")
def test_lists_that_do_not_fit_are_refused():
    one, two = [torch.zeros(2, 3, 4, 4)], [torch.zeros(2, 3, 4, 4)] * 2
    low = [torch.zeros(3)]
    with pytest.raises(ValueError, match="must hold, but got 1 layers of the student and 2"):
        activation_boundary(one, two)
    with pytest.raises(ValueError, match="must hold, but got 0 layers of the student and 0"):
        activation_boundary([], [])
    with pytest.raises(ValueError, match=r"got student \(2, 3, 4, 4\) and teacher \(2, 3, 2, 2\)"):
        overhaul(one, [torch.zeros(2, 3, 2, 2)], margins=low)
    with pytest.raises(ValueError, match="must hold, but got 1 margins and 2 layers"):
        overhaul(two, two, margins=low)
    with pytest.raises(ValueError, match=r"must hold, but got margin \(1,\) and 3 channels"):
        overhaul(one, one, margins=[torch.zeros(1)])


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_constants_that_are_not_positive_are_refused(bad):
    layer = [torch.zeros(1, 1)]
    for name in ("margin", "scale"):
        law = f"`{name} > 0` must hold, but got {name}={bad}"
        with pytest.raises(ValueError, match=law):
            ActivationBoundary(**{name: bad})
        with pytest.raises(ValueError, match=law):
            activation_boundary(layer, layer, **{name: bad})
    with pytest.raises(ValueError, match=f"`scale > 0` must hold, but got scale={bad}"):
        Overhaul(scale=bad)
    with pytest.raises(ValueError, match=f"`scale > 0` must hold, but got scale={bad}"):
        overhaul(layer, layer, margins=[torch.zeros(1)], scale=bad)


@pytest.mark.usefixtures("as_users_run_it")
def test_a_margin_of_two_batch_norms_or_of_no_share_is_refused():
    with pytest.raises(ValueError, match=r"must hold, but got weight \(2,\), bias \(3,\)"):
        margin(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"must hold, but got .* and rare=1\.0"):
        margin(torch.ones(2), torch.ones(2), rare=1.0)


def test_modules_print_their_constants():
    assert str(ActivationBoundary()) == "ActivationBoundary(margin=1.0, scale=0.003)"
    assert str(Overhaul(scale=1e-4)) == "Overhaul(scale=0.0001)"
