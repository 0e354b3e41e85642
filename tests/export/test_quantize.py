import importlib.util
import io
import logging
import tempfile

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from understudy.deployed import Deployed
from understudy.errors import DataError, ExportError
from understudy.export.onnx import export_onnx
from understudy.export.quantize import quantize_int8
from understudy.export.ranges import LearnedRange

NETS = ("mlp", "normed", "residual", "channels_last", "attention", "encoder", "tied")


def nodes(path):
    return list(onnx.load(path).graph.node)


def constants(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("reduce_range", [True, False])
def test_a_layer_that_eight_bits_hold_exactly_is_exact(by_hand, tmp_path, reduce_range):
    rng = np.random.default_rng(0)
    largest = 64 if reduce_range else 127
    weight = rng.integers(-largest + 1, largest, (5, 3))
    weight[0] = largest
    rows = rng.integers(0, 256, (40, 5)).astype(np.float32)
    rows[0], rows[1] = 0, 255
    fp32 = by_hand(5, [("MatMul", ["rows", "weight"], "output")], {"weight": weight})
    path = quantize_int8(fp32, tmp_path / "int8.onnx", calibration=rows, reduce_range=reduce_range)
    expected = rows.astype(np.float64) @ weight
    np.testing.assert_array_equal(Deployed.open(path).predict(rows), expected)


@pytest.mark.parametrize("name", NETS)
def test_the_int8_file_answers_nearly_as_the_float_file(nets, exported, quantized, name):
    rows = nets[name][1].numpy()
    expected = Deployed.open(exported[name], threads=1).predict(rows)
    found = Deployed.open(quantized[name], threads=1).predict(rows)
    spread = (expected - expected.mean(0)).std()
    assert np.abs(found - expected).mean() < 0.1 * spread


@pytest.mark.parametrize("name", NETS)
def test_the_int8_graph_is_valid_and_takes_the_same_rows(exported, quantized, name):
    onnx.checker.check_model(onnx.load(quantized[name]), full_check=True)
    fp32, int8 = (Deployed.open(files[name], threads=1) for files in (exported, quantized))
    assert (int8.input_shape, int8.input_dtype) == (fp32.input_shape, fp32.input_dtype)


@pytest.mark.parametrize("name", NETS)
def test_the_metadata_is_kept_and_says_int8(exported, quantized, name):
    fp32, int8 = (Deployed.open(files[name], threads=1) for files in (exported, quantized))
    assert int8.metadata == {**fp32.metadata, "precision": "int8"}


@pytest.mark.parametrize("name", NETS)
def test_every_large_weight_is_stored_in_eight_bits(quantized, name):
    for array in constants(quantized[name]).values():
        assert array.size < 64 or array.dtype in (np.int8, np.uint8), array.shape


def test_weights_stay_within_seven_bits_so_that_no_processor_overflows(nets, exported, tmp_path):
    rows = nets["residual"][1].numpy()
    largest = {}
    for reduce_range in (True, False):
        path = quantize_int8(
            exported["residual"],
            tmp_path / "m.onnx",
            calibration=rows,
            reduce_range=reduce_range,
        )
        arrays = [a for a in constants(path).values() if a.dtype == np.int8]
        largest[reduce_range] = max(int(np.abs(a.astype(int)).max()) for a in arrays)
    assert largest == {True: 64, False: 127}


def test_a_weight_has_one_scale_per_channel_or_one_in_all(nets, exported, quantized, tmp_path):
    rows = nets["residual"][1].numpy()
    one = quantize_int8(
        exported["residual"], tmp_path / "m.onnx", calibration=rows, per_channel=False
    )
    for path, several in ((quantized["residual"], True), (one, False)):
        stored = constants(path)
        scales = [
            stored[node.input[1]].size
            for node in nodes(path)
            if node.op_type == "DequantizeLinear"
            and node.input[0] in stored
            and stored[node.input[0]].ndim == 4
        ]
        assert len(scales) == 5
        assert all((scale > 1) == several for scale in scales)


@pytest.mark.parametrize("name", ["residual", "channels_last", "normed"])
def test_batch_normalisation_is_folded_beforehand(quantized, name):
    assert "BatchNormalization" not in {node.op_type for node in nodes(quantized[name])}


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_the_scaling_of_raw_rows_stays_in_float(quantized, name):
    reached = {"rows"}
    for node in nodes(quantized[name]):
        if reached.isdisjoint(node.input):
            continue
        if node.op_type == "QuantizeLinear":
            break
        assert node.op_type in ("Cast", "Sub", "Div", "Transpose")
        reached.update(node.output)


def test_what_lies_between_convolutions_stays_in_eight_bits(quantized):
    made = {name: node for node in nodes(quantized["residual"]) for name in node.output}
    adds = [node for node in nodes(quantized["residual"]) if node.op_type == "Add"]
    assert len(adds) == 2
    for add in adds:
        assert all(made[name].op_type == "DequantizeLinear" for name in add.input)


def test_layer_normalisation_and_softmax_stay_in_float(quantized):
    found = nodes(quantized["encoder"])
    used = {name: node for node in found for name in node.input}
    kept = [node for node in found if node.op_type in ("LayerNormalization", "Softmax")]
    sums = [node for node in found if node.op_type == "Add"]
    assert len(kept) == 3
    assert sums
    for node in kept:
        assert used[node.output[0]].op_type != "QuantizeLinear" or node.op_type != "Softmax"


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_method_of_calibration_works_silently(
    nets, exported, tmp_path, method, capfd, caplog
):
    rows = nets["mlp"][1].numpy()
    with caplog.at_level(logging.WARNING):
        path = quantize_int8(exported["mlp"], tmp_path / "m.onnx", calibration=rows, method=method)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    expected = Deployed.open(exported["mlp"], threads=1).predict(rows)
    same = Deployed.open(path).predict(rows).argmax(1) == expected.argmax(1)
    assert same.mean() > 0.8


def test_the_range_is_that_of_all_rows_not_of_the_last(nets, exported, tmp_path):
    rows = nets["mlp"][1].numpy()
    wide = np.concatenate([rows * 20, rows])
    paths = [
        quantize_int8(exported["mlp"], tmp_path / f"{n}.onnx", calibration=calibration)
        for n, calibration in enumerate((wide, wide[::-1], rows))
    ]
    first, second, narrow = (path.read_bytes() for path in paths)
    assert first == second
    assert first != narrow


def test_no_temporary_file_is_left(nets, exported, tmp_path, monkeypatch):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = sorted(exported["mlp"].parent.iterdir())
    quantize_int8(exported["mlp"], out / "m.onnx", calibration=nets["mlp"][1].numpy())
    assert not list(scratch.iterdir())
    assert [path.name for path in out.iterdir()] == ["m.onnx"]
    assert sorted(exported["mlp"].parent.iterdir()) == before


def test_calibration_needs_rows(exported, tmp_path):
    with pytest.raises(DataError, match="calibration needs training rows, but got 0"):
        quantize_int8(
            exported["mlp"], tmp_path / "m.onnx", calibration=np.empty((0, 64), np.float32)
        )


def test_rows_that_the_file_does_not_take_are_named(exported, tmp_path):
    with pytest.raises(ExportError, match=r"mlp\.onnx cannot be quantised: .*\[5, 63\]"):
        quantize_int8(
            exported["mlp"], tmp_path / "m.onnx", calibration=np.zeros((5, 63), np.float32)
        )
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"bad\.onnx cannot be read as an ONNX file"):
        quantize_int8(tmp_path / "bad.onnx", tmp_path / "m.onnx", calibration=np.zeros((2, 3)))


