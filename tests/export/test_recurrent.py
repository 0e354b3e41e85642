"""LSTMs as ONNX's own operator: the same answers for rows of any number and length."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from understudy.data.tokens import Tokens
from understudy.deployed import Deployed
from understudy.errors import ExportError
from understudy.export.onnx import export_onnx
from understudy.models import CATALOGUE
from understudy.models.deployable import Deployable


class Reader(nn.Module):
    """A network of the user's own that answers from an LSTM's last states."""

    def __init__(self, **options):
        super().__init__()
        self.embedding = nn.Embedding(30, 5)
        self.lstm = nn.LSTM(5, 4, batch_first=True, **options)

    def forward(self, ids):
        states, (last, memory) = self.lstm(self.embedding(ids))
        return torch.cat([states.mean(dim=1), last[-1], memory[-1]], dim=1)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2}, {"bidirectional": True, "num_layers": 2}, {"bias": False}],
    ids=str,
)
def test_an_lstm_is_exported_for_rows_of_any_length(options, tmp_path):
    torch.manual_seed(0)
    network = Reader(**options).eval()
    example = torch.randint(0, 30, (3, 6))
    path = export_onnx(network, example, tmp_path / "a.onnx", metadata={}, free_length=True)
    found = Deployed.open(path)
    for rows, length in ((1, 1), (2, 5), (4, 17)):
        ids = torch.randint(0, 30, (rows, length))
        with torch.no_grad():
            expected = network(ids)
        torch.testing.assert_close(torch.from_numpy(found.predict(ids.numpy())), expected)
    layers = options.get("num_layers", 1)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("LSTM") == layers
    assert isinstance(network.lstm, nn.LSTM), "the module itself is not touched"


@pytest.mark.parametrize("kind", [k for k in CATALOGUE if k.startswith("text_")])
def test_every_network_of_texts_is_exported_for_rows_of_any_length(kind, tmp_path):
    torch.manual_seed(0)
    facts = {"vocabulary": 30, "pad": 0, "width": 2, "dim": 8}
    facts |= {"length": 20} if kind == "text_transformer" else {}
    network = CATALOGUE[kind](**facts)
    inside = Tokens(length=20, vocabulary=30, pad=0)
    module = Deployable(preprocess=inside, network=network, width=2).eval()
    path = export_onnx(
        module, torch.ones(3, 20, dtype=torch.int32), Path(tmp_path / "a.onnx"), metadata={}
    )
    found = Deployed.open(path)
    assert found.input_shape == (None,)
    for rows, length in ((1, 1), (3, 8), (2, 20)):
        ids = torch.randint(0, 30, (rows, length), dtype=torch.int32)
        ids[0] = 0  # nothing but padding
        with torch.no_grad():
            expected = module(ids)
        torch.testing.assert_close(torch.from_numpy(found.predict(ids.numpy())), expected)


class Own(nn.LSTM):
    """Computes more than an LSTM."""

    def forward(self, rows, hx=None):
        states, last = super().forward(rows, hx)
        return torch.tanh(3 * states) + 1, last


class Begun(Reader):
    """Gives its first states, and asks its layer for sizes, as tutorials do."""

    def forward(self, ids):
        self.lstm.flatten_parameters()
        ways = 2 if self.lstm.bidirectional else 1
        size = ways * self.lstm.num_layers, ids.shape[0], self.lstm.hidden_size
        rows = self.embedding(ids)
        start = rows.new_full(size, 0.3)
        states, (last, memory) = self.lstm(rows, (start, 0.5 * start))
        return torch.cat([states.mean(dim=1), last[-1], memory[-1]], dim=1)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}], ids=str)
def test_an_lstm_may_be_given_its_first_states(options, tmp_path):
    torch.manual_seed(0)
    network = Begun(**options).eval()
    example = torch.randint(0, 30, (3, 6))
    path = export_onnx(network, example, tmp_path / "a.onnx", metadata={}, free_length=True)
    found = Deployed.open(path)
    for shape in ((3, 6), (5, 9)):
        rows = torch.randint(0, 30, shape)
        with torch.no_grad():
            goal = network(rows)
        assert torch.allclose(torch.tensor(found.predict(rows.numpy())), goal, atol=1e-5)


def test_a_class_made_from_an_lstm_is_not_taken_for_one(tmp_path):
    network = Reader()
    network.lstm = Own(5, 4, batch_first=True)
    rows, path = torch.randint(0, 30, (3, 6)), tmp_path / "a.onnx"
    # PyTorch's exporter writes its steps out, so that rows of one length are all that it can take.
    with pytest.raises(ExportError, match="cannot be exported"):
        export_onnx(network.eval(), rows, path, metadata={}, free_length=True)
    assert not path.exists()
