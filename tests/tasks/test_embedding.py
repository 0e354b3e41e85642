"""Embedding: the laws, then what is particular to a task that nobody labels by hand."""

import numpy as np
import pytest
import torch

from conformance.task import ROWS, TaskCase, TaskLaws
from understudy.contracts import Batch, Knowledge, Task
from understudy.losses.embeddings import CosineDistance
from understudy.objective import Objective, Term
from understudy.objective.control import control_objective
from understudy.tasks.embedding import Embedding


class TestEmbedding(TaskLaws):
    """Labels are vectors to compare with; no row has one to learn from."""

    @pytest.fixture
    def case(self):
        return TaskCase(
            task=Embedding(dimension=4),
            labels=lambda rows, generator: torch.randn(rows, 4, generator=generator),
            perfect=torch.clone,
            unlabelled=torch.nan,
        )

    def test_it_is_a_task_with_a_name_an_output_and_a_width(self, case):
        assert isinstance(case.task, Task)
        assert (case.task.name, case.task.output, case.task.width) == ("embedding", "embedding", 4)

    def test_the_hard_loss_has_a_gradient_in_every_labelled_row(self, case, answers, labels):
        answers.requires_grad_()
        values = case.task.hard_loss(answers, labels)
        assert (values == 0).all()
        values.sum().backward()
        assert (answers.grad == 0).all()  # no row is labelled

    def test_tensors_and_arrays_agree_on_which_rows_have_a_label(self, case, labels):
        assert not case.task.labelled(labels).any()
        assert case.task.labelled(labels).shape == (ROWS,)
        assert case.task.labelled(torch.zeros(3, dtype=torch.int64)).tolist() == [False] * 3
        np.testing.assert_array_equal(case.task.labelled_rows(labels.numpy()), [False] * ROWS)


def test_the_score_and_the_likeness_are_the_mean_cosine():
    own, goal = np.random.default_rng(0).standard_normal((2, 6, 4))
    each = (own * goal).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(goal, axis=1)
    task = Embedding(dimension=4)
    assert task.scores[0].value(own, goal) == pytest.approx(each.mean(), rel=1e-12)
    (likeness,) = task.fidelity(goal)
    assert likeness.value(own, np.zeros(6)) == pytest.approx(each.mean(), rel=1e-12)
    assert {task.scores[0].name, likeness.name} == {"cosine", "teacher_cosine"}


def test_an_objective_teaches_vectors_and_a_control_has_nothing_to_learn():
    task = Embedding(dimension=2)
    term = Term(name="cosine", loss=CosineDistance(), reads="embedding", needs=("embedding",))
    own = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    told = Knowledge(fields={"embedding": torch.tensor([[0.0, 1.0], [0.0, 1.0]])})
    batch = Batch(inputs=torch.ones(2, 3, dtype=torch.int64))
    objective = Objective([term], task=task, offers=frozenset({"embedding"}))
    total = objective(own, told, batch, epoch=0.0, epochs=1)
    assert total.loss.item() == pytest.approx(0.5)
    control = control_objective([term], task=task)
    assert control(own, None, batch, epoch=0.0, epochs=1).loss.item() == 0
