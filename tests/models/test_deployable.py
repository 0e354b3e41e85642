"""A network with what stands before and after it: raw rows in, one row of numbers out."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.models.deployable import Deployable, Rescale, read_answer

ANSWER = torch.arange(6.0).reshape(2, 3)
OTHER = torch.zeros(2, 5)


class Output(OrderedDict):
    """As Hugging Face's outputs are: a mapping whose entries are attributes too."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


Pair = namedtuple("Pair", ["logits", "hidden"])


@pytest.mark.parametrize("result", [
    ANSWER,
    (ANSWER, OTHER),
    [ANSWER],
    Pair(ANSWER, OTHER),
    {"logits": ANSWER, "hidden": OTHER},
    {"hidden": OTHER, "logits": ANSWER},
    {"loss": torch.zeros(()), "logits": ANSWER},
    {"output": ANSWER, "hidden": OTHER},
    {"predictions": ANSWER},
    {"out": ANSWER, "aux": OTHER},
    Output(logits=ANSWER, hidden_states=(OTHER,)),
    SimpleNamespace(logits=ANSWER, loss=None),
])  # fmt: skip
def test_the_answer_is_found_in_whatever_a_network_returns(result):
    assert torch.equal(read_answer(result, 3), ANSWER)


@pytest.mark.parametrize("result", [
    None, 3.0, "seven", (), [], {}, (None, ANSWER), {"logits": None}, SimpleNamespace(logits=None),
    SimpleNamespace(scores=ANSWER), [[1.0]], {"a": {"b": ANSWER}},
])  # fmt: skip
def test_what_holds_no_answer_is_refused_with_its_type(result):
    name = type(result).__name__
    with pytest.raises(ModelError, match=rf"must return a tensor.*but this one returned {name}"):
        read_answer(result, 3)


def test_one_value_per_row_may_come_without_a_second_axis():
    assert read_answer(torch.arange(4.0), 1).tolist() == [[0.0], [1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    ("shape", "width"), [((2, 3), 4), ((3,), 3), ((2, 3, 1), 3), ((), 1), ((2, 1, 1), 1)]
)
def test_another_shape_is_refused_with_both(shape, width):
    with pytest.raises(ModelError) as error:
        read_answer(torch.zeros(shape), width)
    assert f"[batch, {width}]" in str(error.value)
    assert f"shape {list(shape)}" in str(error.value)
    assert f"give its last layer {width} outputs" in str(error.value)


class Scale(nn.Module):
    def forward(self, rows):
        return rows.float() / 255


def make(**changes):
    network = nn.Linear(4, 3)
    return Deployable(**({"preprocess": Scale(), "network": network, "width": 3} | changes))


def test_raw_rows_go_through_preprocess_network_and_rescale():
    module = make(rescale=Rescale(mean=[1.0, 2.0, 3.0], std=[2.0, 1.0, 0.5]))
    rows = torch.randint(0, 256, (5, 4), dtype=torch.uint8)
    expected = module.network(rows.float() / 255)
    expected = expected * torch.tensor([2.0, 1.0, 0.5]) + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(module(rows), expected)


def test_without_a_scale_the_answer_stays_as_it_is():
    module = make()
    rows = torch.randint(0, 256, (5, 4), dtype=torch.uint8)
    assert torch.equal(module(rows), module.network(rows.float() / 255))
    assert set(module.state_dict()) == {"network.weight", "network.bias"}


def test_a_network_may_answer_in_its_own_form():
    class Named(nn.Module):
        def forward(self, rows):
            return {"logits": rows[:, :3], "hidden": rows}

    assert make(network=Named())(torch.ones(2, 4)).shape == (2, 3)


def test_a_network_of_another_width_is_refused_when_it_answers():
    with pytest.raises(ModelError, match=r"3 numbers per row.*shape \[2, 7\]"):
        make(network=nn.Linear(4, 7))(torch.ones(2, 4))


def test_the_scale_belongs_to_the_weights_and_is_not_learned():
    module = make(rescale=Rescale(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0]))
    assert {"rescale.mean", "rescale.std"} <= set(module.state_dict())
    assert {n for n, _ in module.named_parameters()} == {"network.weight", "network.bias"}


def test_gradients_go_through_all_of_it():
    module = make(rescale=Rescale(mean=[0.0] * 3, std=[2.0] * 3))
    module(torch.ones(2, 4)).sum().backward()
    assert (module.network.bias.grad == 4.0).all()
