"""Pruning in training: the schedule, exact zeros, which epochs count, and going on."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.engine.keeper import CHECKPOINT
from understudy.objective import control_objective
from understudy.students.sparse import Sparsity

STEPS = 5  # per epoch
HALF = Sparsity(to=0.5, every=2, layers=("*",))


def deep():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Dropout(0.3), nn.ReLU(),
            nn.Linear(16, 3),
        )  # fmt: skip


def zeros(module):
    weights = [p for n, p in module.named_parameters() if p.ndim == 2]
    return sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)


def test_the_finished_student_has_exactly_the_zeros_that_were_asked_for(problem):
    fitted, student = problem.fit(sparsity=HALF)
    gone, count = zeros(student)
    assert gone == round(0.5 * count)
    shares = [point["sparsity"] for point in fitted.points]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[3:] == pytest.approx([0.5, 0.5], abs=0.005)


def test_only_what_lies_between_first_and_last_is_pruned_unless_named(problem):
    student = deep()
    problem.fit(student=student, sparsity=Sparsity(to=0.8, every=1))
    assert [int((student[n].weight == 0).sum()) for n in (0, 2, 5)] == [0, round(0.8 * 256), 0]
    assert all((student[n].bias != 0).all() for n in (0, 2, 5))


def test_two_of_every_four_inputs_stay(problem):
    student = deep()
    problem.fit(student=student, sparsity=Sparsity(to="2:4", every=1))
    groups = student[2].weight.detach().view(-1, 4)
    assert ((groups != 0).sum(dim=1) == 2).all()


def test_the_rest_of_the_weights_learn_on(problem):
    student = deep()
    sparsity = Sparsity(to=0.5, schedule="once")
    before = deep()[2].weight.detach()
    problem.fit(student=student, sparsity=sparsity)
    kept = student[2].weight.detach() != 0
    smallest = before.abs() <= before.abs().flatten().kthvalue(128).values
    assert torch.equal(~kept, smallest)
    assert (student[2].weight.detach()[kept] != before[kept]).all()


@pytest.mark.parametrize(("sparsity", "step"), [
    (HALF, 2), (HALF, STEPS + 1), (HALF, 3 * STEPS - 1), (HALF, 4 * STEPS + 2),
    (Sparsity(to="2:4", every=3), 2 * STEPS + 1),
    (Sparsity(to=0.6, every=1, scope="layer"), 2 * STEPS + 1),
])  # fmt: skip
def test_an_interrupted_pruning_goes_on_bit_for_bit(problem, same, tmp_path, sparsity, step):
    settings = {"optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9}}
    options = {"sparsity": sparsity, "settings": settings}
    whole, expected = problem.fit(student=deep(), **options)
    problem.fit_until(step, student=deep(), folder=tmp_path, **options)
    fitted, student = problem.fit(student=deep(), folder=tmp_path, **options)
    assert same(student, expected)
    assert fitted.points == whole.points


def test_the_masks_are_in_the_checkpoint_and_not_in_the_student(problem, tmp_path):
    student = deep()
    problem.fit(student=student, sparsity=HALF, folder=tmp_path)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state_dict"]
    masks = {n: v for n, v in saved.items() if n.startswith("masks.gone")}
    assert all(mask.dtype == torch.bool for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == zeros(student)[0]
    assert list(student.state_dict()) == list(deep().state_dict())


def test_the_log_tells_the_sparsity(problem, tmp_path):
    fitted, _ = problem.fit(sparsity=HALF, folder=tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["sparsity"]) for row in rows] == [p["sparsity"] for p in fitted.points]


def test_without_pruning_the_history_has_no_sparsity(problem):
    assert all("sparsity" not in point for point in problem.fit()[0].points)


def test_an_epoch_before_all_were_gone_is_never_chosen(problem):
    scores = iter([0.9, 0.8, 0.7, 0.1, 0.2])
    fitted, student = problem.fit(
        sparsity=HALF, settings={"choose": "validation"}, validate=lambda o, t: next(scores)
    )
    assert fitted.epoch == 5
    assert zeros(student)[0] == round(0.5 * zeros(student)[1])


def test_early_stopping_waits_until_all_are_gone(problem):
    scores = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    settings = {"epochs": 10, "early_stopping": {"patience": 2}}
    sparsity = Sparsity(to=0.5, end=0.5, layers=("*",))
    fitted, student = problem.fit(
        sparsity=sparsity, settings=settings, validate=lambda o, t: next(scores)
    )
    # All are gone in epoch 5, which is the first to count.
    assert len(fitted.points) == 7
    assert zeros(student)[0] == round(0.5 * zeros(student)[1])


class Short:
    """A loader that has fewer batches than it says."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return 2 * len(self.loader)

    def __iter__(self):
        return iter(self.loader)


