"""Knowledge review: laws, a float64 reference with PyTorch's own pooling, oblong maps, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws, each
from understudy.losses.review import Review, review

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
SHAPES = [(2, 8, 8), (3, 7, 7), (3, 4, 4), (4, 2, 2), (5, 1, 1)]


def random_features(student, generator):
    return each(lambda s: 2 * torch.randn(s.shape, generator=generator).to(s.dtype), student)


class TestReview(LossLaws):
    @pytest.fixture(params=[SHAPES, [(2, 3, 9), (4, 3), (5,)]])
    def case(self, request):
        return LossCase(
            loss=Review(),
            target=random_features,
            equal=lambda rows: each(torch.clone, rows),
            shape=request.param,
            narrow=[(1, 1, 1)],
        )


def window_means(features, side):
    """A square map averaged down to `side` by `side`, window by window."""
    size = features.shape[-1]
    means = np.zeros((len(features), side, side))
    for c, i, j in np.ndindex(means.shape):
        top, left = i * size // side, j * size // side
        bottom, right = -(-(i + 1) * size // side), -(-(j + 1) * size // side)
        means[c, i, j] = features[c, top:bottom, left:right].sum() / (
            (bottom - top) * (right - left)
        )
    return means


def reference(student, teacher):
    value = 0.0
    for own, goal in zip(student, teacher, strict=True):
        level, weight, weights = ((own - goal) ** 2).mean(), 1.0, 1.0
        for side in (4, 2, 1):
            if side >= own.shape[-1]:
                continue
            weight /= 2
            level += weight * ((window_means(own, side) - window_means(goal, side)) ** 2).mean()
            weights += weight
        value += level / weights
    return value


@quickly
@given(seed=seeds)
def test_it_agrees_with_a_float64_reference(seed):
    draw = np.random.default_rng(seed)
    student, teacher = ([draw.standard_normal((3, *s)) for s in SHAPES] for _ in range(2))
    expected = [reference([x[row] for x in student], [x[row] for x in teacher]) for row in range(3)]
    values = review([torch.tensor(x) for x in student], [torch.tensor(x) for x in teacher])
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-10)


def test_its_gradient_is_that_of_its_value():
    draw = torch.Generator().manual_seed(3)
    shapes = [(2, 5, 5), (2, 1, 1)]
    student, teacher = (
        [torch.randn(2, *s, generator=draw, dtype=torch.float64) for s in shapes] for _ in range(2)
    )
    for layer in student:
        layer.requires_grad_()
    assert gradcheck(lambda *layers: review(list(layers), teacher), tuple(student))


def test_a_map_of_one_pixel_has_its_mean_square_alone():
    student, teacher = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = (student - teacher).square().mean(dim=1)
    torch.testing.assert_close(review([student], [teacher]), expected)
    torch.testing.assert_close(
        review([student[:, :, None, None]], [teacher[:, :, None, None]]), expected
    )


def test_an_oblong_map_is_shrunk_where_it_is_long_and_never_stretched():
    own, goal = torch.randn(2, 3, 4, 2, 8, generator=torch.Generator().manual_seed(2)).double()
    gap = own - goal
    total = gap.square().mean(dim=(1, 2, 3))
    for weight, size in [(0.5, (2, 4)), (0.25, (2, 2)), (0.125, (1, 1))]:
        means = torch.nn.functional.adaptive_avg_pool2d(gap, size)
        total += weight * means.square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(review([own], [goal], sides="both"), total / 1.875)
    turned = review([own.transpose(2, 3)], [goal.transpose(2, 3)], sides="both")
    torch.testing.assert_close(turned, total / 1.875)


@pytest.mark.parametrize("shape", [(4, 6), (8, 3), (1, 6), (6, 1), (2, 9), (5, 7), (9, 4)])
def test_by_default_sizes_go_by_the_height_alone_as_published(shape):
    own, goal = torch.randn(2, 3, 4, *shape, generator=torch.Generator().manual_seed(2)).double()
    total, weight, weights = (own - goal).square().mean(dim=(1, 2, 3)), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= shape[0]:
            continue
        weight, weights = weight / 2, weights + weight / 2
        one, other = (torch.nn.functional.adaptive_avg_pool2d(x, (side, side)) for x in (own, goal))
        total += weight * (one - other).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(review([own], [goal]), total / weights)


def test_a_shift_of_a_whole_map_counts_fully_and_a_swap_of_neighbours_little():
    teacher = torch.zeros(1, 1, 8, 8)
    shift = review([teacher + 1], [teacher]).item()
    chess = torch.tensor([1.0, -1.0]).repeat(4)
    board = (chess[:, None] * chess)[None, None]
    assert shift == pytest.approx(1.0)
    assert review([board], [teacher]).item() == pytest.approx(1 / 1.875)


@pytest.mark.usefixtures("as_users_run_it")
def test_lists_and_layers_that_do_not_fit_are_refused():
    one = [torch.zeros(2, 3, 4, 4)]
    with pytest.raises(ValueError, match="must hold, but got 1 layers of the student and 2"):
        review(one, one * 2)
    with pytest.raises(ValueError, match=r"got student \(2, 3, 4, 4\) and teacher \(2, 3, 2, 2\)"):
        review(one, [torch.zeros(2, 3, 2, 2)])
    with pytest.raises(ValueError, match=r"features must be .* but got \(2, 3, 4, 4, 4\)"):
        review([torch.zeros(2, 3, 4, 4, 4)], [torch.zeros(2, 3, 4, 4, 4)])
