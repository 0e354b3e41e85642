"""Rows without a label beside a teacher: the same promise for every loss that reads both."""

import pytest
import torch

from conformance.numbers import random_labels
from understudy.losses.decoupled import DKD, NKD
from understudy.losses.weighted import WSLD

LOSSES = [DKD(), NKD(), WSLD()]
named = pytest.mark.parametrize("loss", LOSSES, ids=[type(loss).__name__ for loss in LOSSES])


@named
@pytest.mark.parametrize("wild", [0.0, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_row_without_a_label_is_zero_and_has_no_gradient(loss, wild, side):
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(6, 5, generator=generator) for _ in range(2))
    labels = random_labels(student, generator)
    expected = loss(student, teacher, labels=labels)
    labels[::2] = -1
    (student if side == "student" else teacher)[::2] += wild
    student.requires_grad_()
    values = loss(student, teacher, labels=labels)
    values.sum().backward()
    assert (values[::2] == 0).all()
    assert (student.grad[::2] == 0).all()
    assert student.grad.isfinite().all()
    assert (student.grad[1::2].abs().sum(dim=1) > 0).all()
    torch.testing.assert_close(values[1::2], expected[1::2])


@named
def test_a_batch_without_any_label_is_zero(loss):
    student = torch.randn(4, 3, requires_grad=True)
    values = loss(student, torch.randn(4, 3), labels=torch.full((4,), -1))
    values.sum().backward()
    assert torch.equal(values, torch.zeros(4))
    assert torch.equal(student.grad, torch.zeros(4, 3))


@named
@pytest.mark.parametrize("label", [3, -100])
def test_a_label_that_is_no_class_is_refused(loss, label):
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss(torch.zeros(1, 3), torch.zeros(1, 3), labels=torch.tensor([label]))


@named
@pytest.mark.usefixtures("as_users_run_it")
def test_labels_of_another_shape_or_type_are_refused(loss):
    logits = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"must hold, but got labels \(3,\) and student \(4, 3\)"):
        loss(logits, logits, labels=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"torch.int64` must hold, but got torch.float32"):
        loss(logits, logits, labels=torch.zeros(4))
    with pytest.raises(ValueError, match=r"`width >= 2`, but got \(4, 1\)"):
        loss(logits[:, :1], logits[:, :1], labels=torch.zeros(4, dtype=torch.int64))
