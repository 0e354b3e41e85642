import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import understudy.export.onnx
from understudy.deployed import Deployed
from understudy.errors import ExportError
from understudy.export.onnx import export_onnx

NETS = ("mlp", "normed", "residual", "channels_last", "attention", "encoder", "tied")


def export(module, rows, path, **metadata):
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    return export_onnx(module, rows, path, metadata=texts)


@pytest.mark.parametrize("name", NETS)
def test_the_file_answers_as_the_module_for_any_number_of_rows(nets, exported, name):
    module, rows = nets[name]
    deployed = Deployed.open(exported[name], threads=1)
    with torch.no_grad():
        expected = module(rows).numpy()
    for batch in (1, 2, 48):
        answer = deployed.predict(rows.numpy(), batch=batch)
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_the_graph_is_valid_and_has_the_agreed_names(nets, exported, name):
    model = onnx.load(exported[name])
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["rows"]
    assert [value.name for value in model.graph.output] == ["output"]
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    deployed = Deployed.open(exported[name], threads=1)
    rows = nets[name][1]
    assert deployed.input_shape == tuple(rows.shape[1:])
    assert deployed.input_dtype == rows.numpy().dtype


@pytest.mark.parametrize("name", ["normed", "residual", "channels_last"])
def test_batch_normalisation_is_folded(exported, name):
    operators = {node.op_type for node in onnx.load(exported[name]).graph.node}
    assert "BatchNormalization" not in operators


def test_dropout_and_identities_are_gone(exported):
    operators = [node.op_type for node in onnx.load(exported["mlp"]).graph.node]
    assert operators == ["Div", "Gemm", "Relu", "Gemm"]


@pytest.mark.parametrize("name", NETS)
def test_the_file_holds_the_weights_and_little_else(nets, exported, name):
    weights = 4 * sum(parameter.numel() for parameter in nets[name][0].parameters())
    assert not list(exported[name].parent.glob("*.data"))
    assert exported[name].stat().st_size < weights + 12_000


@pytest.mark.parametrize("name", NETS)
def test_nothing_in_the_file_tells_where_it_was_made(exported, name):
    content = exported[name].read_bytes()
    for trace in (b".py", b"stack_trace", os.fsencode(Path.cwd()), b"site-packages", b"torch."):
        assert trace not in content


def test_equal_modules_give_equal_bytes(nets, exported, tmp_path):
    module, rows = nets["residual"]
    stored = Deployed.open(exported["residual"]).metadata
    again = export(module, rows[5:9], tmp_path / "again.onnx", **stored)
    assert again.read_bytes() == exported["residual"].read_bytes()


@pytest.mark.slow
def test_equal_modules_give_equal_bytes_in_any_process(tmp_path):
    script = """
import sys
from pathlib import Path
import torch
from torch import nn
from understudy.export.onnx import export_onnx
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
export_onnx(net, torch.randn(2, 3, 8, 8), Path(sys.argv[1]), metadata={"b": "1", "a": "2"})
"""
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script, str(tmp_path / seed)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_metadata_comes_back_and_nothing_else_is_stored(tmp_path):
    stored = {"task": "classification", "classes": ["ä", "b"], "columns": None, "format": 1}
    path = export(nn.Linear(4, 2), torch.ones(2, 4), tmp_path / "m.onnx", **stored)
    assert Deployed.open(path).metadata == stored
    keys = [item.key for item in onnx.load(path).metadata_props]
    assert keys == [f"understudy.{name}" for name in sorted(stored)]


