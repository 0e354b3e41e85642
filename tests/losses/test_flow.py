"""Losses on products of features: laws, float64 references, published forms, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws, each
from understudy.losses.flow import FSP, SimilarityPreserving, fsp, similarity_preserving

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
SHAPES = [(2, 4, 6), (3, 4, 3), (4, 2, 3)]


def random_features(student, generator):
    return each(lambda s: 2 * torch.randn(s.shape, generator=generator).to(s.dtype), student)


def random_width(student, generator):
    return 2 * torch.randn(len(student), 11, generator=generator).to(student.dtype)


class TestFSP(LossLaws):
    @pytest.fixture(params=[("max", "mean"), ("average", "mean"), ("max", "sum")])
    def case(self, request):
        pool, form = request.param
        return LossCase(
            loss=FSP(pool=pool, form=form),
            target=random_features,
            equal=lambda rows: each(torch.clone, rows),
            shape=SHAPES,
            narrow=[(1, 1, 1), (1, 1, 1)],
            # The gradient is of third order: a thousand to the third is beyond half precision.
            gaps=False,
        )


class TestSimilarityPreserving(LossLaws):
    @pytest.fixture(params=[(3, 2, 4), (6,)])
    def case(self, request):
        return LossCase(
            loss=SimilarityPreserving(),
            target=random_width,
            equal=torch.clone,
            shape=request.param,
            narrow=(1,),
            rowwise=False,
            shapes=False,
        )


def windowed(features, height, width, how):
    """A map pooled to a smaller one, window by window."""
    channels, before_h, before_w = features.shape
    pooled = np.zeros((channels, height, width))
    for c, i, j in np.ndindex(channels, height, width):
        top, bottom = i * before_h // height, math.ceil((i + 1) * before_h / height)
        left, right = j * before_w // width, math.ceil((j + 1) * before_w / width)
        pooled[c, i, j] = how(features[c, top:bottom, left:right])
    return pooled


def flow(layer, following, how):
    height, width = np.minimum(layer.shape[1:], following.shape[1:])
    one, other = windowed(layer, height, width, how), windowed(following, height, width, how)
    matrix = np.zeros((len(one), len(other)))
    for a, b in np.ndindex(matrix.shape):
        matrix[a, b] = sum(
            one[a, i, j] * other[b, i, j] for i in range(height) for j in range(width)
        ) / (height * width)
    return matrix


@pytest.mark.parametrize(("pool", "how"), [("max", np.max), ("average", np.mean)])
@quickly
@given(seed=seeds)
def test_flows_agree_with_a_float64_reference(pool, how, seed):
    draw = np.random.default_rng(seed)
    # 5 to 3 pixels: windows that overlap.
    shapes = [(2, 5, 4), (3, 3, 4), (2, 1, 2)]
    student, teacher = ([draw.standard_normal((3, *s)) for s in shapes] for _ in range(2))
    means, sums = np.zeros(3), np.zeros(3)
    for row in range(3):
        for i in range(2):
            own, goal = (flow(x[i][row], x[i + 1][row], how) for x in (student, teacher))
            means[row] += ((own - goal) ** 2).mean()
            sums[row] += ((own - goal) ** 2).sum()
    own, goal = ([torch.tensor(x) for x in side] for side in (student, teacher))
    np.testing.assert_allclose(fsp(own, goal, pool=pool).numpy(), means, rtol=1e-9)
    np.testing.assert_allclose(fsp(own, goal, pool=pool, form="sum").numpy(), sums, rtol=1e-9)


@pytest.mark.parametrize("pool", ["max", "average"])
def test_the_gradient_of_flows_is_that_of_their_value(pool):
    draw = torch.Generator().manual_seed(3)
    student, teacher = (
        [torch.randn(2, *s, generator=draw, dtype=torch.float64) for s in SHAPES] for _ in range(2)
    )
    for layer in student:
        layer.requires_grad_()
    assert gradcheck(lambda *layers: fsp(list(layers), teacher, pool=pool), tuple(student))


def test_tokens_have_flows_too():
    student, teacher = torch.randn(2, 2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(3)
    for row in range(3):
        own = student[0][row].T @ student[1][row] / 5
        goal = teacher[0][row].T @ teacher[1][row] / 5
        expected[row] = (own - goal).square().mean()
    torch.testing.assert_close(fsp(list(student), list(teacher)), expected)


def alike(features):
    rows = features.reshape(len(features), -1)
    products = np.array([[float((a * b).sum()) for b in rows] for a in rows])
    return products / np.sqrt((products**2).sum(axis=1, keepdims=True))


@quickly
@given(seed=seeds)
def test_similarities_agree_with_a_float64_reference(seed):
    draw = np.random.default_rng(seed)
    student, teacher = draw.standard_normal((5, 3, 2, 2)), 7 * draw.standard_normal((5, 4, 3))
    squares = (alike(student) - alike(teacher)) ** 2
    values = similarity_preserving(torch.tensor(student), torch.tensor(teacher))
    np.testing.assert_allclose(values.numpy(), squares.sum(axis=1) / 5, rtol=1e-9)
    # The authors divide the sum over all pairs by their number.
    assert values.mean().item() == pytest.approx(squares.sum() / 25, rel=1e-9)


def test_the_gradient_of_similarities_is_that_of_their_value():
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(4, 3, 2, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    assert gradcheck(lambda s: similarity_preserving(s, teacher), student)


def test_a_row_of_zeros_among_others_has_no_gradient_and_breaks_nothing():
    student, teacher = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(4))
    student[1] = 0
    learner = student.clone().requires_grad_()
    values = similarity_preserving(learner, teacher)
    values.sum().backward()
    assert values.isfinite().all()
    assert learner.grad.isfinite().all()
    assert learner.grad.abs().max() < 1e3


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_are_like_themselves_only(rows):
    # A row of zeros is like nothing, not even itself, and still has nothing to learn alone.
    for student, value in ((torch.randn(rows, 6), 0.0), (torch.zeros(rows, 6), 1.0)):
        student.requires_grad_()
        values = similarity_preserving(student, torch.randn(rows, 3))
        torch.testing.assert_close(values, torch.full((rows,), value))
        values.sum().backward()
        torch.testing.assert_close(student.grad, torch.zeros(rows, 6))


def test_of_equal_maxima_the_first_is_moved_as_by_a_pooling_layer():
    """Zeros after a ReLU are equal more often than not."""
    draw = torch.Generator().manual_seed(3)
    own, goal, after, last = (
        torch.randint(0, 3, (2, 3, side, side), generator=draw).double() for side in (7, 7, 3, 3)
    )

    def pooled(maps):
        return torch.nn.functional.adaptive_max_pool2d(maps, 3)

    def flow(maps, others):
        return torch.einsum("nahw,nbhw->nab", pooled(maps), others) / 9

    found, expected = (own.clone().requires_grad_() for _ in range(2))
    fsp([found, after], [goal, last], form="sum").sum().backward()
    (flow(expected, after) - flow(goal, last)).square().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.usefixtures("as_users_run_it")
def test_other_rows_are_refused():
    law = r"`len\(student\) == len\(teacher\)` must hold, but got student \(4, 2\) and teacher \(5,"
    with pytest.raises(ValueError, match=law):
        similarity_preserving(torch.zeros(4, 2), torch.zeros(5, 2))


@pytest.mark.usefixtures("as_users_run_it")
def test_one_layer_has_no_flow():
    one = [torch.zeros(2, 3, 4, 4)]
    with pytest.raises(ValueError, match=">= 2` must hold, but got 1 layers of the student and 1"):
        fsp(one, one)
    with pytest.raises(ValueError, match="must hold, but got 2 layers of the student and 1"):
        fsp(one * 2, one)


@pytest.mark.usefixtures("as_users_run_it")
def test_layers_of_other_channels_or_rows_are_refused():
    layers = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)]
    wider = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 2, 2)]
    with pytest.raises(ValueError, match=r"got student \(2, 5, 2, 2\) and teacher \(2, 6, 2, 2\)"):
        fsp(layers, wider)
    torn = [torch.zeros(2, 3, 4, 4), torch.zeros(3, 5, 2, 2)]
    with pytest.raises(ValueError, match=r"the same rows, but got \[2, 3\] rows"):
        fsp(torn, torn)


@pytest.mark.usefixtures("as_users_run_it")
def test_choices_that_do_not_exist_are_refused():
    layers = [torch.zeros(1, 1, 2, 2)] * 2
    for bad, law in [({"pool": "min"}, "`pool` must be one of max"), ({"form": "l2"}, "`form` mu")]:
        with pytest.raises(ValueError, match=law):
            FSP(**bad)
        with pytest.raises(ValueError, match=law):
            fsp(layers, layers, **bad)


def test_the_module_prints_its_constants():
    assert str(FSP(pool="average")) == "FSP(pool='average', form='mean')"
