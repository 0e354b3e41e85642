"""Small ONNX files made by hand, so that these tests need no torch."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from understudy.deployed import Deployed

MakeFile = Callable[..., Path]


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """Writes `flatten(rows) @ weight` as a file, and gives its path."""

    def make(
        *,
        shape: Sequence[int | str | None] = ("batch", 4),
        kind: int = TensorProto.FLOAT,
        weight: np.ndarray | None = None,
        metadata: Mapping[str, Any] | None = None,
        foreign: Mapping[str, str] | None = None,
        inputs: int = 1,
        name: str = "model.onnx",
    ) -> Path:
        size = int(np.prod([n for n in shape[1:] if isinstance(n, int)]))
        weight = np.eye(size, dtype=np.float32) if weight is None else weight
        given = [
            helper.make_tensor_value_info("rows" + "x" * number, kind, shape)
            for number in range(inputs)
        ]
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["rows"], ["cast"], to=TensorProto.FLOAT),
                helper.make_node("Flatten", ["cast"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weight"], ["output"]),
            ],
            "graph",
            given,
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], None])],
            [numpy_helper.from_array(weight.astype(np.float32), "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        texts = {f"understudy.{key}": json.dumps(value) for key, value in (metadata or {}).items()}
        helper.set_model_props(model, {**texts, **(foreign or {})})
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def opened(make_file: MakeFile) -> Callable[..., Deployed]:
    """As `make_file`, and opened."""

    def make(**arguments: Any) -> Deployed:
        return Deployed.open(make_file(**arguments), threads=1)

    return make
