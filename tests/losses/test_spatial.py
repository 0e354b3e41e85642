"""Shapes of features: what is refused, and pooling against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from understudy.losses.spatial import as_maps, matched, matched_layers, same_rows, shrunk

SIZES = [(8, 8), (7, 5), (4, 1), (1, 1), (9, 9), (3, 2)]


@pytest.mark.parametrize("size", SIZES)
def test_shrinking_is_adaptive_pooling_in_value_and_gradient(size):
    maps = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    for how, pool in ((torch.mean, F.adaptive_avg_pool2d), (torch.amax, F.adaptive_max_pool2d)):
        grads = []
        for shrink in (lambda m, how=how: shrunk(m, size, how), lambda m, p=pool: p(m, size)):
            learner = maps.clone().requires_grad_()
            pooled = shrink(learner)
            assert pooled.shape == (2, 3, *size)
            pooled.square().sum().backward()
            grads.append((pooled.detach(), learner.grad))
        torch.testing.assert_close(*grads)


def test_maps_of_no_rows_shrink_to_maps_of_no_rows():
    assert shrunk(torch.zeros(0, 3, 9, 9), (2, 4), torch.amax).shape == (0, 3, 2, 4)


def test_tokens_lie_in_a_column_and_a_vector_is_one_pixel():
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    column = as_maps(tokens)
    assert column.shape == (2, 3, 4, 1)
    assert torch.equal(column[1, :, 2, 0], tokens[1, 2])
    assert as_maps(torch.zeros(2, 5)).shape == (2, 5, 1, 1)


def test_the_teachers_side_comes_back_detached_in_the_wider_precision():
    student = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
    own, goal = matched(student, torch.zeros(2, 3, dtype=torch.float64, requires_grad=True))
    assert own.dtype == goal.dtype == torch.float64
    assert own.requires_grad
    assert not goal.requires_grad
    own, goal = matched(student, student)
    assert own.dtype == goal.dtype == torch.float32


@pytest.mark.usefixtures("as_users_run_it")
def test_rows_that_hold_nothing_are_refused():
    law = "must hold at least one number per row, but got"
    for shape in [(2,), (2, 0), (2, 3, 0, 4)]:
        empty = torch.zeros(shape)
        with pytest.raises(ValueError, match=law):
            matched(empty, empty)
        with pytest.raises(ValueError, match=law):
            same_rows(torch.zeros(2, 3), empty)
        with pytest.raises(ValueError, match=law):
            matched_layers([empty], [empty])
