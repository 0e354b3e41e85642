"""The table of operators is read once, and is the one that torch would make."""

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

from understudy.export import operators
from understudy.export.onnx import export_onnx


@pytest.fixture
def reads(monkeypatch):
    """How often torch makes its table."""
    count = []
    usual = vars(_registration.ONNXRegistry)["from_torchlib"]

    def counted(cls, *given, **named):
        count.append(named)
        return usual.__func__(cls, *given, **named)

    monkeypatch.setattr(_registration.ONNXRegistry, "from_torchlib", classmethod(counted))
    monkeypatch.setattr(operators, "_TABLES", {})
    return count


def test_it_is_read_once_and_the_files_are_the_same(reads, tmp_path):
    module, rows = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(4, 3)
    for name in ("first.onnx", "second.onnx"):
        export_onnx(module, rows, tmp_path / name, metadata={})
    assert len(reads) == 1
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_another_opset_has_a_table_of_its_own(reads):
    with operators.operators_once():
        tables = [_registration.ONNXRegistry.from_torchlib(opset_version=v) for v in (18, 18, 19)]
    assert tables[0] is tables[1]
    assert tables[0] is not tables[2]
    assert len(reads) == 2


def test_torch_is_left_as_it_was_even_after_an_error():
    usual = vars(_registration.ONNXRegistry)["from_torchlib"]
    with pytest.raises(RuntimeError), operators.operators_once():
        raise RuntimeError
    assert vars(_registration.ONNXRegistry)["from_torchlib"] is usual


def test_a_torch_without_it_exports_all_the_same(monkeypatch, tmp_path):
    monkeypatch.delattr(_registration.ONNXRegistry, "from_torchlib")
    with operators.operators_once():
        assert "from_torchlib" not in vars(_registration.ONNXRegistry)