def test_a_training_that_ends_before_its_time_has_its_zeros_too(problem):
    fitted, student = problem.fit(sparsity=HALF, loader=Short(problem.loader()))
    assert fitted.points[-1]["sparsity"] < 0.49
    assert zeros(student)[0] == round(0.5 * zeros(student)[1])


def test_a_control_is_pruned_alike(problem):
    control = control_objective(problem.objective().terms, task=problem.task)
    _, student = problem.fit(sparsity=HALF, objective=control, teacher=None)
    assert zeros(student)[0] == round(0.5 * zeros(student)[1])


def test_a_later_training_keeps_the_zeros_that_it_finds(problem):
    _, student = problem.fit(student=deep(), sparsity=Sparsity(to=0.8, layers=("*",)))
    before = {n: p.detach() == 0 for n, p in student.named_parameters()}
    fitted, _ = problem.fit(student=student, sparsity=Sparsity(to="zeros", layers=("*",)))
    assert all(torch.equal(p.detach() == 0, before[n]) for n, p in student.named_parameters())
    shares = {point["sparsity"] for point in fitted.points}
    assert len(shares) == 1
    assert shares.pop() == pytest.approx(0.8, abs=0.005)


def test_steps_of_several_batches_reach_the_goal_too(problem):
    settings = {"trainer": {"accumulate_grad_batches": 3}}
    _, student = problem.fit(sparsity=HALF, settings=settings)
    assert zeros(student)[0] == round(0.5 * zeros(student)[1])


def test_masks_of_a_student_that_cannot_be_pruned_are_refused(problem):
    from understudy.errors import ModelError

    with pytest.raises(ModelError, match="no layer between its first and its last"):
        problem.fit(sparsity=Sparsity(to=0.5))


KILLED = """
import sys, torch
sys.path.insert(0, {here!r})
from conftest import Problem, training
from test_pruning import HALF, deep
from understudy.tasks import Classification
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(100, 6, generator=generator)
labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
matrix = 2 * torch.randn(6, 3, generator=generator)
task = Classification(classes=("a", "b", "c"))
problem = Problem(inputs=inputs, labels=labels, task=task, matrix=matrix)
from pathlib import Path
_, student = problem.fit(student=deep(), sparsity=HALF, folder=Path({folder!r}),
                         settings={{"epochs": 120}})
torch.save(student.state_dict(), {out!r})
"""


def test_a_killed_pruning_ends_with_the_same_weights(tmp_path):
    """SIGKILL at whatever moment, and then the same call again."""

    def start(folder, out):
        code = KILLED.format(
            here=str(Path(__file__).parent), folder=str(folder), out=str(tmp_path / out)
        )
        return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    process = start(tmp_path / "killed", "killed.pt")
    end = time.monotonic() + 100
    while not (tmp_path / "killed" / CHECKPOINT).is_file():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed.pt").exists()
    for folder in ("killed", "whole"):
        _, told = start(tmp_path / folder, f"{folder}.pt").communicate(timeout=200)
        assert (tmp_path / f"{folder}.pt").exists(), told
    killed, whole = (
        torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("killed", "whole")
    )
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
