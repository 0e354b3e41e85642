"""An objective that is asked per token: positions are rows, and nothing else changes."""

import pytest
import torch
from torch.nn import functional as F

from understudy.contracts import Batch, Knowledge, Outcomes, Ragged, per_position
from understudy.errors import ModelError
from understudy.losses import CATALOGUE
from understudy.objective import Objective, Term, scored
from understudy.tasks import PerToken, TokenClassification

HARD = CATALOGUE["hard_label"].loss()
SOFT = CATALOGUE["soft_target"].loss(temperature=2.0)
TASK = TokenClassification(classes=("a", "b", "c"))
COUNTED = torch.tensor([[True, False, True, False], [False, False, False, False], [True] * 4])


def batch(counted=COUNTED, labels=None):
    torch.manual_seed(0)
    labels = torch.randint(0, 3, counted.shape) if labels is None else labels
    rows = torch.arange(counted.numel()).view(counted.shape)
    return Batch(inputs=rows, labels=labels, ids=torch.arange(len(counted)), positions=counted)


def objective(terms=None):
    terms = terms or [
        Term(name="hard_label", loss=HARD, reads="logits", labels=True, weight=0.25),
        Term(name="soft_target", loss=SOFT, reads="logits", needs=("logits",), weight=0.75),
    ]
    return Objective(terms, task=TASK, offers=frozenset({"logits"}))


def loss(student, told, rows, goal=None):
    knowledge = None if told is None else Knowledge(fields={"logits": told})
    return (goal or objective())(student, knowledge, rows, epoch=0.0, epochs=1)


def by_hand(student, teacher, rows):
    """A loop over positions, in float64."""
    hard, soft = [], []
    for row, place in rows.positions.nonzero().tolist():
        own, goal = student[row, place].double(), teacher[row, place].double()
        label = int(rows.labels[row, place])
        if label >= 0:
            hard.append(-F.log_softmax(own, dim=0)[label])
        share = F.softmax(goal / 2, dim=0)
        soft.append(4 * (share * (share.log() - F.log_softmax(own / 2, dim=0))).sum())
    return 0.25 * torch.stack(hard).mean() + 0.75 * torch.stack(soft).mean()


@pytest.fixture
def sides():
    torch.manual_seed(1)
    return torch.randn(3, 4, 3, requires_grad=True), torch.randn(3, 4, 3)


def test_the_mean_is_over_every_position_that_counts_and_padding_gets_no_gradient(sides):
    student, teacher = sides
    rows = batch()
    rows.labels[0, 2] = -1
    total = loss(student, teacher, rows)
    torch.testing.assert_close(total.loss.double(), by_hand(student, teacher, rows))
    total.loss.backward()
    touched = student.grad.abs().sum(dim=2) > 0
    assert torch.equal(touched, COUNTED)


def test_a_store_that_joins_positions_teaches_as_the_live_teacher_does(sides):
    student, teacher = sides
    joined = Ragged(values=teacher[COUNTED], lengths=COUNTED.sum(dim=1))
    alive = loss(student, teacher, batch()).loss
    torch.testing.assert_close(loss(student, joined, batch()).loss, alive)
    every = torch.arange(3).expand(int(COUNTED.sum()), 3)
    told = Outcomes(
        ids=every, log_mass=teacher[COUNTED].log_softmax(dim=1),
        rest=torch.full((len(every),), -torch.inf), classes=3,
    )  # fmt: skip
    listed = Ragged(values=told, lengths=COUNTED.sum(dim=1))
    torch.testing.assert_close(loss(student, listed, batch()).loss, alive)


def test_what_padding_holds_makes_no_difference(sides):
    student, teacher = sides
    before = loss(student, teacher, batch()).loss
    own, goal = student.detach().clone(), teacher.clone()
    own[~COUNTED], goal[~COUNTED] = torch.nan, torch.inf
    torch.testing.assert_close(loss(own, goal, batch()).loss, before.detach())


def test_a_batch_that_is_all_padding_adds_nothing(sides):
    student, teacher = sides
    total = loss(student, teacher, batch(torch.zeros_like(COUNTED)))
    assert float(total.loss.detach()) == 0
    total.loss.backward()
    assert float(student.grad.abs().sum()) == 0


def test_a_mismatch_of_lengths_names_both_numbers(sides):
    student, teacher = sides
    short = Ragged(values=teacher[COUNTED][:5], lengths=torch.tensor([2, 0, 3]))
    with pytest.raises(ModelError, match=r"told of 5 positions in 3 rows and 6 in 3 rows count"):
        loss(student, short, batch())
    moved = Ragged(values=teacher[COUNTED], lengths=torch.tensor([1, 1, 4]))
    with pytest.raises(ModelError, match="6 positions"):
        loss(student, moved, batch())
    with pytest.raises(ModelError, match=r"student's answer must be one answer per position"):
        loss(student[:, 0], teacher, batch())
    with pytest.raises(ModelError, match="head per token"):
        per_position("it", teacher[:, :3], COUNTED)
    with pytest.raises(ModelError, match=r"labels must be one per position, \[3, 4\]"):
        loss(student, teacher, batch(labels=torch.zeros(3, 2, dtype=torch.int64)))


def test_scored_positions_are_counted_and_labelled_and_condensed_by_the_task(sides):
    student, _ = sides
    rows = batch()
    rows.labels[2, 1] = -1
    answers, labels = scored(student, rows, TASK)
    seen = COUNTED & (rows.labels >= 0)
    assert torch.equal(answers, student[seen])
    assert torch.equal(labels, rows.labels[seen])

    class Few:
        each_token = True

        def condensed(self, answers, labels):
            return answers.log_softmax(dim=1).gather(1, labels[:, None])

    assert isinstance(Few(), PerToken)
    few, _ = scored(student, rows, Few())
    assert few.shape == (int(seen.sum()), 1)
