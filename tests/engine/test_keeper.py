"""What is kept of a training: which weights, when it stops, and what is logged."""

import csv

import pytest
import torch

from understudy.engine.keeper import Keeper, history_csv
from understudy.recipe import Training

STEPS = 5  # per epoch


# --- which weights are kept ----------------------------------------------------------------------


class Scores:
    """Validation scores that a test writes down."""

    def __init__(self, *values):
        self.values, self.weights = list(values), []

    def __call__(self, outputs, labels):
        del labels
        self.weights.append(outputs.clone())
        return self.values[len(self.weights) - 1]


def answers(problem, student):
    with torch.no_grad():
        return student(problem.inputs[80:])


def test_last_keeps_the_last_epoch(problem):
    scores = Scores(0.1, 0.9, 0.3, 0.2, 0.1)
    fitted, student = problem.fit(validate=scores)
    assert fitted.epoch == 5
    assert torch.equal(answers(problem, student), scores.weights[-1])


@pytest.mark.parametrize(("values", "higher", "best"), [
    ((0.1, 0.9, 0.3, 0.2, 0.1), True, 2),
    ((0.5, 0.9, 0.3, 0.2, 0.4), False, 4),
    ((0.4, 0.9, 0.9, 0.2, 0.9), True, 2),  # the first of equals
    ((float("nan"), 0.2, 0.3, float("nan"), 0.1), True, 3),
    ((-5.0, float("-inf"), -3.0, -4.0, -5.0), True, 3),
])  # fmt: skip
@pytest.mark.parametrize("saved", [True, False])
def test_validation_keeps_the_best_epoch(problem, tmp_path, values, higher, best, saved):
    scores = Scores(*values)
    fitted, student = problem.fit(
        validate=scores, higher_is_better=higher, settings={"choose": "validation"},
        folder=tmp_path if saved else None,
    )  # fmt: skip
    assert fitted.epoch == best
    assert torch.equal(answers(problem, student), scores.weights[best - 1])


def test_the_best_epoch_is_remembered_over_an_interruption(problem, tmp_path):
    scores = Scores(0.1, 0.9, 0.3)
    options = {"choose": "validation"}
    problem.fit_until(16, validate=scores, folder=tmp_path, settings=options)
    later = Scores(0.2, 0.1)
    fitted, student = problem.fit(validate=later, folder=tmp_path, settings=options)
    assert fitted.epoch == 2
    assert torch.equal(answers(problem, student), scores.weights[1])


def test_a_score_that_is_never_a_number_keeps_the_last_epoch(problem):
    nothing = float("nan")
    fitted, _ = problem.fit(validate=Scores(*[nothing] * 5), settings={"choose": "validation"})
    assert fitted.epoch == 5


def test_without_validation_rows_the_last_epoch_is_kept(problem):
    fitted, _ = problem.fit(validation=None, settings={"choose": "validation"})
    assert fitted.epoch == 5
    assert all(p["validation"] is None for p in fitted.points)


def test_validation_takes_place_as_often_as_asked(problem):
    fitted, _ = problem.fit(settings={"validate_every": 2})
    assert [p["validation"] is not None for p in fitted.points] == [False, True, False, True, False]


# --- early stopping ------------------------------------------------------------------------------


STOP = {"epochs": 9, "early_stopping": {"patience": 2, "minimum": 0.05}}


def test_early_stopping_waits_for_its_patience_and_wants_its_minimum(problem):
    fitted, _ = problem.fit(settings=STOP, validate=Scores(0.1, 0.5, 0.52, 0.54, 0.9, 0.9, 0.9))
    assert len(fitted.points) == 4


def test_early_stopping_follows_scores_that_should_fall(problem):
    scores = Scores(0.9, 0.5, 0.4, 0.45, 0.41, 0.1)
    fitted, _ = problem.fit(settings=STOP, validate=scores, higher_is_better=False)
    assert len(fitted.points) == 5


def test_early_stopping_counts_validations(problem):
    scores = Scores(0.5, 0.4, 0.3, 0.9)
    fitted, _ = problem.fit(settings=STOP | {"validate_every": 2}, validate=scores)
    assert len(fitted.points) == 6


@pytest.mark.parametrize("step", [11, 16, 20])
def test_an_interruption_does_not_change_when_it_stops(problem, same, tmp_path, step):
    values = (0.1, 0.5, 0.5, 0.5, 0.9, 0.9)
    whole, expected = problem.fit(settings=STOP, validate=Scores(*values))
    problem.fit_until(step, settings=STOP, validate=Scores(*values), folder=tmp_path)
    rest = Scores(*values[(step - 1) // STEPS :])
    fitted, student = problem.fit(settings=STOP, validate=rest, folder=tmp_path)
    assert fitted.points == whole.points
    assert same(student, expected)


def test_a_training_that_had_stopped_early_stays_stopped(problem, same, tmp_path):
    values = (0.5, 0.4, 0.3)
    whole, expected = problem.fit(settings=STOP, validate=Scores(*values), folder=tmp_path)
    fitted, student = problem.fit(settings=STOP, validate=Scores(), folder=tmp_path)
    assert len(whole.points) == 3
    assert fitted.points == whole.points
    assert same(student, expected)


def test_without_a_score_there_is_no_early_stopping(problem):
    assert len(problem.fit(settings=STOP | {"epochs": 3}, validate=None)[0].points) == 3
    assert len(problem.fit(settings=STOP | {"epochs": 3}, validation=None)[0].points) == 3


# --- the log -------------------------------------------------------------------------------------


def test_the_log_holds_every_epoch(problem, tmp_path):
    fitted, _ = problem.fit(folder=tmp_path, settings={"validate_every": 2})
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    columns = ["epoch", "step", "training_loss", "validation", "hard_label", "soft_target"]
    assert list(rows[0]) == columns
    assert [float(r["training_loss"]) for r in rows] == [p["training_loss"] for p in fitted.points]
    assert rows[0]["validation"] == ""


def test_nothing_is_printed(problem, tmp_path, capfd):
    problem.fit(folder=tmp_path, settings=STOP | {"choose": "validation"})
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_an_empty_history_is_a_csv_too():

    assert history_csv([]).splitlines() == ["epoch"]


def test_a_keeper_says_what_it_kept(problem):
    keeper = Keeper(None, Training(), higher_is_better=True)
    assert keeper.choose(problem.student()) == 0
    fresh = Keeper(None, Training(), higher_is_better=True)
    fresh.load_state_dict(keeper.state_dict())
    assert fresh.points == []
