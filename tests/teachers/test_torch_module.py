"""A PyTorch module as teacher."""

import pytest
import torch
from torch import nn

from conformance.teacher import COLUMNS, TeacherCase, TeacherLaws
from understudy.contracts import Batch
from understudy.teachers.torch_module import TorchTeacher


def network(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(COLUMNS, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.Linear(8, 3)
        )


class TestTorchTeacher(TeacherLaws):
    @pytest.fixture
    def case(self):
        """With dropout and batch statistics, which a teacher that teaches must not use."""
        return TeacherCase(teacher=TorchTeacher(network(dropout=0.5), output="logits"), width=3)

    def test_asking_it_does_not_change_its_statistics(self, case, batch):
        before = case.teacher.module[1].running_mean.clone()
        case.teacher(batch)
        assert torch.equal(case.teacher.module[1].running_mean, before)


def test_its_answer_has_the_name_it_was_given():
    teacher = TorchTeacher(network(), output="values")
    assert teacher.offers == {"values"}
    assert set(teacher(Batch(inputs=torch.zeros(2, COLUMNS)))) == {"values"}


def test_it_sees_its_own_inputs_where_there_are_some():
    teacher = TorchTeacher(network(), output="logits")
    own, others = torch.randn(2, COLUMNS), torch.zeros(2, 3)
    found = teacher(Batch(inputs=others, teacher_inputs=own))["logits"]
    assert torch.equal(found, teacher(Batch(inputs=own))["logits"])


def test_a_module_without_weights_can_teach():
    teacher = TorchTeacher(nn.Flatten(), output="logits")
    rows = torch.randn(2, 3)
    assert torch.equal(teacher(Batch(inputs=rows))["logits"], rows)


def test_nobody_can_find_it_among_their_own_weights():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = TorchTeacher(network(), output="logits")

    assert not list(Holder().parameters())
    assert not Holder().state_dict()
