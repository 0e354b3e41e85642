"""The laws that every task keeps. Inherit `TaskLaws` and give it a `case` fixture.

class TestClassification(TaskLaws):
    @pytest.fixture
    def case(self) -> TaskCase:
        return TaskCase(task=Classification(classes=("a", "b")), unlabelled=-1, ...)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy.contracts import Task
from understudy.tasks import AnyTask

ROWS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskCase:
    """One task.

    Attributes:
        task: it.
        labels: draws one label for each of so many rows.
        perfect: comparable answers to labels at which the hard loss is 0, or below `nearly`.
        unlabelled: what stands where a row has no label.
        nearly: how small the loss of a perfect answer is.
        told: comparable answers and labels as scores read them, where that is something else.
    """

    task: AnyTask
    labels: Callable[[int, torch.Generator], Tensor]
    perfect: Callable[[Tensor], Tensor]
    unlabelled: float
    nearly: float = 0.0
    told: Callable[[Tensor, Tensor], tuple[np.ndarray, np.ndarray]] | None = None

    def of(self, answers, labels):
        """Answers and labels as scores read them."""
        if self.told is not None:
            return self.told(answers, labels)
        return answers.double().numpy(), labels.numpy()


class TaskLaws:
    """Every test here is a law; `case` is the task that must keep it."""

    @pytest.fixture
    def case(self) -> TaskCase:
        raise NotImplementedError("a suite of task laws needs a `case` fixture")

    @pytest.fixture
    def generator(self):
        return torch.Generator().manual_seed(20150309)

    @pytest.fixture
    def labels(self, case, generator):
        return case.labels(ROWS, generator)

    @pytest.fixture
    def answers(self, case, generator):
        return torch.randn(ROWS, case.task.width, generator=generator)

    def test_it_is_a_task_with_a_name_an_output_and_a_width(self, case):
        assert isinstance(case.task, Task)
        assert case.task.name
        assert case.task.output in {"logits", "values"}
        assert case.task.width >= 1

    @pytest.mark.parametrize("count", [0, 1, ROWS])
    def test_the_hard_loss_is_one_number_per_row_from_0_up(self, case, answers, labels, count):
        values = case.task.hard_loss(answers[:count], labels[:count])
        assert values.shape == (count,)
        assert (values >= 0).all()

    def test_the_hard_loss_of_a_perfect_answer_is_0(self, case, labels):
        assert (case.task.hard_loss(case.perfect(labels), labels) <= case.nearly).all()

    def test_the_hard_loss_has_a_gradient_in_every_labelled_row(self, case, answers, labels):
        answers.requires_grad_()
        case.task.hard_loss(answers, labels).sum().backward()
        assert (answers.grad.abs().sum(dim=1) > 0).all()

    @pytest.mark.parametrize("wild", [0.0, torch.inf, torch.nan])
    def test_rows_without_a_label_are_0_and_have_no_gradient(self, case, answers, labels, wild):
        expected = case.task.hard_loss(answers, labels)
        labels[::2] = case.unlabelled
        answers[::2] += wild
        answers.requires_grad_()
        values = case.task.hard_loss(answers, labels)
        values.sum().backward()
        assert (values[::2] == 0).all()
        assert (answers.grad[::2] == 0).all()
        torch.testing.assert_close(values[1::2], expected[1::2])

    def test_tensors_and_arrays_agree_on_which_rows_have_a_label(self, case, labels):
        labels[[1, 4]] = case.unlabelled
        expected = [row not in (1, 4) for row in range(ROWS)]
        assert case.task.labelled(labels).tolist() == expected
        assert case.task.labelled(labels).dtype == torch.bool
        assert case.task.labelled_rows(labels.numpy()).tolist() == expected

    def test_comparable_answers_keep_shape_type_and_gradient(self, case, answers):
        answers.requires_grad_()
        comparable = case.task.comparable(answers)
        assert comparable.shape == answers.shape
        assert comparable.dtype == answers.dtype
        comparable.sum().backward()
        assert (answers.grad != 0).all()
        assert case.task.comparable(answers.double()).dtype == torch.float64

    def test_a_score_is_taken_of_answers_and_labels_and_the_first_is_the_primary_one(
        self, case, answers, labels
    ):
        scores = case.task.scores
        assert len({score.name for score in scores}) == len(scores) >= 1
        for score in scores:
            assert np.isfinite(score.value(*case.of(answers, labels)))

    def test_a_perfect_answer_scores_best(self, case, answers, labels):
        primary = case.task.scores[0]
        perfect = primary.value(*case.of(case.perfect(labels), labels))
        other = primary.value(*case.of(answers, labels))
        assert (perfect > other) == primary.higher_is_better

    def test_a_teacher_is_most_like_itself(self, case, answers, labels, generator):
        other = answers + torch.randn(ROWS, case.task.width, generator=generator)
        teacher, truth = case.of(answers, labels)
        for score in case.task.fidelity(teacher):
            itself = score.value(teacher, truth)
            away = score.value(*case.of(other, labels))
            assert itself >= away if score.higher_is_better else itself <= away

    def test_readable_answers_are_float64_of_the_same_shape(self, case, answers):
        for outputs in (answers.numpy(), answers.numpy()[None]):
            readable = case.task.readable(outputs)
            assert readable.dtype == np.float64
            assert readable.shape == outputs.shape
