"""The guard around a teacher."""

import pytest
import torch

from conformance.teacher import COLUMNS, TeacherCase, TeacherLaws
from understudy.contracts import Batch, Knowledge
from understudy.errors import ModelError
from understudy.teachers.checked import CheckedTeacher

MATRIX = torch.randn(COLUMNS, 3, generator=torch.Generator().manual_seed(0))


class Says:
    """A teacher that says what it is told to."""

    def __init__(self, *answers):
        self.answers = list(answers)

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"logits"})

    def __call__(self, batch: Batch) -> Knowledge:
        if not self.answers:
            with torch.no_grad():
                return Knowledge(fields={"logits": batch.inputs @ MATRIX})
        return Knowledge(fields={"logits": torch.tensor(self.answers.pop(0))})


class TestCheckedTeacher(TeacherLaws):
    @pytest.fixture
    def case(self):
        return TeacherCase(teacher=CheckedTeacher(Says()), width=3)


def batch(*ids):
    known = torch.tensor(ids) if ids else None
    return Batch(inputs=torch.arange(3.0 * COLUMNS).reshape(3, COLUMNS), ids=known)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_an_answer_that_is_not_finite_is_refused_with_its_rows(wrong):
    teacher = CheckedTeacher(Says([[1.0, 2.0], [wrong, 0.0], [0.0, wrong]]))
    with pytest.raises(ModelError, match=r"logits must be finite, but 2 of 3 rows.*rows 17, 3\)"):
        teacher(batch(5, 17, 3))


def test_rows_without_ids_are_named_by_their_position():
    teacher = CheckedTeacher(Says([[1.0], [float("nan")], [0.0]]))
    with pytest.raises(ModelError, match=r"1 of 3 rows.*rows 1\)"):
        teacher(batch())


def test_it_looks_at_every_batch():
    teacher = CheckedTeacher(Says([[1.0], [2.0], [3.0]], [[1.0], [2.0], [float("nan")]]))
    teacher(batch())
    with pytest.raises(ModelError, match="must be finite"):
        teacher(batch())


def test_the_same_answer_for_everything_teaches_nothing():
    teacher = CheckedTeacher(Says([[0.5, 0.25]] * 3))
    with pytest.raises(ModelError, match=r"same logits .* first 3 rows \(\[0.5, 0.25\]"):
        teacher(batch())


def test_a_later_batch_may_be_of_one_mind():
    teacher = CheckedTeacher(Says([[1.0], [2.0], [3.0]], [[1.0], [1.0], [1.0]]))
    teacher(batch())
    assert teacher(batch())["logits"].tolist() == [[1.0]] * 3


def test_a_first_batch_of_one_row_does_not_spare_the_teacher_the_look():
    teacher = CheckedTeacher(Says([[1.0]], [[1.0], [1.0], [1.0]]))
    one = Batch(inputs=torch.zeros(1, COLUMNS))
    assert teacher(one)["logits"].tolist() == [[1.0]]
    with pytest.raises(ModelError, match="teach nothing"):
        teacher(batch())


def test_equal_rows_may_be_answered_equally_and_are_no_proof():
    teacher = CheckedTeacher(Says([[1.0], [1.0], [1.0]], [[1.0], [1.0], [1.0]]))
    equal = Batch(inputs=torch.ones(3, COLUMNS))
    assert teacher(equal)["logits"].tolist() == [[1.0]] * 3
    with pytest.raises(ModelError, match="teach nothing"):
        teacher(batch())
