"""Ranges of activations that training found, carried from the trained layers into the graph.

A layer is known by its weight: the exporter and the optimiser rename tensors and transpose
matrices, but they do not change what is in them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Range = tuple[float, float]
_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedRange:
    """What one layer with weights was trained to take and to give in eight bits.

    Attributes:
        weight: the `weight_mark` of the layer's float weight.
        inputs: the smallest and the largest number that its inputs can hold.
        outputs: the same for its answers; None where these are not rounded by themselves.
    """

    weight: str
    inputs: Range
    outputs: Range | None = None

    def to_data(self) -> dict[str, Any]:
        """The same as plain data for JSON."""
        outputs = None if self.outputs is None else list(self.outputs)
        return {"weight": self.weight, "inputs": list(self.inputs), "outputs": outputs}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "LearnedRange":
        """What `to_data` gave."""
        low, high = data["inputs"]
        given = data["outputs"]
        return cls(
            weight=str(data["weight"]),
            inputs=(float(low), float(high)),
            outputs=None if given is None else (float(given[0]), float(given[1])),
        )


def weight_mark(weight: NDArray[np.float32]) -> str:
    """A weight's own name: equal for equal shapes and numbers, different for all others."""
    held = np.ascontiguousarray(weight, np.float32)
    return hashlib.sha256(str(held.shape).encode() + held.tobytes()).hexdigest()


def tensor_ranges(graph: onnx.GraphProto, learned: Sequence[LearnedRange]) -> dict[str, Range]:
    """The learned ranges by the names of the graph's tensors.

    Where several layers share a tensor or have equal weights, it gets the range that holds all of
    theirs.
    """
    told: dict[str, list[LearnedRange]] = {}
    for one in learned:
        told.setdefault(one.weight, []).append(one)
    marks = _marks(graph, told)
    found: dict[str, Range] = {}
    for node in graph.node:
        weight = node.input[1] if node.op_type in _WEIGHTED else ""
        for one in told.get(marks.get(weight, ""), []):
            _widen(found, node.input[0], one.inputs)
            if one.outputs is not None:
                _widen(found, node.output[0], one.outputs)
    return found


def range_overrides(ranges: Mapping[str, Range]) -> dict[str, list[dict[str, Any]]]:
    """Ranges in the form that ONNX Runtime's quantiser takes instead of its own calibration."""
    return {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, (low, high) in sorted(ranges.items())
    }


def _marks(graph: onnx.GraphProto, known: Mapping[str, object]) -> dict[str, str]:
    used = {node.input[1] for node in graph.node if node.op_type in _WEIGHTED}
    marks: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name not in used or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        weight = numpy_helper.to_array(tensor)
        forms = (weight, weight.T) if weight.ndim == 2 else (weight,)
        for mark in map(weight_mark, forms):
            if mark in known:
                marks[tensor.name] = mark
    return marks


def _widen(found: dict[str, Range], name: str, more: Range) -> None:
    low, high = found.get(name, more)
    found[name] = (min(low, more[0]), max(high, more[1]))
