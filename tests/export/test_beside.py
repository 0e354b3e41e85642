"""Which files an ONNX model has its weights in."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from understudy.export.beside import weights_beside


def model():
    """A weight in the graph, one in a constant, and one inside a branch."""
    draw = np.random.default_rng(0)
    kept, told, inner = (
        numpy_helper.from_array(draw.standard_normal((8, 8)).astype(np.float32), name)
        for name in ("kept", "told", "inner")
    )
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 8])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 8])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 8])
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["second", "inner"], ["answer"])], "b", [], [answer], [inner]
    )
    nodes = [
        helper.make_node("Constant", [], ["told"], value=told),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("MatMul", ["rows", "kept"], ["first"]),
        helper.make_node("MatMul", ["first", "told"], ["second"]),
        helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [rows], [out], [kept]))


def test_a_file_with_everything_inside_has_none(tmp_path):
    onnx.save(model(), tmp_path / "t.onnx")
    assert weights_beside(tmp_path / "t.onnx") == []


@pytest.mark.parametrize("name", ["t.onnx.data", "t.onnx_data", "weights.bin"])
def test_whatever_it_is_called_it_is_found(tmp_path, name):
    (tmp_path / "another.data").write_bytes(b"not of this model")
    onnx.save_model(
        model(), tmp_path / "t.onnx", save_as_external_data=True, location=name,
        size_threshold=0, convert_attribute=True,
    )  # fmt: skip
    assert weights_beside(tmp_path / "t.onnx") == [tmp_path / name]


def test_one_for_every_weight(tmp_path):
    onnx.save_model(
        model(), tmp_path / "t.onnx", save_as_external_data=True, all_tensors_to_one_file=False,
        size_threshold=0, convert_attribute=True,
    )  # fmt: skip
    others = sorted(path for path in tmp_path.iterdir() if path.name != "t.onnx")
    assert len(others) >= 3
    assert weights_beside(tmp_path / "t.onnx") == others


def test_what_is_no_model_is_for_whoever_loads_it(tmp_path):
    (tmp_path / "t.onnx").write_bytes(b"\xff\xff\xff")
    assert weights_beside(tmp_path / "t.onnx") == []
