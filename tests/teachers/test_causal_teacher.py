"""A causal model as a teacher of the positions that count."""

import pytest
import torch

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.models import GPT
from understudy.teachers.causal_teacher import CausalTeacher


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(vocabulary=11, context=6, end=0, dim=8, depth=1, heads=2)


@pytest.fixture
def batch():
    rows = torch.tensor([[3, 4, 0, 5, 6, 7], [8, 9, 1, 2, 0, 0]])
    positions = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0]]).bool()
    return Batch(inputs=rows, positions=positions)


def test_logits_and_states_tell_the_same_of_the_same_positions(model, batch):
    wanted = model(batch.inputs)[batch.positions]
    told = CausalTeacher(model, tells="logits")(batch)["logits"]
    torch.testing.assert_close(told.values, wanted.detach())
    assert told.lengths.tolist() == [4, 4]
    speaker = CausalTeacher(model)
    states = speaker(batch)["states"]
    torch.testing.assert_close(states.values @ speaker.head.weight.t(), wanted.detach())
    assert speaker.offers == {"states"}
    assert not speaker.head.weight.requires_grad


def test_padded_logits_are_cut_to_the_tokens(model, batch):
    teacher = CausalTeacher(model, tells="logits", vocabulary=9)
    assert teacher(batch)["logits"].values.shape == (8, 9)


def test_what_can_be_no_teacher_of_positions_is_refused(model, batch):
    with pytest.raises(ModelError, match="must be a causal model"):
        CausalTeacher(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="does not say which"):
        CausalTeacher(model)(Batch(inputs=batch.inputs))
