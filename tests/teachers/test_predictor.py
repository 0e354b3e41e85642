"""Any callable as teacher."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from conformance.teacher import COLUMNS, TeacherCase, TeacherLaws, some_rows
from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.teachers.predictor import SMALLEST, PredictorTeacher

WEIGHTS = np.random.default_rng(0).standard_normal((COLUMNS, 3))


def answer(rows):
    return rows @ WEIGHTS


class TestAFunction(TeacherLaws):
    @pytest.fixture
    def case(self):
        teacher = PredictorTeacher(answer, output="logits", width=3)
        return TeacherCase(teacher=teacher, width=3)


class TestAFunctionThatSpoilsItsRows(TeacherLaws):
    """It works on its argument in place: the student's rows must not notice."""

    @pytest.fixture
    def case(self):
        def predict(rows):
            rows *= 2
            return answer(rows)

        return TeacherCase(teacher=PredictorTeacher(predict, output="logits", width=3), width=3)


class TestAnEstimator(TeacherLaws):
    @pytest.fixture
    def case(self):
        draw = np.random.default_rng(1)
        rows, classes = draw.standard_normal((60, COLUMNS)), np.arange(60) % 4
        model = LogisticRegression().fit(rows, classes)
        teacher = PredictorTeacher(
            model.predict_proba, output="logits", width=4, answers="probabilities"
        )
        return TeacherCase(teacher=teacher, width=4)


class TestARegressor(TeacherLaws):
    """One value per row, as scikit-learn answers it: without a second axis."""

    @pytest.fixture
    def case(self):
        teacher = PredictorTeacher(lambda rows: rows.sum(axis=1), output="values", width=1)
        return TeacherCase(teacher=teacher, width=1, output="values")


class TestWithAPreprocess(TeacherLaws):
    @pytest.fixture
    def case(self):
        class Scale(nn.Module):
            def forward(self, rows):
                return rows / 255

        teacher = PredictorTeacher(answer, output="logits", width=3, preprocess=Scale())
        return TeacherCase(teacher=teacher, width=3, rows=lambda g: 255 * some_rows(g))

    def test_it_is_applied_to_the_raw_rows(self, case, batch):
        expected = answer(batch.inputs.numpy() / np.float32(255))
        np.testing.assert_allclose(case.teacher(batch)["logits"], expected, rtol=1e-5)


def batch(rows=4):
    return Batch(inputs=torch.randn(rows, COLUMNS), ids=torch.arange(rows))


def always(value):
    return lambda rows: np.tile(np.asarray(value), (len(rows), 1))


def test_probabilities_become_logits_that_say_the_same():
    teacher = PredictorTeacher(
        always([0.2, 0.5, 0.3]), output="logits", width=3, answers="probabilities"
    )
    found = teacher(batch())["logits"]
    torch.testing.assert_close(found.softmax(dim=1), torch.tensor([[0.2, 0.5, 0.3]] * 4))


def test_a_probability_of_0_stays_finite():
    teacher = PredictorTeacher(
        always([1.0, 0.0]), output="logits", width=2, answers="probabilities"
    )
    found = teacher(batch())["logits"]
    assert found.isfinite().all()
    assert found[0, 1].item() == pytest.approx(np.log(SMALLEST), rel=1e-6)


def test_raw_rows_reach_the_function_as_they_are():
    seen = []

    def predict(rows):
        seen.append((rows.dtype, rows.copy()))
        return np.zeros((len(rows), 2)) + rows[:, :1]

    rows = torch.arange(6, dtype=torch.uint8).reshape(3, 2)
    PredictorTeacher(predict, output="logits", width=2)(Batch(inputs=rows))
    assert seen[0][0] == np.uint8
    np.testing.assert_array_equal(seen[0][1], rows.numpy())


@pytest.mark.parametrize("form", [list, tuple, torch.tensor, np.asfortranarray])
def test_lists_and_tensors_are_answers_too(form):
    values = np.ones((4, 3)) * np.arange(4)[:, None]
    teacher = PredictorTeacher(lambda rows: form(values), output="logits", width=3)
    np.testing.assert_array_equal(teacher(batch())["logits"], values)


def test_distributions_that_are_said_to_be_logits_are_refused_with_the_line_to_write():
    teacher = PredictorTeacher(always([0.25, 0.75]), output="logits", width=2)
    with pytest.raises(ModelError, match=r"\[0\.25, 0\.75\].*`teacher.answers: probabilities`"):
        teacher(batch())


@pytest.mark.parametrize("wrong", [[0.2, 0.2], [1.5, -0.5], [3.0, -1.0]])
def test_logits_that_are_said_to_be_probabilities_are_refused(wrong):
    teacher = PredictorTeacher(always(wrong), output="logits", width=2, answers="probabilities")
    with pytest.raises(ModelError, match="`answers: probabilities` needs rows that"):
        teacher(batch())


def test_values_are_never_taken_for_probabilities():
    teacher = PredictorTeacher(always([0.25, 0.75]), output="values", width=2)
    assert teacher(batch())["values"][0].tolist() == [0.25, 0.75]


def test_another_number_of_columns_is_refused():
    teacher = PredictorTeacher(always([1.0, 2.0]), output="logits", width=3)
    with pytest.raises(ModelError, match=r"3 numbers per row.*\[4, 2\]"):
        teacher(batch())


def test_another_number_of_rows_is_refused():
    teacher = PredictorTeacher(lambda rows: np.ones((2, 3)), output="logits", width=3)
    with pytest.raises(ModelError, match="to 4 it gave 2"):
        teacher(batch())
