"""Recurrent modules of several layers as lists of layers."""

import pytest
import torch
from torch import nn

from understudy.blockwise.form import piece, replaced
from understudy.blockwise.partition import partition
from understudy.blockwise.recurrent import unrolled
from understudy.errors import ModelError

ROWS = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0)).double()


class Reader(nn.Module):
    """It answers from the last states of the top layer."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn
        size = (rnn.proj_size or rnn.hidden_size) * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(size, 2)

    def forward(self, rows):
        _, state = self.rnn(rows)
        last = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat(list(last[-2:] if self.rnn.bidirectional else last[-1:]), 1))


def reader(kind=nn.LSTM, **settings):
    torch.manual_seed(0)
    return Reader(kind(6, 4, num_layers=3, batch_first=True, **settings)).double().eval()


LAYERS = [
    (nn.LSTM, {}),
    (nn.LSTM, {"bidirectional": True}),
    (nn.LSTM, {"proj_size": 2, "bias": False}),
    (nn.GRU, {"bidirectional": True}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize(("kind", "settings"), LAYERS)
def test_it_answers_as_before_and_its_layers_are_blocks(kind, settings):
    network = reader(kind, **settings)
    made = unrolled(network)
    found = partition(made, ROWS, measure=False)
    assert [block.paths for block in found.blocks] == [(f"rnn.layers.{n}",) for n in range(3)]
    pieces = {block.name: piece(made, block) for block in found.blocks}
    with torch.no_grad():
        assert torch.equal(made(ROWS), network(ROWS))
        assert torch.equal(replaced(made, found, pieces)(ROWS), network(ROWS))


@pytest.mark.parametrize(("kind", "settings"), LAYERS[:4])
def test_states_go_in_and_out_as_before(kind, settings):
    old = reader(kind, **settings).rnn
    new = unrolled(nn.Sequential(old))[0]
    with torch.no_grad():
        _, state = old(ROWS)
        for one, other in zip(flat(old(ROWS, state)), flat(new(ROWS, state)), strict=True):
            assert torch.equal(one, other)


def flat(value):
    return [value] if isinstance(value, torch.Tensor) else [t for item in value for t in flat(item)]


def test_dropout_stays_between_the_layers():
    made = unrolled(reader(dropout=0.25))
    assert made.rnn.between.p == 0.25
    assert not made.training
    assert [layer.num_layers for layer in made.rnn.layers] == [1, 1, 1]
    assert made.rnn.hidden_size == 4


def test_a_network_without_such_a_module_is_refused():
    with pytest.raises(ModelError, match="no recurrent module of several layers"):
        unrolled(nn.Sequential(nn.LSTM(6, 4), nn.Linear(4, 2)))
