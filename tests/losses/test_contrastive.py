"""Contrastive representation distillation: laws, the authors' formula in plain loops."""

import math

import numpy as np
import pytest
import torch

from conformance.loss import LossCase, LossLaws
from understudy.losses.contrastive import CRD, crd

NEGATIVES = 3


def other_rows(student, generator):
    return torch.randn(student.shape, generator=generator).to(student.dtype)


def two_banks(student, generator):
    shape = len(student), 1 + NEGATIVES, student.shape[1]
    names = ("student_bank", "teacher_bank")
    return {name: torch.randn(shape, generator=generator) / 3 for name in names}


def scale(one=5.0, other=7.0, rows=11.0, temperature=0.5):
    return {
        "student_constant": torch.tensor(one),
        "teacher_constant": torch.tensor(other),
        "rows": torch.tensor(rows),
        "temperature": torch.tensor(temperature),
    }


class TestCRD(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=CRD(),
            target=other_rows,
            also=two_banks,
            constants=scale(),
            narrow=(1,),
            both=True,
        )


def reference(student, teacher, student_bank, teacher_bank, constants, rows, temperature):
    """The authors' probabilities, with logarithms of quotients."""
    values = []
    for i in range(len(student)):
        value = 0.0
        sides = ((student[i], teacher_bank[i]), (teacher[i], student_bank[i]))
        for (anchor, bank), constant in zip(sides, constants, strict=True):
            noise = (len(bank) - 1) / rows
            chances = [math.exp(anchor @ held / temperature) / constant for held in bank]
            value -= math.log(chances[0] / (chances[0] + noise + 1e-7))
            value -= sum(math.log(noise / (p + noise + 1e-7)) for p in chances[1:])
        values.append(value)
    return np.array(values)


def drawn(seed, batch=4, width=5, negatives=6):
    draw = np.random.default_rng(seed)

    def sphere(*shape):
        rows = draw.standard_normal((*shape, width))
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    sides = sphere(batch), sphere(batch)
    return (*sides, sphere(batch, 1 + negatives), sphere(batch, 1 + negatives))


def called(student, teacher, student_bank, teacher_bank, **changed):
    constants = {name: value.double() for name, value in scale(**changed).items()}
    return crd(
        student,
        teacher,
        student_bank=torch.as_tensor(student_bank),
        teacher_bank=torch.as_tensor(teacher_bank),
        **constants,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_agrees_with_the_authors_formula_in_float64(seed, temperature):
    student, teacher, own_bank, goal_bank = drawn(seed)
    values = called(
        torch.tensor(student), torch.tensor(teacher), own_bank, goal_bank, temperature=temperature
    )
    expected = reference(
        student, teacher, own_bank, goal_bank, (5, 7), 11, np.float32(temperature).item()
    )
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9)


def test_both_sides_have_the_gradient_of_the_reference_and_the_banks_none():
    student, teacher, own_bank, goal_bank = drawn(9)
    sides = [torch.tensor(side, requires_grad=True) for side in (student, teacher)]
    banks = [torch.tensor(bank, requires_grad=True) for bank in (own_bank, goal_bank)]
    called(*sides, *banks).mean().backward()
    assert all(bank.grad is None for bank in banks)
    for which in (0, 1):
        expected = np.zeros_like(student)
        for at in np.ndindex(*student.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [student.copy(), teacher.copy()]
                moved[which][at] += step
                ends.append(reference(*moved, own_bank, goal_bank, (5, 7), 11, 0.5).mean())
            expected[at] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(sides[which].grad.numpy(), expected, rtol=1e-5, atol=1e-8)


def test_it_falls_as_a_row_comes_near_to_itself_and_rises_near_a_negative():
    _, teacher, own_bank, goal_bank = drawn(2)
    goal = torch.tensor(teacher)
    at_home = called(torch.tensor(goal_bank[:, 0]), goal, own_bank, goal_bank)
    astray = called(torch.tensor(goal_bank[:, 1]), goal, own_bank, goal_bank)
    assert (at_home < astray).all()


def test_many_rows_of_many_negatives_stay_exact_in_float32():
    student, teacher, own_bank, goal_bank = drawn(3, negatives=4096)
    constants = {"one": 5e4, "other": 7e4, "rows": 5e4, "temperature": 0.07}
    args = [torch.tensor(x, dtype=torch.float32) for x in (student, teacher, own_bank, goal_bank)]
    values = crd(args[0], args[1], student_bank=args[2], teacher_bank=args[3], **scale(**constants))
    expected = reference(student, teacher, own_bank, goal_bank, (5e4, 7e4), 5e4, 0.07)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-5)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("changed", "shape", "law"),
    [
        ("teacher", (4, 6), r"must hold, but got student \(4, 5\) and teacher \(4, 6\)"),
        ("student_bank", (4, 1, 5), r"`k >= 1`.* got student_bank \(4, 1, 5\)"),
        ("student_bank", (3, 7, 5), r"got student_bank \(3, 7, 5\)"),
        ("teacher_bank", (4, 6, 5), r"alike for both, but got teacher_bank \(4, 6, 5\)"),
        ("teacher_bank", (4, 7, 6), r"got teacher_bank \(4, 7, 6\)"),
    ],
)
def test_shapes_that_do_not_agree_are_refused(changed, shape, law):
    names = ("student", "teacher", "student_bank", "teacher_bank")
    parts = dict(zip(names, map(torch.tensor, drawn(4)), strict=True))
    parts[changed] = torch.zeros(shape)
    with pytest.raises(ValueError, match=law):
        crd(**parts, **scale())
