"""The engine: what it trains, what it keeps, and that going on is as if nothing had happened."""

import json
import signal

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from understudy.contracts import Batch, Knowledge
from understudy.engine import fitting
from understudy.engine.keeper import CHECKPOINT
from understudy.errors import RunError, TrainingError
from understudy.losses import HardLabel
from understudy.objective import Objective, Term, control_objective

SGD = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9}
ADAMW = {"kind": "adamw", "learning_rate": 0.01}
COSINE = {"kind": "cosine", "warm_up": 0.2}
STEP = {"kind": "step", "milestones": [2, 3], "warm_up": 0.0}
STEPS = 5  # per epoch


# --- what it learns ------------------------------------------------------------------------------


def test_the_loss_falls_and_the_student_learns(problem):
    settings = {"epochs": 15, "optimizer": {**ADAMW, "learning_rate": 0.03}}
    fitted, student = problem.fit(soft=False, settings=settings)
    losses = [point["training_loss"] for point in fitted.points]
    assert losses[-1] < 0.6 * losses[0]
    assert fitted.points[-1]["validation"] > 0.8
    assert not student.training


def test_points_say_epoch_step_score_and_the_mean_of_every_term(problem):
    fitted, _ = problem.fit(settings={"epochs": 3})
    assert [p["epoch"] for p in fitted.points] == [1, 2, 3]
    assert [p["step"] for p in fitted.points] == [STEPS, 2 * STEPS, 3 * STEPS]
    for point in fitted.points:
        assert set(point["parts"]) == {"hard_label", "soft_target"}
        total = point["parts"]["hard_label"] + point["parts"]["soft_target"]
        assert point["training_loss"] == pytest.approx(total, rel=1e-5)
        assert 0 <= point["validation"] <= 1
    assert fitted.epoch == 3
    assert fitted.seconds > 0
    assert json.loads(json.dumps(list(fitted.points))) == [dict(p) for p in fitted.points]


def test_steps_are_counted_one_by_one(problem):
    seen = []
    problem.fit(settings={"epochs": 2}, on_step=seen.append)
    assert seen == list(range(1, 2 * STEPS + 1))


def test_the_same_call_gives_the_same_weights(problem, same):
    assert same(problem.fit()[1], problem.fit()[1])


def test_another_seed_gives_other_dropout_and_other_weights(problem, same):
    assert not same(problem.fit(seed=5)[1], problem.fit(seed=6)[1])


def test_the_global_random_state_is_left_as_it_was(problem):
    before = torch.get_rng_state()
    problem.fit(settings={"epochs": 1})
    assert torch.equal(torch.get_rng_state(), before)


def test_a_control_with_the_students_own_objective_is_the_student(problem, same):
    """Same start weights, order and views: what is left between them is the objective alone."""
    hard = Term(name="hard_label", loss=HardLabel(), reads="logits", labels=True)
    alone = Objective([hard], task=problem.task, offers=frozenset())
    control = control_objective([hard], task=problem.task)
    _, student = problem.fit(objective=alone, teacher=problem.teacher())
    _, other = problem.fit(objective=control, teacher=None)
    assert same(student, other)


def test_student_and_control_see_somebodys_shuffled_loader_in_the_same_order(problem, same):
    """Also in the first epoch, and whatever was drawn before: the loader has no seed of its own."""
    rows = TensorDataset(problem.inputs[:80], problem.labels[:80])
    seen = []

    def collate(items):
        batch = Batch(inputs=torch.stack([i[0] for i in items]),
                      labels=torch.stack([i[1] for i in items]))  # fmt: skip
        seen.append(batch.inputs[:, 0].tolist())
        return batch

    loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collate)
    orders = []
    for ambient in (1, 2):
        torch.manual_seed(ambient)
        seen.clear()
        problem.fit(soft=False, loader=loader, settings={"epochs": 2})
        orders.append(list(seen))
    assert orders[0] == orders[1]
    assert orders[0][:STEPS] != orders[0][STEPS:]


# --- the teacher stays outside -------------------------------------------------------------------


class ModuleTeacher(nn.Linear):
    """A teacher that is itself a module, as somebody may well write one."""

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"logits"})

    def __call__(self, batch: Batch) -> Knowledge:
        with torch.no_grad():
            return Knowledge(fields={"logits": self.forward(batch.inputs)})


def test_a_teacher_is_in_no_state_dict_no_optimizer_and_does_not_move(problem, tmp_path):
    teacher = ModuleTeacher(6, 3)
    before = teacher.weight.detach().clone()
    problem.fit(teacher=teacher, folder=tmp_path, settings={"epochs": 2})
    assert torch.equal(teacher.weight, before)
    assert teacher.weight.grad is None
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert all(name.startswith("student.") for name in saved["state_dict"])
    groups = saved["optimizer_states"][0]["param_groups"]
    assert sum(len(g["params"]) for g in groups) == len(list(problem.student().parameters()))


