"""Weights of convolutions and recurrent layers in eight bits."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from understudy.deployed import Deployed
from understudy.export.kernels import round_kernels, rounded
from understudy.export.onnx import export_onnx
from understudy.export.weight_only import quantize_weights


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(24, 40, batch_first=True)
        self.head = nn.Linear(40, 3)

    def forward(self, rows):
        return self.head(self.layer(rows)[0][:, -1])


def networks():
    torch.manual_seed(0)
    rows = torch.randn(6, 24, 9)
    turned = rows.transpose(1, 2).contiguous()
    head = [nn.ReLU(), nn.Flatten(), nn.Linear(40 * 9, 3)]
    return {
        "convolution": (nn.Sequential(nn.Conv1d(24, 40, 3, padding=1), *head), rows),
        "groups": (nn.Sequential(nn.Conv1d(24, 40, 3, padding=1, groups=2), *head), rows),
        "transposed": (nn.Sequential(nn.ConvTranspose1d(24, 40, 3, padding=1), *head), rows),
        "lstm": (Recurrent(nn.LSTM), turned),
        "gru": (Recurrent(nn.GRU), turned),
    }


@pytest.mark.parametrize("name", sorted(networks()))
def test_the_file_is_smaller_and_answers_nearly_the_same(name, tmp_path):
    net, rows = networks()[name]
    fp32 = export_onnx(net.eval(), rows, tmp_path / "fp32.onnx", metadata={})
    small = quantize_weights(fp32, tmp_path / "small.onnx", bits=8, rows=rows.numpy())
    expected = Deployed.open(fp32).predict(rows.numpy())
    found = Deployed.open(small).predict(rows.numpy())
    assert 0 < np.abs(found - expected).mean() < 0.02 * expected.std()
    sizes = {
        tensor.data_type: int(np.prod(tensor.dims))
        for tensor in sorted(onnx.load(small).graph.initializer, key=lambda t: np.prod(t.dims))
    }
    assert sizes[onnx.TensorProto.FLOAT] <= 320, "only biases and scales are floats"
    assert sizes[onnx.TensorProto.INT8] >= 24 // 2 * 40 * 3


def test_scales_are_those_of_each_output():
    values = np.array([[1.0, -2.0], [100.0, 50.0], [0.0, 0.0]], np.float32)
    whole, scale = rounded(values, (0,))
    np.testing.assert_array_equal(whole, [[64, -127], [127, 64], [0, 0]])
    np.testing.assert_allclose(scale, [[2 / 127], [100 / 127], [1.0]])
    # Half a step at most, whatever the sizes beside it.
    draw = np.random.default_rng(0).standard_normal((2, 8, 5)).astype(np.float32)
    draw[1] *= 1000
    whole, scale = rounded(draw, (0, 1))
    assert scale.shape == (2, 8, 1)
    assert (np.abs(whole * scale - draw) <= 0.5001 * scale).all()


def graph(*, shared):
    torch.manual_seed(0)
    weight = torch.randn(16, 16, 3).numpy()
    few = torch.randn(2, 16, 3).numpy()
    nodes = [
        onnx.helper.make_node("Conv", ["rows", "weight"], ["one"], pads=[1, 1]),
        onnx.helper.make_node("Conv", ["one", "weight"], ["two"], pads=[1, 1]),
        onnx.helper.make_node("Conv", ["two", "few"], ["three"], pads=[1, 1]),
    ]
    if shared:
        nodes.append(onnx.helper.make_node("ReduceSum", ["weight"], ["total"], keepdims=0))
        nodes.append(onnx.helper.make_node("Add", ["three", "total"], ["answer"]))
    else:
        nodes[-1].output[0] = "answer"
    given, answer = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size, "t"])
        for name, size in (("rows", 16), ("answer", 2))
    )
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(few, "few")]
    return onnx.helper.make_graph(nodes, "graph", [given], [answer], constants)


def test_a_weight_that_layers_share_is_rounded_once_and_few_weights_stay():
    found = graph(shared=False)
    assert round_kernels(found) == 1
    assert sorted(one.name for one in found.initializer) == ["few", "weight.scale", "weight.whole"]
    onnx.checker.check_model(onnx.helper.make_model(found))


def test_a_weight_that_something_else_reads_stays():
    found = graph(shared=True)
    assert round_kernels(found) == 0
    assert sorted(one.name for one in found.initializer) == ["few", "weight"]
