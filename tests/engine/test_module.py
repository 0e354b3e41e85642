"""Optimizers, learning rates and devices: what stands between a batch and a step."""

import numpy as np
import pytest
import torch
from torch import nn

from understudy.engine import learning_rate_factor
from understudy.engine.module import Distiller
from understudy.recipe import LearningRate, Training


def test_a_step_of_sgd_is_the_textbooks(problem):
    """One step without momentum, against autograd by hand."""
    student = problem.student(dropout=0.0)
    expected = problem.student(dropout=0.0)
    plain = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.02}
    constant = {"kind": "constant", "warm_up": 0.0}
    loader = problem.loader(batch_size=80)
    problem.fit(
        student=student, soft=False, loader=loader,
        settings={"epochs": 1, "optimizer": plain, "schedule": constant},
    )  # fmt: skip
    loss = nn.functional.cross_entropy(expected(problem.inputs[:80]), problem.labels[:80])
    loss.backward()
    for new, old in zip(student.parameters(), expected.parameters(), strict=True):
        step = old - 0.1 * (old.grad + 0.02 * old)
        torch.testing.assert_close(new, step)


def test_the_gradient_is_clipped_to_its_norm(problem):
    def moved(**changes):
        student = problem.student(dropout=0.0)
        start = torch.cat([p.detach().flatten().clone() for p in student.parameters()])
        plain = {"kind": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
        constant = {"kind": "constant", "warm_up": 0.0}
        options = {"epochs": 1, "schedule": constant, "optimizer": plain}
        loader = problem.loader(batch_size=80)
        problem.fit(student=student, loader=loader, settings=options | changes)
        return (torch.cat([p.detach().flatten() for p in student.parameters()]) - start).norm()

    free = float(moved())
    assert free > 0.5
    assert float(moved(gradient_clip=0.01)) == pytest.approx(0.01, rel=1e-4)
    assert float(moved(gradient_clip=100.0)) == pytest.approx(free)


def rates(steps, *, epochs=10, **schedule):
    training = Training(epochs=epochs, schedule=LearningRate.model_validate(schedule))
    factor = learning_rate_factor(training, steps=steps)
    return np.array([factor(step) for step in range(steps)])


def test_a_constant_rate_is_constant_after_its_warm_up():
    found = rates(100, kind="constant", warm_up=0.1)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 11)
    np.testing.assert_array_equal(found[10:], 1.0)


def test_a_cosine_falls_from_1_to_almost_0():
    found = rates(100, kind="cosine", warm_up=0.2)
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 21)
    np.testing.assert_allclose(found[20:], (1 + np.cos(np.pi * np.arange(80) / 80)) / 2)


def test_steps_fall_exactly_at_their_epochs():
    found = rates(70, kind="step", milestones=[3, 7], factor=0.1, warm_up=0.0)
    np.testing.assert_allclose(found, np.repeat([1.0, 0.1, 0.01], [21, 28, 21]))


@pytest.mark.parametrize("kind", ["constant", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_training_of_few_steps_has_rates_above_0(kind, steps):
    found = rates(steps, kind=kind, warm_up=0.05)
    assert (found > 0).all()
    assert (found <= 1).all()


def test_the_optimizer_takes_the_schedules_rates(problem):
    """Adam's first step is the learning rate, whatever the gradient: so the rate can be seen."""
    student = problem.student(dropout=0.0)
    start = student[0].bias.detach().clone()
    adamw = {"kind": "adamw", "learning_rate": 0.01, "weight_decay": 0.0}
    warm = {"kind": "constant", "warm_up": 0.8}
    problem.fit(
        student=student, loader=problem.loader(batch_size=80),
        settings={"epochs": 1, "optimizer": adamw, "schedule": warm},
    )  # fmt: skip
    moved = (student[0].bias.detach() - start).abs().max()
    assert float(moved) == pytest.approx(0.01 / 2, rel=1e-3)


def test_frozen_weights_stay(problem):
    student = problem.student()
    student[0].requires_grad_(False)
    before = student[0].weight.clone()
    problem.fit(student=student)
    assert torch.equal(student[0].weight, before)


def test_a_batch_moves_to_a_device_whole(problem):
    """Lightning refuses frozen dataclasses; `meta` stands for an accelerator here."""
    module = Distiller(
        student=problem.student(), objective=problem.objective(), teacher=None,
        training=Training(), seed=0, validate=None, on_step=lambda _: None,
    )  # fmt: skip
    batch = next(iter(problem.loader()))
    moved = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.inputs.device.type == moved.labels.device.type == moved.ids.device.type == "meta"
    assert moved.views is None
    assert module.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
