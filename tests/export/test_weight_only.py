import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from understudy.deployed import Deployed
from understudy.errors import DataError, ExportError
from understudy.export.onnx import export_onnx
from understudy.export.weight_only import quantize_weights


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.02), (4, 0.25)])
@pytest.mark.parametrize("name", ["mlp", "attention", "encoder", "tied"])
def test_the_answers_are_near_those_of_the_float_file(
    nets, exported, tmp_path, name, bits, allowed
):
    rows = nets[name][1].numpy()
    path = quantize_weights(exported[name], tmp_path / "m.onnx", bits=bits, rows=rows, block=16)
    expected = Deployed.open(exported[name], threads=1).predict(rows)
    found = Deployed.open(path, threads=1).predict(rows)
    spread = (expected - expected.mean(0)).std()
    assert np.abs(found - expected).mean() < allowed * spread
    assert "MatMulNBits" in operators(path)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_that_few_bits_hold_exactly_are_exact(by_hand, tmp_path, bits):
    rng = np.random.default_rng(0)
    steps = 2**bits - 1
    weight = rng.integers(0, steps + 1, (32, 3)).astype(np.float32)
    weight[0], weight[1] = 0, steps
    fp32 = by_hand(32, [("MatMul", ["rows", "weight"], "output")], {"weight": weight})
    rows = rng.integers(-126, 127, (5, 32)).astype(np.float32)
    rows[:, 0] = 127  # so that rounding the inputs changes nothing either
    path = quantize_weights(fp32, tmp_path / "m.onnx", bits=bits, rows=rows)
    np.testing.assert_allclose(Deployed.open(path).predict(rows), rows @ weight, rtol=1e-4)


def test_the_metadata_is_kept_and_says_how_many_bits(nets, exported, tmp_path):
    path = quantize_weights(
        exported["mlp"], tmp_path / "m.onnx", bits=4, rows=nets["mlp"][1].numpy()
    )
    before = Deployed.open(exported["mlp"]).metadata
    assert Deployed.open(path).metadata == {**before, "precision": "weight_int4"}


def test_four_bits_take_half_of_eight_and_a_wide_layer_an_eighth_of_float(tmp_path):
    torch.manual_seed(0)
    net, rows = (
        nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 8)),
        torch.randn(4, 256),
    )
    fp32 = export_onnx(net, rows, tmp_path / "fp32.onnx", metadata={})
    size = {
        bits: quantize_weights(
            fp32, tmp_path / f"{bits}.onnx", bits=bits, rows=rows.numpy(), block=64
        )
        .stat()
        .st_size
        for bits in (4, 8)
    }
    assert size[8] < 0.3 * fp32.stat().st_size
    assert size[4] < 0.17 * fp32.stat().st_size


def test_a_table_holds_eight_bits_with_a_scale_per_row(nets, exported, tmp_path):
    rows = nets["tied"][1].numpy()
    path = quantize_weights(exported["tied"], tmp_path / "m.onnx", bits=8, rows=rows)
    arrays = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    assert [a.dtype for a in arrays if a.shape == (50, 16)] == [np.int8]
    assert not [a for a in arrays if a.dtype == np.float32 and a.size > 50 * 16 // 2]


def test_a_weight_that_several_layers_share_is_stored_once(tmp_path):
    torch.manual_seed(0)
    block = nn.Linear(64, 64)
    shared = nn.Sequential(block, nn.ReLU(), block, nn.ReLU(), block)
    rows = torch.randn(4, 64)
    fp32 = export_onnx(shared, rows, tmp_path / "fp32.onnx", metadata={})
    path = quantize_weights(fp32, tmp_path / "m.onnx", bits=4, rows=rows.numpy())
    assert operators(path).count("MatMulNBits") == 3
    packed = [t for t in onnx.load(path).graph.initializer if t.data_type == t.UINT8]
    assert len([t for t in packed if len(t.dims) == 3]) == 1
    onnx.checker.check_model(onnx.load(path))


def test_logging_is_left_as_it_was(nets, exported, tmp_path, capfd, caplog):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, root.manager.disable)
    with caplog.at_level(logging.INFO):
        quantize_weights(exported["mlp"], tmp_path / "m.onnx", bits=4, rows=nets["mlp"][1].numpy())
    assert (list(root.handlers), root.level, root.manager.disable) == before
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_network_without_linear_layers_is_refused(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    rows = torch.zeros(2, 3, 5, 5)
    fp32 = export_onnx(net, rows, tmp_path / "fp32.onnx", metadata={})
    with pytest.raises(ExportError, match="no linear layer whose weights could be stored in 4"):
        quantize_weights(fp32, tmp_path / "m.onnx", bits=4, rows=rows.numpy())
    assert not (tmp_path / "m.onnx").exists()


def test_what_cannot_be_is_refused(exported, tmp_path):
    rows = np.zeros((1, 64), np.float32)
    with pytest.raises(ValueError, match="power of two of at least 16"):
        quantize_weights(exported["mlp"], tmp_path / "m.onnx", bits=4, rows=rows, block=24)
    with pytest.raises(DataError, match="got 0; pass at least one"):
        quantize_weights(exported["mlp"], tmp_path / "m.onnx", bits=4, rows=rows[:0])
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"bad\.onnx cannot be read"):
        quantize_weights(tmp_path / "bad.onnx", tmp_path / "m.onnx", bits=4, rows=rows)
