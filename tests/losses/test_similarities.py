"""Similarities within a batch: laws, references in plain NumPy, the authors' conventions."""

import numpy as np
import pytest
import torch

from conformance.loss import LossCase, LossLaws
from understudy.losses.similarities import CKA, PKT, cka, pkt


def wider_rows(student, generator):
    rows = torch.randn(len(student), student.shape[1] + 2, generator=generator)
    return 3 * rows.to(student.dtype)


class TestPKT(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=PKT(), target=wider_rows, equal=torch.clone, rowwise=False, shapes=False
        )


class TestCKA(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=CKA(),
            target=wider_rows,
            equal=torch.clone,
            rowwise=False,
            narrow=(1,),
            shapes=False,
        )


def reference_pkt(student, teacher, eps=1e-7):
    chances = []
    for side in (student, teacher):
        units = [row / (np.linalg.norm(row) + eps) for row in side]
        alike = np.array([[(x @ y + 1) / 2 for y in units] for x in units])
        chances.append(alike / alike.sum(axis=1, keepdims=True))
    own, goal = chances
    return (goal * np.log((goal + eps) / (own + eps))).mean(axis=1)


def reference_cka(student, teacher):
    """By the covariances, which is another way round than the kernels."""
    x, y = student - student.mean(axis=0), teacher - teacher.mean(axis=0)
    cross = np.linalg.norm(y.T @ x) ** 2
    return 1 - cross / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def both_sides(seed, rows=6, width=3, depth=4):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((rows, width)), 2 * draw.standard_normal((rows, depth)) + 1


def slopes(reference, student, teacher, step=1e-6):
    found = np.zeros_like(student)
    for at in np.ndindex(*student.shape):
        moved = [student.copy(), student.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        high, low = (np.mean(reference(m, teacher)) for m in moved)
        found[at] = (high - low) / (2 * step)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_pkt_agrees_with_a_float64_reference(seed):
    student, teacher = both_sides(seed)
    values = pkt(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(values, reference_pkt(student, teacher), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_cka_agrees_with_a_float64_reference(seed):
    student, teacher = both_sides(seed)
    value = cka(torch.tensor(student), torch.tensor(teacher)).mean().item()
    assert value == pytest.approx(reference_cka(student, teacher), rel=1e-9)


@pytest.mark.parametrize(("loss", "reference"), [(pkt, reference_pkt), (cka, reference_cka)])
def test_the_gradient_is_that_of_the_reference(loss, reference):
    student, teacher = both_sides(7)
    own = torch.tensor(student, requires_grad=True)
    loss(own, torch.tensor(teacher)).mean().backward()
    expected = slopes(reference, student, teacher)
    np.testing.assert_allclose(own.grad.numpy(), expected, rtol=1e-5, atol=1e-9)


def test_pkt_is_a_mean_over_both_axes_and_not_a_sum_over_one():
    own, goal = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    # One half each beside two thirds and one third.
    divergence = 2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3)
    np.testing.assert_allclose(pkt(own, goal).numpy(), [divergence / 2] * 2, rtol=1e-5)


def test_a_row_of_zeros_resembles_all_rows_alike():
    own = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    values = pkt(own, torch.eye(3))
    values.sum().backward()
    assert (own.grad[0] == 0).all()
    third = np.full(3, 1 / 3)
    goal = np.array([0.5, 0.25, 0.25])
    assert values[0].item() == pytest.approx((goal * np.log(goal / third)).mean(), rel=1e-5)


def test_cka_sees_neither_rotation_nor_shift_nor_size():
    own, goal = map(torch.tensor, both_sides(11, width=4))
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    assert cka(goal @ turn * 1e6 + 7, goal).max() < 1e-12
    torch.testing.assert_close(cka(own, goal @ turn * 1e-9 + 7).mean(), cka(own, goal).mean())


def test_cka_sees_another_stretching():
    goal = torch.randn(20, 4, dtype=torch.float64)
    assert cka(goal * torch.tensor([10.0, 1.0, 1.0, 1.0]), goal).mean() > 0.1


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_cka_keeps_its_value_and_gradient_at_any_size_in_float32(scale):
    student, teacher = both_sides(5)
    own = torch.tensor(scale * student, dtype=torch.float32, requires_grad=True)
    values = cka(own, torch.tensor(teacher, dtype=torch.float32))
    values.mean().backward()
    assert values.mean().item() == pytest.approx(reference_cka(student, teacher), rel=1e-4)
    expected = slopes(reference_cka, student, teacher)
    np.testing.assert_allclose(scale * own.grad.numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_equal_rows_align_with_nothing(constant):
    own = torch.full((7, 3), constant, requires_grad=True)
    values = cka(own, torch.randn(7, 4))
    values.sum().backward()
    assert torch.equal(values, torch.ones(7))
    assert (own.grad == 0).all()
    assert torch.equal(cka(own, torch.ones(7, 2)), torch.zeros(7))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("loss", [pkt, cka])
def test_other_rows_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"must hold, but got student \(3, 2\) and teacher \(4, 5"):
        loss(torch.zeros(3, 2), torch.zeros(4, 5))
