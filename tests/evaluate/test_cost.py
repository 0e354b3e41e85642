import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from understudy.deployed import Latency, available_threads
from understudy.errors import DataError, ExportError
from understudy.evaluate import cost as room
from understudy.evaluate.cost import (
    Cost,
    file_bytes,
    flops,
    onnx_cost,
    parameters,
    torch_cost,
)
from understudy.students.profiling import used


@pytest.fixture
def make_file(tmp_path):
    """Writes `rows @ weight` as a file."""

    def make(rows_in: int = 8, width: int = 4, kind: int = TensorProto.FLOAT) -> Path:
        weight = np.random.default_rng(0).normal(size=(rows_in, width)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["rows"], ["cast"], to=TensorProto.FLOAT),
                helper.make_node("MatMul", ["cast", "weight"], ["output"]),
            ],
            "graph",
            [helper.make_tensor_value_info("rows", kind, ["batch", rows_in])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", width])],
            [numpy_helper.from_array(weight, "weight")],
        )
        path = tmp_path / f"{rows_in}-{width}-{kind}.onnx"
        opsets = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
        return path

    return make


class Attends(nn.Module):
    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size

    def forward(self, rows):
        tokens = rows.unflatten(1, (self.heads, -1, self.size))
        return F.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)


def test_parameters_count_every_one_once_also_shared_and_frozen_ones():
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.Linear(3, 5), shared, nn.BatchNorm1d(5))
    module[1].weight.requires_grad_(False)
    assert parameters(module) == (9 + 3) + (15 + 5) + 10


def test_buffers_are_no_parameters():
    module = nn.Linear(2, 2)
    module.register_buffer("mean", torch.zeros(100))
    assert parameters(module) == 6


def test_a_linear_layer_takes_two_operations_per_weight():
    assert flops(nn.Linear(7, 11), torch.randn(3, 7)) == 2 * 7 * 11


def test_a_convolution_takes_two_operations_per_weight_and_place():
    module = nn.Conv2d(6, 10, 3, stride=2, padding=1, groups=2, bias=False)
    assert flops(module, torch.randn(2, 6, 9, 9)) == 2 * (3 * 3 * 3 * 10) * 5 * 5


def test_attention_takes_two_products_of_tokens_and_tokens():
    heads, tokens, size = 2, 5, 8
    expected = 2 * (2 * heads * tokens * tokens * size)
    assert flops(Attends(heads, size), torch.randn(4, heads * tokens * size)) == expected


def test_the_fused_encoder_layer_is_counted_in_its_parts():
    dim, tokens, inner = 8, 5, 16
    layer = nn.TransformerEncoderLayer(dim, 2, inner, batch_first=True)
    products = 2 * tokens * (3 * dim * dim + dim * dim + 2 * dim * inner)
    attention = 2 * 2 * tokens * tokens * dim
    assert flops(layer, torch.randn(2, tokens, dim)) == products + attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_count_is_for_one_row_whatever_the_example():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    rows = torch.randn(5, 3, 8, 8)
    assert flops(module, rows) == flops(module, rows[:1])


def test_counting_changes_nothing_in_the_module():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    flops(module, torch.randn(2, 4))
    assert [part.training for part in module.modules()] == [True, True, False, True]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


