import math

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from understudy.deployed import Deployed
from understudy.errors import DataError, ExportError
from understudy.export.onnx import export_onnx
from understudy.export.parity import check_parity


@pytest.fixture
def outputs(nets):
    module, rows = nets["mlp"]
    with torch.no_grad():
        return module(rows).numpy()


def test_a_file_is_compared_with_its_module_row_by_row(nets, exported, outputs):
    rows = nets["mlp"][1].numpy()
    parity = check_parity(outputs, exported["mlp"], rows, atol=1e-5, rtol=1e-4)
    assert parity.rows == 48
    assert parity.same_argmax == 1.0
    assert parity.max_abs_difference < 1e-5


def test_the_difference_and_the_share_are_those_of_the_numbers(nets, exported):
    rows = nets["mlp"][1].numpy()
    answered = Deployed.open(exported["mlp"]).predict(rows).astype(np.float64)
    other = answered.copy()
    other[3, answered[3].argmax()] -= 50.0
    parity = check_parity(other, exported["mlp"], rows, atol=math.inf, rtol=0.0)
    assert parity.max_abs_difference == pytest.approx(50.0)
    assert parity.same_argmax == pytest.approx(47 / 48)


def test_a_difference_within_either_tolerance_is_accepted(nets, exported, outputs):
    rows = nets["mlp"][1].numpy()
    check_parity(outputs + 0.09, exported["mlp"], rows, atol=0.1, rtol=0.0)
    far = outputs * 1.05
    check_parity(far, exported["mlp"], rows, atol=1e-5, rtol=0.06)


def test_a_file_that_answers_otherwise_is_an_error_with_how_much(nets, exported, outputs):
    rows = nets["mlp"][1].numpy()
    other = outputs.copy()
    other[7:9, 0] += 0.5
    with pytest.raises(ExportError, match=r"within 0\.001 \+ 0\.01 of the number") as caught:
        check_parity(other, exported["mlp"], rows, atol=1e-3, rtol=1e-2)
    assert "off by up to 0.5 in 2 of 48 rows, first in row 7" in str(caught.value)


def test_a_file_with_one_changed_weight_is_found(nets, exported, outputs, tmp_path):
    model = onnx.load(exported["mlp"])
    tensor = next(t for t in model.graph.initializer if t.name == "4.weight")
    changed = numpy_helper.to_array(tensor).copy()
    changed[0, 0] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="must answer as its module does"):
        check_parity(outputs, tmp_path / "m.onnx", nets["mlp"][1].numpy(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_infinitely_far(nets, exported, outputs, value):
    rows, other = nets["mlp"][1].numpy(), outputs.copy()
    other[0, 0] = value
    with pytest.raises(ExportError, match=r"off by up to inf in 1 of 48 rows"):
        check_parity(other, exported["mlp"], rows, atol=1.0, rtol=1.0)
    parity = check_parity(other, exported["mlp"], rows, atol=math.inf, rtol=math.inf)
    assert parity.max_abs_difference == math.inf


def test_outputs_of_other_rows_are_an_error(nets, exported, outputs):
    with pytest.raises(ExportError, match=r"answered \[47, 10\] and the module \[48, 10\]"):
        check_parity(outputs, exported["mlp"], nets["mlp"][1][1:].numpy(), atol=1.0, rtol=1.0)


def test_at_least_one_row_must_be_compared(exported):
    none = np.empty((0, 64), np.float32)
    with pytest.raises(ExportError, match="the same rows, at least one"):
        check_parity(np.empty((0, 10)), exported["mlp"], none, atol=1.0, rtol=1.0)


def test_rows_of_another_shape_are_an_error(exported, outputs):
    with pytest.raises(DataError, match=r"takes \[rows, 64\]"):
        check_parity(outputs, exported["mlp"], np.zeros((48, 63), np.float32), atol=1.0, rtol=1.0)


def test_a_single_column_has_no_largest_one(tmp_path):
    module, rows = torch.nn.Linear(3, 1), torch.randn(4, 3)
    path = export_onnx(module, rows, tmp_path / "m.onnx", metadata={})
    parity = check_parity(module(rows).detach().numpy(), path, rows.numpy(), atol=1e-5, rtol=0.0)
    assert parity.same_argmax is None