def test_the_module_is_as_before_in_every_part(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    module.double().train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export(module, torch.randn(2, 4, dtype=torch.float64), tmp_path / "m.onnx")
    assert [part.training for part in module.modules()] == [True, True, False, True, True]
    assert not module[0].weight.requires_grad
    assert module[3].weight.requires_grad
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_module_in_double_precision_becomes_a_file_in_single(tmp_path):
    rows = torch.randn(3, 4, dtype=torch.float64)
    module = nn.Linear(4, 2).double()
    deployed = Deployed.open(export(module, rows, tmp_path / "m.onnx"))
    assert deployed.input_dtype == np.float32
    expected = module(rows).detach().numpy()
    np.testing.assert_allclose(deployed.predict(rows.numpy()), expected, rtol=1e-5, atol=1e-6)


def test_recurrent_layers_can_be_exported(tmp_path):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, rows):
            return self.head(self.gru(rows)[0][:, -1])

    module, rows = Reader().eval(), torch.randn(6, 4, 3)
    deployed = Deployed.open(export(module, rows, tmp_path / "m.onnx"))
    expected = module(rows).detach().numpy()
    np.testing.assert_allclose(deployed.predict(rows.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_exporting_is_silent_and_replaces_an_older_file(tmp_path, capfd, caplog):
    (tmp_path / "m.onnx").write_text("old")
    with caplog.at_level(logging.WARNING):
        export_onnx(nn.Linear(4, 2), torch.ones(2, 4), tmp_path / "m.onnx", metadata={}, opset=18)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("torch.onnx").level == logging.NOTSET
    assert torch.backends.mha.get_fastpath_enabled()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert Deployed.open(tmp_path / "m.onnx").input_shape == (4,)
    assert [opset.version for opset in onnx.load(tmp_path / "m.onnx").opset_import] == [18]


class Branches(nn.Module):
    def forward(self, rows):
        return rows if rows.sum() > 0 else rows * 2


class FixedBatch(nn.Module):
    def forward(self, rows):
        return rows.reshape(2, -1) + 0


class NoWords(nn.Module):
    def forward(self, rows):
        return torch.linalg.eigvals(rows.unsqueeze(-1) * rows.unsqueeze(-2)).real


class Leaves(nn.Module):
    def forward(self, rows):
        return rows[rows[:, 0] > -100.0]


class Pair(nn.Module):
    def forward(self, rows):
        return rows, rows


class Flat(nn.Module):
    def forward(self, rows):
        return rows.sum(1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Branches(),
            r"^Branches cannot be exported to ONNX: Could not guard .* without branches on",
        ),
        (FixedBatch(), r"^FixedBatch cannot be exported to ONNX: Constraints violated \(batch\)"),
        (NoWords(), r"^NoWords cannot be exported .*No ONNX function found for .*linalg_eig"),
        (Leaves(), r"the number of rows that Leaves answers depends on their values"),
        (Pair(), r"must answer with one tensor, but Pair answers with tuple"),
        (Flat(), r"must answer `\[batch, width\]` floats, but Flat answers torch.float32 \[2\]"),
        (nn.Linear(5, 2), r"^Linear does not take the example, torch.float32 rows \[2, 4\]: mat1"),
    ],
)
def test_what_cannot_be_exported_is_named_with_cause_and_remedy(tmp_path, module, message):
    with pytest.raises(ExportError, match=message) as caught:
        export(module, torch.ones(2, 4), tmp_path / "m.onnx")
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 700
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (4,)])
def test_the_example_must_be_two_rows(tmp_path, shape):
    with pytest.raises(ExportError, match=r"two or more, .* but its shape is \["):
        export(nn.Linear(4, 2), torch.ones(shape), tmp_path / "m.onnx")


def test_a_module_that_does_not_fit_into_one_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(understudy.export.onnx, "LARGEST", 39)
    with pytest.raises(ExportError, match=r"Linear has 0\.0 GB of float32 weights; choose"):
        export(nn.Linear(4, 2), torch.ones(2, 4), tmp_path / "m.onnx")


def test_metadata_must_be_json(tmp_path):
    with pytest.raises(ExportError, match=r"`classes` is 'a, b'; pass `json\.dumps"):
        export_onnx(
            nn.Linear(4, 2), torch.ones(2, 4), tmp_path / "m.onnx", metadata={"classes": "a, b"}
        )


def test_a_module_that_cannot_be_copied_is_named(tmp_path):
    module = nn.Linear(4, 2)
    module.cache = module(torch.ones(1, 4))
    with pytest.raises(ExportError, match=r"Linear cannot be copied .*Remove hooks and tensors"):
        export(module, torch.ones(2, 4), tmp_path / "m.onnx")
