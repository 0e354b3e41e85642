"""What relations between rows stand on: two sides of the same rows, and their directions."""

import pytest
import torch

from understudy.losses.rows import related, unit


def test_the_wider_precision_wins_and_halves_are_widened():
    half, double = torch.zeros(2, 3).half(), torch.zeros(2, 1).double()
    assert [side.dtype for side in related(half, half)] == [torch.float32] * 2
    assert [side.dtype for side in related(half, double)] == [torch.float64] * 2


@pytest.mark.parametrize("both", [False, True])
def test_the_teacher_is_detached_unless_it_learns(both):
    student, teacher = (torch.zeros(2, 3, requires_grad=True) for _ in range(2))
    own, goal = related(student, teacher, both=both)
    assert own.requires_grad
    assert goal.requires_grad == both


def test_directions_have_length_one_and_the_gradient_of_a_quotient():
    rows = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(unit(rows), rows / rows.norm(dim=-1, keepdim=True))
    assert torch.autograd.gradcheck(unit, rows)
    assert torch.autograd.gradcheck(lambda x: unit(x, eps=0.5), rows)


@pytest.mark.parametrize("floor", [0.0, 1e-3, torch.tensor(1e-3)])
def test_a_row_without_a_direction_has_no_gradient(floor):
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    directions = unit(rows, floor=floor)
    assert torch.equal(directions, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    (directions * torch.tensor([1.0, 2.0])).sum().backward()
    assert (rows.grad[0] == 0).all()
    assert (rows.grad[1] != 0).all()


def test_what_is_below_the_floor_counts_as_zero():
    rows = torch.tensor([[0.5, 0.0], [2.0, 0.0]])
    assert torch.equal(unit(rows, floor=1.0), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))


def test_a_row_that_is_not_a_number_stays_one():
    assert unit(torch.tensor([[torch.nan, 1.0]])).isnan().all()
