"""The numbers that a student learns in: which are chosen, and what is not computed in them."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from understudy.contracts import Batch, Knowledge
from understudy.engine import pick, precision
from understudy.errors import TrainingError
from understudy.losses import HardLabel
from understudy.objective import Objective, Term, control_objective
from understudy.recipe import Training

BF16 = {"epochs": 2, "precision": "bfloat16"}


class Watching(nn.Module):
    """Remembers in which numbers its layer computes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.seen = set()

    def forward(self, rows):
        found = self.layer(rows)
        self.seen.add((self.training, found.dtype))
        return found


class Loss(HardLabel):
    """Remembers in which numbers it is asked."""

    def forward(self, student, labels):
        self.seen = student.dtype, torch.is_autocast_enabled("cpu")
        return super().forward(student, labels)


def hard(problem, loss):
    term = Term(name="hard_label", loss=loss, reads="logits", labels=True)
    return Objective([term], task=problem.task, offers=frozenset())


def test_layers_compute_in_bfloat16_and_nothing_else_does(problem):
    student, loss = Watching(), Loss()
    problem.fit(student=student, objective=hard(problem, loss), teacher=None, settings=BF16)
    assert student.seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert loss.seen == (torch.float32, False)
    assert {p.dtype for p in student.parameters()} == {torch.float32}


def test_float32_is_what_it_was(problem, same):
    plain = problem.fit(settings={"epochs": 2})[1]
    assert same(plain, problem.fit(settings={"epochs": 2, "precision": "float32"})[1])
    assert not same(plain, problem.fit(settings=BF16)[1])


def test_bfloat16_learns_as_much(problem):
    settings = {"epochs": 15, "optimizer": {"kind": "adamw", "learning_rate": 0.03}}
    fitted, _ = problem.fit(soft=False, settings={**settings, "precision": "bfloat16"})
    assert fitted.points[-1]["validation"] > 0.8


def test_bfloat16_goes_together_with_clipped_gradients(problem, same):
    clipped = problem.fit(settings={**BF16, "gradient_clip": 0.01})[1]
    assert not same(clipped, problem.fit(settings=BF16)[1])


def paces(monkeypatch, **seconds):
    monkeypatch.setattr(precision, "interleaved", lambda calls, **_: {n: seconds[n] for n in calls})


@pytest.fixture
def able(monkeypatch):
    """A processor that has instructions for bfloat16, or is believed to."""
    monkeypatch.setattr(precision, "without_bfloat16", lambda device: None)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    ("half", "expected"), [(0.5, "bfloat16"), (0.89, "bfloat16"), (0.95, "float32"), (3, "float32")]
)
def test_the_faster_one_is_taken_if_it_is_worth_it(problem, monkeypatch, half, expected):
    paces(monkeypatch, float32=1.0, bfloat16=half)
    student = problem.student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    state = torch.get_rng_state()
    goal = control_objective([], task=problem.task)
    picked = pick(student.eval(), goal, problem.inputs[:16], Training())
    assert picked.precision == expected
    assert picked.rows_per_second == {"float32": 16, "bfloat16": pytest.approx(16 / half)}
    assert picked.line().startswith(f"precision: {expected} (rows/s forward and back: float32 16, ")
    assert torch.equal(torch.get_rng_state(), state)
    assert not student.training
    assert all(p.grad is None for p in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


@pytest.mark.usefixtures("able")
def test_it_is_really_timed(problem):
    goal = control_objective([], task=problem.task)
    picked = pick(problem.student(), goal, problem.inputs[:16], Training())
    assert picked.precision in ("float32", "bfloat16")
    assert set(picked.rows_per_second) == {"float32", "bfloat16"}
    assert min(picked.rows_per_second.values()) > 0


def test_a_processor_without_instructions_is_not_timed(problem, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(precision, "interleaved", None)
    goal = control_objective([], task=problem.task)
    picked = pick(problem.student(), goal, problem.inputs[:16], Training())
    assert picked.line() == ("precision: float32 (this processor has no instructions for bfloat16)")


class Stubborn(nn.Module):
    """Computes in float32 only."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, rows):
        found = self.layer(rows)
        if found.dtype != torch.float32:
            raise TypeError("float32 it must be")
        return found


@pytest.mark.usefixtures("able")
def test_a_student_that_cannot_learns_in_float32_and_the_line_says_why(problem):
    goal = control_objective([], task=problem.task)
    picked = pick(Stubborn(), goal, problem.inputs[:16], Training())
    assert picked.line() == "precision: float32 (float32 it must be)"


def test_where_nothing_can_be_timed_it_is_float32(problem):
    goal = control_objective([], task=problem.task)
    elsewhere = Training(trainer={"accelerator": "tpu"})
    picked = pick(problem.student(), goal, problem.inputs[:16], elsewhere)
    assert (picked.precision, picked.why) == ("float32", "only CPU and CUDA are timed")


class Telling:
    """A teacher that remembers whether it was asked in mixed precision."""

    offers = frozenset({"logits"})

    def __init__(self, matrix):
        self.matrix, self.seen = matrix, set()

    def __call__(self, batch):
        told = batch.inputs @ self.matrix
        self.seen.add(told.dtype)
        return Knowledge(fields={"logits": told})


def test_a_live_teacher_answers_in_its_own_numbers(problem):
    teacher = Telling(problem.matrix)
    problem.fit(teacher=teacher, settings=BF16)
    assert teacher.seen == {torch.float32}


def test_auto_refuses_a_loader_without_batches(problem):
    with pytest.raises(TrainingError, match="at least one batch per epoch"):
        problem.fit(settings={"precision": "auto"}, loader=[])


@pytest.mark.usefixtures("able")
def test_auto_looks_at_somebodys_shuffling_loader_without_moving_its_order(problem, monkeypatch):
    paces(monkeypatch, float32=1.0, bfloat16=5.0)
    rows = TensorDataset(problem.inputs[:80], problem.labels[:80])

    def order(precision):
        seen = []

        def collate(items):
            seen.append([float(row[0]) for row, _ in items])
            inputs, labels = torch.stack([i[0] for i in items]), torch.stack([i[1] for i in items])
            return Batch(inputs=inputs, labels=labels)

        loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collate)
        state = torch.get_rng_state()
        settings = {"epochs": 2, "precision": precision}
        problem.fit(settings=settings, loader=loader, soft=False)
        assert torch.equal(torch.get_rng_state(), state)
        return seen[-10:]

    assert order("auto") == order("float32")


@pytest.mark.usefixtures("able")
def test_auto_in_a_single_training_picks_for_itself(problem, monkeypatch, same):
    paces(monkeypatch, float32=1.0, bfloat16=0.2)
    found = problem.fit(settings={"epochs": 2, "precision": "auto"})[1]
    assert same(found, problem.fit(settings=BF16)[1])
