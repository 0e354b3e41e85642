"""The laws that every teacher keeps. Inherit `TeacherLaws` and give it a `case` fixture.

class TestTorchTeacher(TeacherLaws):
    @pytest.fixture
    def case(self) -> TeacherCase:
        return TeacherCase(teacher=TorchTeacher(network, output="logits"), width=5)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from understudy.contracts import Batch, Teacher

ROWS, COLUMNS = 9, 6


def some_rows(generator: torch.Generator) -> Tensor:
    """Raw rows `[9, 6]`; the ids of a batch of them are 100, 101, ..."""
    return torch.randn(ROWS, COLUMNS, generator=generator)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherCase:
    """One teacher and what it promises.

    Attributes:
        teacher: answers batches of rows `[batch, 6]`.
        width: of its answer.
        output: what its answer is called.
        rows: draws the rows that it can answer.
    """

    teacher: Teacher
    width: int
    output: str = "logits"
    rows: Callable[[torch.Generator], Tensor] = some_rows


def taken(batch: Batch, index: Tensor) -> Batch:
    """Some rows of a batch."""
    return replace(batch, inputs=batch.inputs[index], ids=batch.ids[index])


class TeacherLaws:
    """Every test here is a law; `case` is the teacher that must keep it."""

    @pytest.fixture
    def case(self) -> TeacherCase:
        raise NotImplementedError("a suite of teacher laws needs a `case` fixture")

    @pytest.fixture
    def batch(self, case) -> Batch:
        rows = case.rows(torch.Generator().manual_seed(20150309))
        return Batch(inputs=rows, ids=torch.arange(100, 100 + len(rows)))

    def test_it_is_a_teacher(self, case):
        assert isinstance(case.teacher, Teacher)

    def test_it_says_what_it_offers_before_it_is_asked(self, case):
        assert case.output in case.teacher.offers
        assert isinstance(case.teacher.offers, frozenset)

    def test_it_gives_what_it_offers_one_row_per_row(self, case, batch):
        knowledge = case.teacher(batch)
        assert set(knowledge) == case.teacher.offers
        assert all(len(value) == len(batch) for value in knowledge.values())
        assert knowledge[case.output].shape == (len(batch), case.width)
        assert knowledge[case.output].dtype == torch.float32
        assert all(value.isfinite().all() for value in knowledge.values())

    def test_the_same_rows_get_the_same_answer(self, case, batch):
        first, second = case.teacher(batch), case.teacher(batch)
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_answers_keep_the_order_of_the_rows(self, case, batch):
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
        moved = case.teacher(taken(batch, order))
        for name, value in case.teacher(batch).items():
            torch.testing.assert_close(moved[name], value[order])

    def test_a_row_alone_gets_the_answer_it_gets_among_others(self, case, batch):
        together = case.teacher(batch)
        for row in range(len(batch)):
            alone = case.teacher(taken(batch, torch.tensor([row])))
            for name, value in together.items():
                torch.testing.assert_close(alone[name], value[row : row + 1])

    def test_repeated_rows_get_the_same_answer(self, case, batch):
        found = case.teacher(taken(batch, torch.tensor([3, 3, 3])))[case.output]
        torch.testing.assert_close(found[1:], found[:2])

    def test_there_is_no_gradient_and_no_graph(self, case, batch):
        asked = replace(batch, inputs=batch.inputs.clone().requires_grad_())
        for value in case.teacher(asked).values():
            assert not value.requires_grad
            assert value.grad_fn is None
        assert asked.inputs.grad is None
        assert torch.is_grad_enabled()

    def test_its_answer_may_enter_a_graph(self, case, batch):
        """So it must not come out of inference mode."""
        weight = torch.ones((), requires_grad=True)
        (case.teacher(batch)[case.output] * weight).sum().backward()
        assert weight.grad is not None

    def test_it_leaves_the_batch_as_it_is(self, case, batch):
        before = batch.inputs.clone(), batch.ids.clone()
        case.teacher(batch)
        assert torch.equal(batch.inputs, before[0])
        assert torch.equal(batch.ids, before[1])

    def test_it_draws_no_random_numbers(self, case, batch):
        before = torch.get_rng_state()
        case.teacher(batch)
        assert torch.equal(torch.get_rng_state(), before)
