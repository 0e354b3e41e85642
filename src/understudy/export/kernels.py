"""Weights of convolutions and of recurrent layers stored in eight bits, and computed with in float.

The runtime has no product of such layers with weights in few bits. So the file holds whole numbers
with a scale per output, and two operations that make floats of them. ONNX Runtime does those once,
when it opens the file: the file is smaller, the time of a call is that of the float file.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_LARGEST = 127
_FEW = 512  # weights that are not worth two operations
# Which input holds weights, and along which of its axes each number has a scale of its own.
_SCALED: dict[str, dict[int, tuple[int, ...]]] = {
    "Conv": {1: (0,)},
    "ConvTranspose": {1: (1,)},
    "LSTM": {1: (0, 1), 2: (0, 1)},
    "GRU": {1: (0, 1), 2: (0, 1)},
    "RNN": {1: (0, 1), 2: (0, 1)},
}


def round_kernels(graph: onnx.GraphProto) -> int:
    """Store the weights of these layers as int8, in place; how many tensors were rounded.

    Weights that are computed, that are few, or that something else reads too stay as they are.

    Args:
        graph: of floats.
    """
    found = _kernels(graph)
    for tensor in [one for one in graph.initializer if one.name in found]:
        whole, scale = rounded(numpy_helper.to_array(tensor), found[tensor.name])
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(whole, f"{name}.whole"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        to = onnx.TensorProto.FLOAT
        # In front, as nodes are written in the order in which they can be computed.
        graph.node.insert(0, helper.make_node("Cast", [f"{name}.whole"], [f"{name}.float"], to=to))
        graph.node.insert(1, helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]))
    return len(found)


def rounded(
    values: NDArray[np.float32], axes: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers of -127 to 127, and the scales that they are multiplied by.

    Args:
        values: of any shape.
        axes: along which scales differ; of the other axes they have size 1.
    """
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    scale = np.abs(values).max(axis=others, keepdims=True) / np.float32(_LARGEST)
    scale = np.where(scale > 0, scale, np.float32(1.0)).astype(np.float32)
    whole = np.clip(np.round(values / scale), -_LARGEST, _LARGEST).astype(np.int8)
    return whole, scale


def _kernels(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    sizes = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == tensor.FLOAT
    }
    found: dict[str, tuple[int, ...]] = {}
    others: set[str] = {one.name for one in graph.output}
    for node in graph.node:
        scaled = _SCALED.get(node.op_type, {})
        for at, name in enumerate(node.input):
            if at in scaled and sizes.get(name, 0) > _FEW:
                if found.setdefault(name, scaled[at]) != scaled[at]:
                    others.add(name)
            else:
                others.add(name)
    return {name: axes for name, axes in found.items() if name not in others}