def test_the_teacher_is_asked_once_per_batch(problem):
    teacher = problem.teacher()
    problem.fit(teacher=teacher, settings={"epochs": 2})
    assert len(teacher.asked) == 2 * STEPS
    for epoch in (teacher.asked[:STEPS], teacher.asked[STEPS:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(80))


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"optimizer": SGD, "schedule": STEP},
    {"optimizer": ADAMW, "schedule": COSINE},
])  # fmt: skip
@pytest.mark.parametrize("step", [1, STEPS, STEPS + 1, 3 * STEPS - 2, 5 * STEPS])
def test_an_interrupted_training_goes_on_bit_for_bit(problem, same, tmp_path, options, step):
    """With dropout, momentum and a schedule; from the last epoch's end."""
    whole, expected = problem.fit(folder=tmp_path / "whole", settings=options)
    folder = tmp_path / "stopped"
    problem.fit_until(step, folder=folder, settings=options)
    seen = []
    fitted, student = problem.fit(folder=folder, settings=options, on_step=seen.append)
    assert same(student, expected)
    assert fitted.points == whole.points
    assert seen[0] == (step - 1) // STEPS * STEPS + 1
    log = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "stopped")]
    assert log[0] == log[1]


def test_a_training_that_was_interrupted_again_and_again_is_the_same(problem, same, tmp_path):
    _, expected = problem.fit()
    for step in (7, 13, 14, 22):
        problem.fit_until(step, folder=tmp_path)
    fitted, student = problem.fit(folder=tmp_path)
    assert same(student, expected)
    assert [p["epoch"] for p in fitted.points] == [1, 2, 3, 4, 5]


def test_a_training_that_had_ended_but_was_not_put_away_is_not_trained_on(problem, same, tmp_path):
    whole, expected = problem.fit(folder=tmp_path)
    seen = []
    fitted, student = problem.fit(folder=tmp_path, on_step=seen.append)
    assert not seen
    assert same(student, expected)
    assert fitted.points == whole.points


def test_a_live_teacher_and_views_go_on_bit_for_bit(problem, same, tmp_path):
    class Noise:
        def __call__(self, rows, draws):
            return rows + (draws() % 1000).unsqueeze(1) / 1000

    from understudy.data.views import Views

    def loader():
        return problem.loader(views=Views([Noise()], seed=4))

    _, expected = problem.fit(loader=loader())
    problem.fit_until(12, loader=loader(), folder=tmp_path)
    assert same(problem.fit(loader=loader(), folder=tmp_path)[1], expected)


def test_seconds_add_up_over_sessions(problem, tmp_path):
    problem.fit_until(3 * STEPS + 1, folder=tmp_path)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    before = saved["callbacks"]["Keeper"]["seconds"]
    assert problem.fit(folder=tmp_path)[0].seconds > before > 0


def test_a_checkpoint_is_read_with_weights_only_and_nothing_is_left_beside_it(problem, tmp_path):
    stop = {"early_stopping": {"patience": 3}, "choose": "validation", "schedule": COSINE}
    problem.fit(folder=tmp_path, settings=stop)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["epoch"] >= 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, "log.csv"]


def test_checkpoints_are_written_no_more_often_than_asked(problem, tmp_path):
    problem.fit(folder=tmp_path, settings={"checkpoint_seconds": 3600.0})
    assert not (tmp_path / CHECKPOINT).exists()
    assert (tmp_path / "log.csv").is_file()


def test_without_a_folder_nothing_is_written(problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem.fit(settings={"choose": "validation"})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_so_and_leaves_the_last_checkpoint_whole(problem, tmp_path, monkeypatch):
    import errno
    import os

    problem.fit_until(STEPS + 1, folder=tmp_path)
    whole = (tmp_path / CHECKPOINT).read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="disk is full"):
            problem.fit(folder=tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT]


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_term(problem, tmp_path):
    inputs = problem.inputs.clone()
    problem.inputs = inputs.clone()
    problem.inputs[:80] = 1e38
    with pytest.raises(TrainingError) as error:
        problem.fit(folder=tmp_path)
    text = str(error.value)
    assert "epoch 1, step 1" in text
    assert "`soft_target`" in text
    assert "gradient_clip" in text


def test_the_step_of_a_late_nan_is_counted_over_all_epochs(problem):
    class Breaks:
        offers = frozenset({"logits"})

        def __init__(self):
            self.calls = 0

        def __call__(self, batch):
            self.calls += 1
            broken = float("nan") if self.calls == 8 else 1.0
            return Knowledge(fields={"logits": batch.inputs @ problem.matrix * broken})

    with pytest.raises(TrainingError, match=r"epoch 2, step 8: .*`soft_target` is not"):
        problem.fit(teacher=Breaks())


def test_a_loader_without_a_batch_is_refused(problem):
    with pytest.raises(TrainingError, match="at least one batch"):
        problem.fit(loader=problem.loader(0, 0))


def test_a_loader_without_a_length_is_refused(problem):
    class Unsized:
        def __iter__(self):
            return iter(problem.loader())

    with pytest.raises(TrainingError, match="__len__"):
        problem.fit(loader=Unsized())


def test_ctrl_c_stays_ctrl_c_and_is_listened_to_again(problem, tmp_path):
    def on_step(done):
        if done == STEPS + 2:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        problem.fit(folder=tmp_path, on_step=on_step)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["epoch"] == 0


def test_a_missing_tensorboard_names_its_extra(problem, tmp_path, monkeypatch):
    from understudy.errors import MissingExtraError

    def missing(*arguments, **options):
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(fitting, "TensorBoardLogger", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "understudy\[tensorboard\]"'):
        problem.fit(folder=tmp_path, settings={"tensorboard": True})


def test_tensorboard_writes_events(problem, tmp_path):
    pytest.importorskip("tensorboard")
    problem.fit(folder=tmp_path, settings={"tensorboard": True, "epochs": 1})
    assert list(tmp_path.rglob("events.out.tfevents*"))
