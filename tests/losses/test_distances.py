"""Relational distances and angles: laws, references in plain loops, bounded memory."""

import math

import numpy as np
import pytest
import torch

from conformance.loss import LossCase, LossLaws
from understudy.losses import distances
from understudy.losses.distances import RKDAngle, RKDDistance, rkd_angle, rkd_distance


def wider_rows(student, generator):
    rows = torch.randn(len(student), student.shape[1] + 2, generator=generator)
    return 3 * rows.to(student.dtype)


class TestRKDDistance(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=RKDDistance(),
            target=wider_rows,
            equal=torch.clone,
            rowwise=False,
            narrow=(1,),
            shapes=False,
        )


class TestRKDAngle(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=RKDAngle(),
            target=wider_rows,
            equal=torch.clone,
            rowwise=False,
            narrow=(1,),
            shapes=False,
        )


class TestRKDAngleRowByRow(TestRKDAngle):
    """The same laws where the rows do not fit together."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(distances, "WORKSPACE", 100)


def huber(gap):
    return 0.5 * gap**2 if abs(gap) < 1 else abs(gap) - 0.5


def reference_distance(student, teacher):
    """Per row: half of what is in its row and half of what is in its column."""
    count = len(student)
    spreads = []
    for side in (student, teacher):
        apart = [[math.dist(x, y) for y in side] for x in side]
        mean = sum(map(sum, apart)) / sum(d > 0 for line in apart for d in line)
        spreads.append(np.array(apart) / mean)
    values = np.zeros(count)
    for i in range(count):
        for j in range(count):
            part = huber(spreads[0][i, j] - spreads[1][i, j]) / count**2
            values[i] += count * part / 2
            values[j] += count * part / 2
    return values


def cosine(side, i, j, k):
    one, other = side[j] - side[i], side[k] - side[i]
    lengths = math.hypot(*one) * math.hypot(*other)
    return one @ other / lengths if lengths else 0.0


def reference_angle(student, teacher):
    count = len(student)
    values = np.zeros(count)
    for i in range(count):
        for j in range(count):
            for k in range(count):
                gap = cosine(student, i, j, k) - cosine(teacher, i, j, k)
                for row in (i, j, k):
                    values[row] += count * huber(gap) / count**3 / 3
    return values


PAIRS = [(rkd_distance, reference_distance), (rkd_angle, reference_angle)]


def both_sides(seed, rows=6, width=3, depth=4):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((rows, width)), 2 * draw.standard_normal((rows, depth))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_values_agree_with_a_float64_reference(loss, reference, seed):
    student, teacher = both_sides(seed)
    values = loss(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(values, reference(student, teacher), rtol=1e-9)


@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_the_gradient_is_that_of_the_reference(loss, reference):
    student, teacher = both_sides(7, rows=5)
    own = torch.tensor(student, requires_grad=True)
    loss(own, torch.tensor(teacher)).mean().backward()
    expected, step = np.zeros_like(student), 1e-6
    for at in np.ndindex(*student.shape):
        moved = [student.copy(), student.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        high, low = (reference(m, teacher).mean() for m in moved)
        expected[at] = (high - low) / (2 * step)
    np.testing.assert_allclose(own.grad.numpy(), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("workspace", [1, 150, 300])
def test_angles_do_not_depend_on_how_many_rows_are_seen_at_once(workspace, monkeypatch):
    own, goal = map(torch.tensor, both_sides(3, rows=7))
    outcomes = []
    for limit in (distances.WORKSPACE, workspace):
        monkeypatch.setattr(distances, "WORKSPACE", limit)
        student = own.clone().requires_grad_()
        values = rkd_angle(student, goal)
        (values * torch.arange(7)).sum().backward()
        outcomes.append((values.detach(), student.grad))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-12, atol=1e-14)


def test_angles_keep_no_cosines_for_the_gradient(monkeypatch):
    monkeypatch.setattr(distances, "WORKSPACE", 2**12)
    count, kept = 40, []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    student = torch.randn(count, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        rkd_angle(student, torch.randn(count, 8))
    assert sum(kept) < count**3 / 4


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_neither_a_shift_a_rotation_nor_the_size_of_the_cloud_matters(loss):
    own, goal = map(torch.tensor, both_sides(11))
    turned = 5 * goal @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0] - 2
    torch.testing.assert_close(loss(own, turned), loss(own, goal), rtol=1e-9, atol=1e-12)
    assert loss(goal, turned).max() < 1e-20


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-9])
def test_rows_that_are_nearly_equal_have_a_bounded_gradient(loss, apart):
    own, goal = map(torch.tensor, both_sides(13))
    own[1] = own[0]
    own[1, 0] += apart
    own[3] = 0
    own.requires_grad_()
    loss(own, goal).sum().backward()
    assert own.grad.abs().max() < 10


def test_two_equal_rows_do_not_count_in_the_mean_distance():
    own, goal = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    # 0, 1, 1 beside 0.75, 0.75, 1.5, each twice in nine.
    expected = 2 * (0.75**2 + 0.25**2 + 0.5**2) / 2 / 9
    assert rkd_distance(own, goal).mean().item() == pytest.approx(expected, rel=1e-6)


def test_close_rows_keep_their_distance_in_float32_far_from_the_origin():
    rows = torch.tensor([[1000.0, 0.0], [1000.5, 0.0], [1000.0, 0.25]])
    near = rows - torch.tensor([1000.0, 0.0])
    assert rkd_distance(rows, near).max() < 1e-10


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_other_rows_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"must hold, but got student \(3, 2\) and teacher \(4, 5"):
        loss(torch.zeros(3, 2), torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"must hold, but got teacher \(3, 2, 1\)"):
        loss(torch.zeros(3, 2), torch.zeros(3, 2, 1))
    with pytest.raises(ValueError, match=r"must hold, but got student \(3, 0\)"):
        loss(torch.zeros(3, 0), torch.zeros(3, 2))