class _Asking(nn.Module):
    """A learned query, seen through a view, is what a module is given."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, rows):
        return self.head(self.query.expand(len(rows), -1, -1))[:, 0] + rows


def test_a_view_of_a_weight_may_be_given_to_a_module():
    module = _Asking()
    module.head.bias.requires_grad_(False)
    assert flops(module, torch.zeros(3, 2)) == 2 * 4 * 2
    assert [p.requires_grad for p in module.parameters()] == [True, True, False]
    assert used(module, torch.zeros(3, 2))["head"].flops == 3 * 2 * 4 * 2
    assert [p.requires_grad for p in module.parameters()] == [True, True, False]


def test_what_cannot_be_counted_is_none():
    assert flops(nn.Linear(4, 2), torch.randn(2, 5)) is None


class _Reader(nn.Module):
    """Layers that PyTorch runs as one operation, beside one that it runs as products."""

    def __init__(self, *, batch_first=True, packed=False):
        super().__init__()
        self.packed = packed
        self.first = nn.Linear(2, 3)
        self.lstm = nn.LSTM(3, 5, 2, batch_first=batch_first, bidirectional=True, proj_size=4)
        self.inner = nn.Sequential(nn.GRU(8, 6, batch_first=batch_first), nn.Identity())
        self.cell = nn.GRUCell(6, 7)

    def forward(self, rows):
        wide = self.first(rows)
        if self.packed:
            wide = pack_padded_sequence(wide, [rows.shape[1]] * len(rows), batch_first=True)
        told = self.lstm(wide)[0]
        states = self.inner[0](input=told)[0]
        last = states.data[-len(rows) :] if self.packed else states[:, -1]
        return self.cell(last)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers_count_by_their_formula(packed):
    steps = 4
    lstm = 2 * (20 * (3 + 4) + 4 * 5 + 20 * (8 + 4) + 4 * 5)  # both directions, two layers
    gru, cell = 18 * (8 + 6), 21 * (6 + 7)
    module = _Reader(packed=packed)
    assert flops(module, torch.randn(2, steps, 2)) == 2 * (steps * (2 * 3 + lstm + gru) + cell)
    by_path = used(module, torch.randn(3, steps, 2))
    assert by_path["lstm"].flops == 3 * 2 * steps * lstm
    assert by_path["inner.0"].flops == 3 * 2 * steps * gru
    assert by_path[""].flops == 0
    assert flops(nn.LSTM(3, 5), torch.randn(1, 2, 3)) == 2 * 2 * 20 * (3 + 5)


def test_the_size_of_a_file_is_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 123)
    assert file_bytes(tmp_path / "file") == 123


def test_a_file_is_timed_for_one_and_many_rows_on_one_and_all_threads(make_file):
    path = make_file()
    cost = onnx_cost(path, np.ones((3, 8), np.float32), seconds=0.02)
    threads = sorted({1, available_threads()})
    measured = [(one.batch, one.threads) for one in cost.latencies]
    assert measured == [(batch, count) for count in threads for batch in (1, 32)]
    assert cost.runtime == "onnxruntime"
    assert cost.bytes == path.stat().st_size
    assert all(0 < one.median_ms <= one.p95_ms for one in cost.latencies)


def test_batches_and_threads_can_be_those_of_a_budget(make_file):
    rows = np.ones((3, 8), np.float32)
    cost = onnx_cost(make_file(), rows, seconds=0.01, batches=(4,), threads=(1,))
    assert [(one.batch, one.threads) for one in cost.latencies] == [(4, 1)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_larger_model_needs_more_memory_by_at_least_its_weights(make_file):
    small = onnx_cost(make_file(), np.ones((1, 8), np.float32), seconds=0.01)
    large = onnx_cost(make_file(1000, 4000), np.ones((1, 1000), np.float32), seconds=0.01)
    weights = 4 * 1000 * 4000 / 1e6
    assert small.peak_memory_mb is not None
    assert large.peak_memory_mb is not None
    assert 0 <= small.peak_memory_mb < 30
    assert small.peak_memory_mb + 0.9 * weights < large.peak_memory_mb < 8 * weights


def test_the_process_that_measures_memory_loads_only_what_a_deployment_needs():
    loaded = [line for line in room._MEMORY_SCRIPT.splitlines() if "import" in line]
    assert loaded == [
        "import io, sys",
        "from contextlib import suppress",
        "import numpy, onnxruntime",
    ]


def test_a_file_in_the_working_folder_does_not_pass_for_numpy(make_file, monkeypatch):
    path = make_file()
    (path.parent / "numpy.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(path.parent)
    cost = onnx_cost(path, np.ones((1, 8), np.float32), seconds=0.01)
    assert (cost.peak_memory_mb is not None) == Path("/proc/self/status").exists()


def test_memory_that_cannot_be_measured_is_none(make_file, monkeypatch):
    monkeypatch.setattr(room.sys, "platform", "darwin")
    cost = onnx_cost(make_file(), np.ones((1, 8), np.float32), seconds=0.01)
    assert cost.peak_memory_mb is None


def test_rows_of_bytes_are_measured_as_bytes(make_file):
    path = make_file(kind=TensorProto.UINT8)
    cost = onnx_cost(path, np.ones((2, 8), np.uint8), seconds=0.01, threads=(1,))
    assert len(cost.latencies) == 2


def test_a_module_is_timed_in_torch_and_left_as_it_was():
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    threads = torch.get_num_threads()
    cost = torch_cost(module, torch.randn(3, 8), seconds=0.02)
    assert cost.runtime == "torch"
    assert (cost.bytes, cost.peak_memory_mb) == (None, None)
    counts = sorted({1, available_threads()})
    measured = [(one.batch, one.threads) for one in cost.latencies]
    assert measured == [(batch, count) for count in counts for batch in (1, 32)]
    assert torch.get_num_threads() == threads
    assert [part.training for part in module.modules()] == [True, True, True, False]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_module_that_fails_leaves_threads_and_modes_as_they_were():
    module, threads = nn.Linear(8, 4), torch.get_num_threads()
    with pytest.raises(RuntimeError):
        torch_cost(module, torch.randn(3, 7), seconds=0.01, threads=(1,))
    assert torch.get_num_threads() == threads
    assert module.training


def test_measuring_needs_a_row(make_file):
    with pytest.raises(DataError, match="timing needs a row, but got 0"):
        onnx_cost(make_file(), np.empty((0, 8), np.float32))
    with pytest.raises(DataError, match="timing needs a row, but got 0"):
        torch_cost(nn.Linear(8, 4), torch.empty(0, 8))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="there is no file"):
        onnx_cost(tmp_path / "none.onnx", np.ones((1, 8), np.float32))


def test_a_cost_is_plain_json_with_the_medians_on_one_thread():
    def latency(batch: int, threads: int, median: float) -> Latency:
        return Latency(median_ms=median, p95_ms=2 * median, batch=batch, threads=threads, runs=5)

    latencies = (latency(1, 4, 0.5), latency(1, 1, 1.0), latency(32, 1, 9.0), latency(8, 1, 3.0))
    cost = Cost(runtime="onnxruntime", latencies=latencies, bytes=100, peak_memory_mb=1.5)
    plain = cost.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["latency_ms"]["batch1"] == 1.0
    assert plain["latency_ms"]["batch32"] == 9.0
    assert plain["latency_ms"]["detail"][0] == {
        "median_ms": 0.5,
        "p95_ms": 1.0,
        "batch": 1,
        "threads": 4,
        "runs": 5,
    }
    assert (plain["runtime"], plain["bytes"], plain["peak_memory_mb"]) == ("onnxruntime", 100, 1.5)
    assert cost.median_ms(batch=8) == 3.0
    assert cost.median_ms(batch=7) is None