def test_a_file_without_weights_cannot_be_quantised(by_hand, tmp_path):
    fp32 = by_hand(4, [("Sigmoid", ["rows"], "output")], {})
    rows = np.zeros((2, 4), np.float32)
    with pytest.raises(ExportError, match="no layer with weights that can be quantised"):
        quantize_int8(fp32, tmp_path / "m.onnx", calibration=rows)


@pytest.mark.data
def test_a_real_network_keeps_its_accuracy_in_int8(shared_data, tmp_path):
    from PIL import Image
    from pyarrow import parquet

    def pictures(split, count):
        path = shared_data / "cifar100" / f"{split}.parquet"
        table = parquet.ParquetFile(path).iter_batches(count)
        rows = next(table).to_pydict()
        images = [Image.open(io.BytesIO(item["bytes"])) for item in rows["img"]]
        return np.stack([np.asarray(image) for image in images]), np.array(rows["fine_label"])

    folder = shared_data / "weights-cifar100"
    spec = importlib.util.spec_from_file_location("network", folder / "network.py")
    network = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(network)

    class Deployable(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network.cifar_resnet(8)
            state = torch.load(folder / "resnet8_cifar100.pt", weights_only=True)
            self.net.load_state_dict(state)
            self.register_buffer("mean", torch.tensor(network.MEAN) * 255)
            self.register_buffer("std", torch.tensor(network.STD) * 255)

        def forward(self, rows):
            return self.net(((rows.float() - self.mean) / self.std).permute(0, 3, 1, 2))

    rows, labels = pictures("test", 600)
    example = torch.from_numpy(rows[:2])
    fp32 = export_onnx(Deployable(), example, tmp_path / "fp32.onnx", metadata={})
    calibration = pictures("train", 128)[0]
    int8 = quantize_int8(fp32, tmp_path / "int8.onnx", calibration=calibration)
    answers = [Deployed.open(path, threads=1).predict(rows).argmax(1) for path in (fp32, int8)]
    accuracy = [(answer == labels).mean() for answer in answers]
    assert accuracy[0] > 0.58
    assert accuracy[1] > accuracy[0] - 0.03
    assert (answers[0] == answers[1]).mean() > 0.92
    assert int8.stat().st_size < 0.3 * fp32.stat().st_size


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_mask_of_attention_is_not_calibrated(by_hand, tmp_path, method):
    """Its lowest number has no range that could be cut into bins."""
    rng = np.random.default_rng(0)
    lowest = np.full((1, 4), np.finfo(np.float32).min, np.float32)
    fp32 = by_hand(
        4,
        [
            ("MatMul", ["rows", "w1"], "h"),
            ("Tanh", ["h"], "bent"),
            ("Add", ["bent", "mask"], "masked"),
            ("Softmax", ["masked"], "shares"),
            ("LayerNormalization", ["shares", "scale"], "normed"),
            ("MatMul", ["normed", "w2"], "output"),
        ],
        {
            "w1": rng.normal(size=(4, 4)),
            "mask": np.where(np.arange(4) == 3, lowest, 0),
            "scale": np.ones(4),
            "w2": rng.normal(size=(4, 3)),
        },
    )
    rows = rng.normal(size=(64, 4)).astype(np.float32)
    path = quantize_int8(fp32, tmp_path / "m.onnx", calibration=rows, method=method)
    expected = Deployed.open(fp32).predict(rows)
    assert np.abs(Deployed.open(path).predict(rows) - expected).mean() < 0.1 * expected.std()


def test_a_sum_beside_a_product_takes_the_number_before_its_rounding(nets, exported, tmp_path):
    rows = nets["encoder"][1].numpy()
    path = quantize_int8(exported["encoder"], tmp_path / "m.onnx", calibration=rows)
    found = nodes(path)
    made = {name: node.op_type for node in found for name in node.output}
    for node in found:
        if node.op_type in ("Add", "LayerNormalization", "Softmax"):
            assert "DequantizeLinear" not in {made.get(name) for name in node.input}
    # And a product's answer is a float at once.
    rounded = {made.get(node.input[0]) for node in found if node.op_type == "QuantizeLinear"}
    assert "MatMul" not in rounded


def test_a_table_that_is_only_looked_up_keeps_all_eight_bits(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(300, 8), nn.Flatten(), nn.Linear(24, 5))
    rows = torch.randint(0, 300, (40, 3))
    fp32 = export_onnx(net, rows[:2], tmp_path / "fp32.onnx", metadata={})
    path = quantize_int8(fp32, tmp_path / "m.onnx", calibration=rows.numpy())
    (table,) = [a for a in constants(path).values() if a.shape == (300, 8)]
    assert table.dtype == np.int8
    assert np.abs(table.astype(int)).max() == 127


def test_factors_shared_blocks_and_zeros_stay_what_they_are(tmp_path):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(32, 4, bias=False), nn.Linear(4, 32), nn.ReLU())
    with torch.no_grad():
        block[1].weight[::2] = 0
    net, rows = nn.Sequential(block, block, block, nn.Linear(32, 5)), torch.randn(64, 32)
    fp32 = export_onnx(net.eval(), rows[:2], tmp_path / "fp32.onnx", metadata={})
    path = quantize_int8(fp32, tmp_path / "m.onnx", calibration=rows.numpy())
    arrays = [a for a in constants(path).values() if a.dtype == np.int8 and a.ndim == 2]
    assert sorted(a.size for a in arrays) == [128, 128, 160]
    (second,) = [a for a in arrays if (a == 0).mean() >= 0.5]
    assert second.size == 128
    expected = Deployed.open(fp32).predict(rows.numpy())
    found = Deployed.open(path).predict(rows.numpy())
    assert np.abs(found - expected).mean() < 0.1 * expected.std()


def test_ranges_of_another_network_are_refused(nets, exported, tmp_path):
    other = LearnedRange(weight="0" * 64, inputs=(0.0, 1.0))
    with pytest.raises(ExportError, match="has none of the 1 layers that they were learned in"):
        quantize_int8(
            exported["mlp"],
            tmp_path / "m.onnx",
            calibration=nets["mlp"][1].numpy(),
            learned=[other],
        )
