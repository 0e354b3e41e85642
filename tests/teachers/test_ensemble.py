"""Several teachers as one."""

import pytest
import torch
from torch import nn

from conformance.teacher import COLUMNS, TeacherCase, TeacherLaws
from understudy.contracts import Batch, Knowledge
from understudy.errors import ModelError
from understudy.teachers.ensemble import EnsembleTeacher
from understudy.teachers.torch_module import TorchTeacher


class Says:
    """Says the same of every batch."""

    def __init__(self, **fields):
        self.fields = {name: torch.as_tensor(value) for name, value in fields.items()}

    @property
    def offers(self) -> frozenset[str]:
        return frozenset(self.fields)

    def __call__(self, batch):
        return Knowledge(fields=self.fields)


def told(*members, weights=None, name="logits"):
    ensemble = EnsembleTeacher(members, weights=weights)
    return ensemble(Batch(inputs=torch.zeros(1, 1)))[name]


class TestEnsembleTeacher(TeacherLaws):
    @pytest.fixture
    def case(self):
        torch.manual_seed(0)
        members = [TorchTeacher(nn.Linear(COLUMNS, 5), output="logits") for _ in range(3)]
        return TeacherCase(teacher=EnsembleTeacher(members), width=5)


def test_it_is_the_mean_of_probabilities_and_not_of_logits():
    first, second = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[-3.0, 1.0, 4.0]])
    found = told(Says(logits=first), Says(logits=second)).softmax(dim=1)
    torch.testing.assert_close(found, (first.softmax(dim=1) + second.softmax(dim=1)) / 2)
    assert not torch.allclose(found, ((first + second) / 2).softmax(dim=1), atol=0.05)


def test_one_member_is_answered_as_it_answers_up_to_a_constant():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    torch.testing.assert_close(told(Says(logits=logits)), logits.log_softmax(dim=1))


def test_probabilities_below_what_float32_can_hold_stay_finite():
    found = told(Says(logits=[[0.0, -300.0]]), Says(logits=[[0.0, -400.0]]))
    assert found.isfinite().all()
    torch.testing.assert_close(found[0, 1], torch.tensor(-300.0 - 0.6931), atol=1e-3, rtol=0)


def test_weights_say_how_much_each_counts():
    first, second = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    found = told(Says(logits=first), Says(logits=second), weights=[3, 1]).softmax(dim=1)
    expected = (3 * first.softmax(dim=1) + second.softmax(dim=1)) / 4
    torch.testing.assert_close(found, expected)


def test_values_are_averaged_as_they_are():
    found = told(Says(values=[[1.0, 4.0]]), Says(values=[[3.0, 0.0]]), name="values")
    torch.testing.assert_close(found, torch.tensor([[2.0, 2.0]]))


def test_only_what_all_offer_is_offered():
    ensemble = EnsembleTeacher([Says(logits=[[1.0]], hidden=[[2.0]]), Says(logits=[[1.0]])])
    assert ensemble.offers == {"logits"}


@pytest.mark.parametrize(("members", "weights", "law"), [
    ([], None, "at least one member"),
    ([Says(logits=[[1.0]]), Says(values=[[1.0]])], None, "in common, but offer logits; values"),
    ([Says(logits=[[1.0]])], [1.0, 2.0], r"as many positive weights, but got \[1.0, 2.0\]"),
    ([Says(logits=[[1.0]])], [0.0], "as many positive weights"),
])  # fmt: skip
def test_what_fits_no_mean_is_refused(members, weights, law):
    with pytest.raises(ModelError, match=law):
        EnsembleTeacher(members, weights=weights)


def test_members_of_different_widths_are_refused_with_both():
    with pytest.raises(ModelError, match=r"\[1, 2\] and \[1, 3\].*same classes"):
        told(Says(logits=[[1.0, 2.0]]), Says(logits=[[1.0, 2.0, 3.0]]))
