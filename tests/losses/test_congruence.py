"""Correlation congruence: laws, the paper's form and the mailed one in plain loops."""

import math

import numpy as np
import pytest
import torch

from conformance.loss import LossCase, LossLaws
from understudy.losses.congruence import CorrelationCongruence, correlation_congruence


def other_rows(student, generator):
    return 3 * torch.randn(student.shape, generator=generator).to(student.dtype)


def wider_rows(student, generator):
    rows = torch.randn(len(student), student.shape[1] + 2, generator=generator)
    return 3 * rows.to(student.dtype)


class TestCorrelationCongruence(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=CorrelationCongruence(),
            target=wider_rows,
            equal=torch.clone,
            rowwise=False,
            narrow=(1,),
            both=True,
            shapes=False,
        )


class TestNeighbours(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=CorrelationCongruence(form="neighbours"),
            target=other_rows,
            equal=torch.clone,
            rowwise=False,
            narrow=(1,),
            both=True,
        )

    def test_the_order_of_rows_does_not_matter(self):
        pytest.skip("declared: this form pairs each row with the next; see below")

    def test_duplicate_rows_have_the_same_value(self):
        pytest.skip("declared: this form pairs each row with the next; see below")


def reference_kernel(student, teacher, gamma=0.4, order=2):
    matrices = []
    for side in (student, teacher):
        units = [row / np.linalg.norm(row) for row in side]
        matrix = [
            [
                math.exp(-2 * gamma)
                * sum((2 * gamma) ** p / math.factorial(p) * (x @ y) ** p for p in range(order + 1))
                for y in units
            ]
            for x in units
        ]
        matrices.append(np.array(matrix))
    return ((matrices[0] - matrices[1]) ** 2).mean(axis=1)


def reference_neighbours(student, teacher):
    gap = np.abs(student - teacher)
    return np.mean([(gap[i] * gap[i + 1]).sum() for i in range(len(gap) - 1)])


def both_sides(seed, rows=6, width=4):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((rows, width)), 2 * draw.standard_normal((rows, width))


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (1.0, 1), (0.1, 5)])
def test_the_kernel_agrees_with_a_float64_reference(gamma, order):
    student, teacher = both_sides(1)
    own, goal = torch.tensor(student), torch.tensor(teacher)
    values = correlation_congruence(own, goal, gamma=gamma, order=order).numpy()
    np.testing.assert_allclose(values, reference_kernel(student, teacher, gamma, order), rtol=1e-9)


def test_neighbours_agree_with_a_float64_reference():
    student, teacher = both_sides(2)
    own, goal = torch.tensor(student), torch.tensor(teacher)
    values = correlation_congruence(own, goal, form="neighbours")
    assert values.mean().item() == pytest.approx(reference_neighbours(student, teacher), rel=1e-12)
    gap = np.abs(student - teacher)
    first = 6 / 5 * (gap[0] * gap[1]).sum() / 2
    assert values[0].item() == pytest.approx(first, rel=1e-12)


def test_neighbours_depend_on_the_order_of_the_batch_and_the_kernel_does_not():
    own, goal = map(torch.tensor, both_sides(3))
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    sums = {
        form: [correlation_congruence(s, t, form=form).sum() for s, t in sides]
        for form in ("kernel", "neighbours")
        for sides in [((own, goal), (own[order], goal[order]))]
    }
    torch.testing.assert_close(sums["kernel"][1], sums["kernel"][0])
    assert abs(sums["neighbours"][1] / sums["neighbours"][0] - 1) > 0.01


@pytest.mark.parametrize("form", ["kernel", "neighbours"])
def test_both_sides_have_the_gradient_of_the_reference(form):
    student, teacher = both_sides(4, rows=4, width=3)
    sides = [torch.tensor(side, requires_grad=True) for side in (student, teacher)]
    correlation_congruence(*sides, form=form).mean().backward()

    def reference(own, goal):
        if form == "neighbours":
            return reference_neighbours(own, goal)
        return reference_kernel(own, goal).mean()

    for which in (0, 1):
        expected = np.zeros_like(student)
        for at in np.ndindex(*student.shape):
            moved = [[student.copy(), teacher.copy()] for _ in range(2)]
            moved[0][which][at] += 1e-6
            moved[1][which][at] -= 1e-6
            expected[at] = (reference(*moved[0]) - reference(*moved[1])) / 2e-6
        np.testing.assert_allclose(sides[which].grad.numpy(), expected, rtol=1e-5, atol=1e-9)


def test_the_expansion_meets_the_gaussian_kernel_on_the_sphere():
    own = torch.nn.functional.normalize(torch.randn(2, 5, dtype=torch.float64), dim=1)
    flat = torch.eye(2, dtype=torch.float64)
    exact = math.exp(-0.4 * (own[0] - own[1]).square().sum())
    expected = (exact - math.exp(-0.8)) ** 2 / 2
    value = correlation_congruence(own, flat, order=10).mean().item()
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("constants", "law"),
    [
        ({"form": "gram"}, "`form` must be one of kernel, neighbours, but got form='gram'"),
        ({"gamma": 0.0}, "`gamma > 0` must hold, but got gamma=0.0"),
        ({"gamma": math.nan}, "`gamma > 0` must hold, but got gamma=nan"),
        ({"order": 0}, "`1 <= order <= 10` must hold, but got order=0"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_bad_constants_are_refused(constants, law):
    with pytest.raises(ValueError, match=law):
        CorrelationCongruence(**constants)
    with pytest.raises(ValueError, match=law):
        correlation_congruence(torch.eye(2), torch.eye(2), **constants)


@pytest.mark.usefixtures("as_users_run_it")
def test_other_rows_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"must hold, but got student \(3, 2\) and teacher \(4, 2"):
        correlation_congruence(torch.zeros(3, 2), torch.zeros(4, 2))
    law = r"must hold, but got student \(3, 2\) and teacher \(3, 4\)"
    with pytest.raises(ValueError, match=law):
        correlation_congruence(torch.zeros(3, 2), torch.zeros(3, 4), form="neighbours")


def test_it_prints_its_constants():
    text = "CorrelationCongruence(form=neighbours, gamma=0.4, order=2)"
    assert str(CorrelationCongruence(form="neighbours")) == text
