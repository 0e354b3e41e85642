"""Constraints in training: what they hold, and that going on remembers where training began."""

import pytest
import torch

from understudy.engine import probe
from understudy.engine.keeper import CHECKPOINT
from understudy.losses import L2SP, HardLabel, NormBall, Orthogonality, SoftTargetKL
from understudy.objective import Objective, Term, control_objective

STEPS = 5  # per epoch
# Adaptive steps would hide how hard a term pulls.
SGD = {"optimizer": {"kind": "sgd", "learning_rate": 0.05, "weight_decay": 0.0}}


def terms(loss, weight=1.0):
    return [
        Term(name="hard_label", loss=HardLabel(), reads="logits", labels=True),
        Term(
            name="soft_target", loss=SoftTargetKL(temperature=2.0), reads="logits",
            needs=("logits",),
        ),
        Term(name="held", loss=loss, reads="weights", weight=weight),
    ]  # fmt: skip


def held(problem, loss, weight=1.0):
    return Objective(terms(loss, weight), task=problem.task, offers=frozenset({"logits"}))


def run(problem, loss, weight=1.0, **changes):
    return problem.fit(objective=held(problem, loss, weight), settings=SGD, **changes)


def distance(student, start):
    pairs = zip(student.parameters(), start.parameters(), strict=True)
    return sum(float((a - b).detach().square().sum()) for a, b in pairs) ** 0.5


def test_a_student_that_is_held_stays_nearer_to_its_start(problem):
    far = [
        distance(run(problem, L2SP(), weight)[1], problem.student()) for weight in (0.0, 1.0, 10.0)
    ]
    assert far[0] > 1.2 * far[1] > 2 * far[2] > 0


def test_the_history_tells_its_value(problem):
    fitted, student = problem.fit(objective=held(problem, L2SP(), 0.01))
    values = [point["parts"]["held"] for point in fitted.points]
    assert 0 < values[0] < values[-1]
    end = distance(student, problem.student()) ** 2 / 2
    assert values[-1] == pytest.approx(end, rel=0.25)


@pytest.mark.parametrize("loss", [L2SP(), NormBall(radius=0.1, hold="projection")])
@pytest.mark.parametrize("step", [STEPS + 2, 3 * STEPS + 1])
def test_going_on_measures_from_where_training_began(problem, same, tmp_path, loss, step):
    _, expected = problem.fit(objective=held(problem, loss))
    problem.fit_until(step, objective=held(problem, loss), folder=tmp_path)
    assert (tmp_path / CHECKPOINT).is_file()
    # What is given to go on with does not matter, as its weights do not: the checkpoint's count.
    other = problem.student(seed=9)
    _, student = problem.fit(objective=held(problem, loss), folder=tmp_path, student=other)
    assert same(student, expected)


def test_the_start_is_in_the_checkpoint_and_not_in_the_student(problem, tmp_path):
    student = problem.student()
    names = set(student.state_dict())
    problem.fit(objective=held(problem, L2SP()), folder=tmp_path, student=student)
    assert set(student.state_dict()) == names
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state_dict"]
    kept = [value for name, value in saved.items() if name.startswith("objective.start.")]
    start = list(problem.student().state_dict().values())
    assert all(torch.equal(one, two) for one, two in zip(kept, start, strict=True))


@pytest.mark.parametrize("per", ["weight", "network"])
def test_a_projected_student_ends_inside_its_ball(problem, per):
    free = distance(problem.fit(settings=SGD)[1], problem.student())
    ball = NormBall(radius=0.05, per=per, hold="projection")
    _, student = run(problem, ball)
    pairs = zip(student.parameters(), problem.student().parameters(), strict=True)
    far = [float((one - two).detach().norm()) for one, two in pairs]
    whole = sum(d**2 for d in far) ** 0.5
    assert free > 0.2
    assert (max(far) if per == "weight" else whole) == pytest.approx(0.05, rel=1e-3)


def test_orthogonality_makes_matrices_more_orthogonal(problem):
    apart = []
    for weight in (0.0, 0.3):
        fitted, _ = run(problem, Orthogonality(), weight)
        apart.append([point["parts"]["held"] for point in fitted.points])
    assert apart[1][-1] < 0.7 * apart[1][0]
    assert apart[1][-1] < 0.7 * apart[0][-1]


def test_the_control_is_held_too(problem):
    control = control_objective(terms(L2SP(), 10.0), task=problem.task)
    _, student = problem.fit(objective=control, teacher=None, settings=SGD)
    free = control_objective(terms(L2SP(), 0.0), task=problem.task)
    _, other = problem.fit(objective=free, teacher=None, settings=SGD)
    start = problem.student()
    assert distance(student, start) < 0.5 * distance(other, start)


@pytest.mark.parametrize(("loss", "pulls"), [
    (L2SP(), False), (NormBall(radius=1.0), False),
    (Orthogonality(), True), (L2SP(beta=1.0, new=("3.*",)), True),
])  # fmt: skip
def test_the_look_before_training_tells_value_and_pull(problem, same, loss, pulls):
    student = problem.student()
    objective = held(problem, loss)
    readings = probe(
        student=student, objective=objective, teacher=problem.teacher(), loader=problem.loader(),
        epochs=5,
    )  # fmt: skip
    told = {reading.term: reading for reading in readings}["held"]
    assert (told.value > 0) is (told.gradient > 0) is pulls
    assert told.line().startswith("held: ")
    assert same(student, problem.student())
    assert objective.start is not None


def test_steps_of_several_batches_are_projected_too(problem):
    ball = NormBall(radius=0.05, hold="projection")
    settings = {"trainer": {"accumulate_grad_batches": 2}}
    _, student = problem.fit(objective=held(problem, ball), settings=settings)
    pairs = zip(student.parameters(), problem.student().parameters(), strict=True)
    assert max(float((one - two).detach().norm()) for one, two in pairs) <= 0.05 * (1 + 1e-4)
