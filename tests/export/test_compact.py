import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from understudy.deployed import Deployed
from understudy.export.quantize import quantize_int8

NETS = ("mlp", "normed", "residual", "channels_last", "attention", "encoder", "tied")
ROUNDINGS = ("QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("name", NETS)
def test_the_answer_is_not_rounded(quantized, name):
    (last,) = [node for node in onnx.load(quantized[name]).graph.node if "output" in node.output]
    assert last.op_type not in ROUNDINGS


def test_a_last_relu_is_kept(by_hand, tmp_path):
    rng = np.random.default_rng(0)
    weight, rows = rng.normal(size=(6, 4)), rng.normal(size=(30, 6)).astype(np.float32)
    layers = [("MatMul", ["rows", "weight"], "sum"), ("Relu", ["sum"], "output")]
    fp32 = by_hand(6, layers, {"weight": weight})
    path = quantize_int8(fp32, tmp_path / "int8.onnx", calibration=rows)
    found = Deployed.open(path).predict(rows)
    assert found.min() == 0.0
    assert np.abs(found - np.maximum(rows.astype(np.float64) @ weight, 0)).max() < 0.2


def test_a_last_scaling_into_the_units_of_the_labels_stays_in_float(by_hand, tmp_path):
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(6, 16)), rng.normal(size=(16, 1))
    rows = rng.normal(size=(60, 6)).astype(np.float32)
    layers = [
        ("MatMul", ["rows", "first"], "sum"),
        ("Relu", ["sum"], "hidden"),
        ("MatMul", ["hidden", "last"], "answer"),
        ("Mul", ["answer", "std"], "scaled"),
        ("Add", ["scaled", "mean"], "output"),
    ]
    constants = {"first": first, "last": last, "std": [1000.0], "mean": [1e6]}
    path = quantize_int8(by_hand(6, layers, constants), tmp_path / "int8.onnx", calibration=rows)
    expected = np.maximum(rows.astype(np.float64) @ first, 0) @ last * 1000.0 + 1e6
    found = Deployed.open(path).predict(rows)
    assert np.abs(found - expected).max() < 0.05 * (expected.max() - expected.min())
    assert len(np.unique(found)) > 50


@pytest.mark.parametrize("name", ["mlp", "residual", "channels_last", "attention", "tied"])
def test_the_int8_file_is_smaller(exported, quantized, name):
    assert quantized[name].stat().st_size < 0.7 * exported[name].stat().st_size


def test_a_network_of_2400_weights_shrinks_to_less_than_half(exported, quantized):
    assert quantized["mlp"].stat().st_size < 0.5 * exported["mlp"].stat().st_size


def test_equal_files_give_equal_bytes(nets, exported, quantized, tmp_path):
    rows = nets["residual"][1].numpy()
    again = quantize_int8(exported["residual"], tmp_path / "m.onnx", calibration=rows)
    assert again.read_bytes() == quantized["residual"].read_bytes()


@pytest.mark.slow
def test_equal_files_give_equal_bytes_in_any_process(nets, exported, quantized, tmp_path):
    np.save(tmp_path / "rows.npy", nets["residual"][1].numpy())
    script = """
import sys
from pathlib import Path
import numpy as np
from understudy.export.onnx import export_onnx
from understudy.export.quantize import quantize_int8
quantize_int8(Path(sys.argv[1]), Path(sys.argv[2]), calibration=np.load(sys.argv[3]))
"""
    arguments = [str(exported["residual"]), str(tmp_path / "m.onnx"), str(tmp_path / "rows.npy")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment)
    assert (tmp_path / "m.onnx").read_bytes() == quantized["residual"].read_bytes()


def test_names_are_short(quantized):
    graph = onnx.load(quantized["residual"]).graph
    assert all(not node.name for node in graph.node)
    assert all(len(name) <= 3 for node in graph.node for name in node.output if name != "output")
    assert all(len(tensor.name) <= 3 for tensor in graph.initializer)
