"""A virtual teacher: laws, both published forms, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from conformance.numbers import agrees, kl, quickly, random_labels, seeds, softmax, two_sets
from understudy.losses.free import TeacherFree, teacher_free


def virtual_teacher(label, classes, correct):
    return [correct if k == label else (1 - correct) / (classes - 1) for k in range(classes)]


def reference(student, labels, correct, tau, form):
    values, classes = [], student.shape[1]
    for own, y in zip(student, labels, strict=True):
        u = np.array(virtual_teacher(y, classes, correct))
        if form == "code":
            values.append(kl(softmax(u / tau), softmax(own)) / classes)
        else:
            softened = u ** (1 / tau)
            values.append(kl(softened / softened.sum(), softmax(own / tau)))
    return np.mean(values)


class TestTeacherFree(LossLaws):
    @pytest.fixture(params=[("code", 20.0), ("paper", 20.0), ("paper", 1.0)])
    def case(self, request):
        form, tau = request.param
        loss = TeacherFree(form=form, tau=tau)
        return LossCase(loss=loss, target=random_labels, unlabelled=-1)


@quickly
@given(
    seed=seeds,
    correct=st.floats(0.5, 0.99),
    tau=st.floats(1.0, 30.0),
    form=st.sampled_from(["code", "paper"]),
)
def test_both_forms_agree_with_a_reference(seed, correct, tau, form):
    student, _ = two_sets(seed, rows=3, classes=5)
    labels = np.random.default_rng(seed).integers(0, 5, size=3)
    constants = {"correct": correct, "tau": tau, "form": form}
    agrees(
        lambda own: teacher_free(own, torch.tensor(labels), **constants),
        lambda own: reference(own, labels, **constants),
        student,
    )


def test_the_papers_form_is_zero_for_a_student_that_is_the_virtual_teacher():
    labels = torch.tensor([2, 0])
    student = torch.tensor([virtual_teacher(y, 4, 0.9) for y in labels.tolist()]).log() + 3.0
    values = teacher_free(student, labels, correct=0.9, tau=5.0, form="paper")
    torch.testing.assert_close(values, torch.zeros(2), rtol=0, atol=1e-6)
    other = teacher_free(student, labels, correct=0.9, tau=5.0, form="code")
    assert (other > 0.05).all()


def test_the_codes_target_is_all_but_uniform():
    # At a uniform student the gradient is student minus target, over the classes.
    student = torch.zeros(1, 100, dtype=torch.float64, requires_grad=True)
    teacher_free(student, torch.tensor([7]), correct=0.99, tau=20.0, form="code").backward()
    target = 0.01 - 100 * student.grad[0]
    assert target[7].item() == pytest.approx(0.0105, abs=1e-4)
    assert target.sum().item() == pytest.approx(1)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("constants", "law"),
    [
        ({"correct": 1.0}, "`0 < correct < 1` must hold, but got correct=1.0"),
        ({"correct": math.nan}, "`0 < correct < 1` must hold"),
        ({"tau": 0.0}, "`tau > 0` must hold"),
        ({"form": "mean"}, "`form` must be one of code, paper, but got form='mean'"),
    ],
)
def test_bad_constants_are_refused(constants, law):
    with pytest.raises(ValueError, match=law):
        TeacherFree(**constants)
    labels = torch.zeros(1, dtype=torch.int64)
    usual = {"correct": 0.99, "tau": 20.0, "form": "code"}
    with pytest.raises(ValueError, match=law):
        teacher_free(torch.zeros(1, 2), labels, **{**usual, **constants})


def test_the_module_prints_its_constants():
    assert str(TeacherFree()) == "TeacherFree(correct=0.99, tau=20.0, form=code)"
