"""Weights of linear layers in four or eight bits by blocks; between layers all stays in float.

Inputs are rounded within each product, by blocks and as they come, so this needs no calibration,
and eight bits hardly change an answer. It makes a file smaller, and faster where reading weights
is what takes the time: one row at a time through wide layers.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from understudy.deployed import Deployed
from understudy.errors import DataError, ExportError
from understudy.export.compact import compact
from understudy.export.kernels import round_kernels, rounded
from understudy.export.onnx import PREFIX, cause
from understudy.folders import write_atomic

Bits = Literal[4, 8]
SMALLEST_BLOCK = 16
_WHOLE_PRODUCTS = 4  # as ONNX Runtime numbers them


def quantize_weights(
    fp32: Path,
    path: Path,
    *,
    bits: Bits,
    rows: NDArray[Any],
    block: int = 32,
) -> Path:
    """Write a file whose linear layers hold their weights in few bits.

    Every `block` weights of an output share a scale and a zero point. Embeddings that rows are
    looked up in hold eight bits in either case, with a scale per row; so do convolutions and
    recurrent layers, with a scale per output, which are computed in float. All else stays as it
    is. The metadata is kept, with `precision: weight_int4` or `weight_int8`.

    Args:
        fp32: a file written by `export_onnx`.
        path: the new file; an existing one is replaced when the new one is whole.
        bits: for the weights of linear layers.
        rows: two raw rows or so, which the new file is tried on.
        block: weights per scale, a power of two of at least 16.

    Raises:
        ValueError: the block is not such a number, or `bits` is neither 4 nor 8.
        DataError: there are no rows.
        ExportError: the file cannot be read, has no linear layer, or cannot be run afterwards.
        RunError: the file cannot be written.
    """
    if bits not in (4, 8):
        raise ValueError(f"`bits` must be 4 or 8, but got {bits=}")
    if block < SMALLEST_BLOCK or block & (block - 1):
        raise ValueError(
            f"`block` must be a power of two of at least {SMALLEST_BLOCK}, but got {block=}: "
            "usual is 32"
        )
    if len(rows) == 0:
        raise DataError("a file in few bits is tried on rows, but got 0; pass at least one")
    try:
        model = onnx.load(fp32)
    except Exception as error:  # protobuf and the file system both have their own
        raise ExportError(
            f"{fp32} cannot be read as an ONNX file ({cause(error)}): export the model again"
        ) from error
    small = rounded_weights(model, bits=bits, block=block, name=str(fp32))
    write_atomic(path, small.SerializeToString(deterministic=True))
    try:
        Deployed.open(path).predict(rows[:2])
    except (DataError, ExportError) as error:
        path.unlink()
        raise ExportError(
            f"ONNX Runtime cannot run {fp32} with weights of {bits} bits ({error}); "
            "deploy the float32 file"
        ) from error
    return path


def rounded_weights(
    model: onnx.ModelProto,
    *,
    bits: Bits,
    block: int,
    name: str,
    finish: Callable[[onnx.GraphProto], None] | None = None,
) -> onnx.ModelProto:
    """The same graph with its weights in few bits; the metadata is kept, with its `precision`.

    Args:
        model: a float graph, which is used up.
        bits: for the weights of linear layers.
        block: weights per scale.
        name: of its file, for the error.
        finish: rewrites the rounded graph in place, before it is made compact.

    Raises:
        ExportError: there is no linear layer.
    """
    metadata = list(model.metadata_props)
    _products(model.graph)
    linear = _linear(model.graph)
    if not linear:
        raise ExportError(
            f"{name} has no linear layer whose weights could be stored in {bits} bits: "
            "use `int8`, which also takes convolutions, or deploy the float32 file"
        )
    _round_tables(model)
    round_kernels(model.graph)
    small = _round_products(model, linear, bits=bits, block=block)
    if finish is not None:
        finish(small.graph)
    compact(small)
    small.metadata_props.extend(metadata)
    small.metadata_props.add(key=f"{PREFIX}precision", value=f'"weight_int{bits}"')
    return small


def _products(graph: onnx.GraphProto) -> None:
    """`Gemm` as a product and a sum, which is all that the runtime has in few bits."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0
        fits = node.op_type == "Gemm" and len(node.input) > 1 and node.input[1] in weights
        if not fits or not plain or given.get("transA", 0):
            nodes.append(node)
            continue
        factor = node.input[1]
        if given.get("transB", 0):
            factor = f"{factor}.turned"
            if factor not in weights:
                turned = numpy_helper.to_array(weights[node.input[1]]).T
                weights[factor] = numpy_helper.from_array(np.ascontiguousarray(turned), factor)
                graph.initializer.append(weights[factor])
        biased = len(node.input) > 2 and node.input[2] != ""
        made = f"{node.output[0]}.product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], factor], [made], name=made))
        if biased:
            nodes.append(helper.make_node("Add", [made, node.input[2]], list(node.output)))
    del graph.node[:]
    graph.node.extend(nodes)


def _linear(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    matrices = {
        tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == tensor.FLOAT
    }
    found = []
    for number, node in enumerate(graph.node):
        if node.op_type == "MatMul" and node.input[1] in matrices:
            node.name = f"linear{number}"
            found.append(node)
    return found


def _round_tables(model: onnx.ModelProto) -> None:
    """Look up whole numbers and their row's scale instead of floats."""
    graph = model.graph
    tables = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == t.FLOAT}
    nodes, done = [], set()
    for node in graph.node:
        axis = [one.i for one in node.attribute if one.name == "axis"]
        if node.op_type != "Gather" or node.input[0] not in tables or any(axis):
            nodes.append(node)
            continue
        name, ids, answer = node.input[0], node.input[1], node.output[0]
        if name not in done:
            done.add(name)
            graph.initializer.extend(_rounded_rows(tables[name]))
        whole, scale = f"{answer}.whole", f"{answer}.scale"
        nodes += [
            helper.make_node("Gather", [f"{name}.whole", ids], [whole]),
            helper.make_node("Gather", [f"{name}.scale", ids], [scale]),
            helper.make_node("Cast", [whole], [f"{whole}.float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{whole}.float", scale], [answer]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _rounded_rows(table: onnx.TensorProto) -> list[onnx.TensorProto]:
    whole, scale = rounded(numpy_helper.to_array(table), (0,))
    return [
        numpy_helper.from_array(whole, f"{table.name}.whole"),
        numpy_helper.from_array(scale, f"{table.name}.scale"),
    ]


def _round_products(
    model: onnx.ModelProto, linear: Sequence[onnx.NodeProto], *, bits: Bits, block: int
) -> onnx.ModelProto:
    names = [node.name for node in linear]
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            model,
            bits=bits,
            block_size=block,
            is_symmetric=False,
            # Products of whole numbers: with floats, eight bits are slower than none.
            accuracy_level=_WHOLE_PRODUCTS,
            nodes_to_include=names,
        )
        quantizer.process()
    small: onnx.ModelProto = quantizer.model.model
    # A weight that several layers share was rounded for each, to the same numbers and names.
    once = {tensor.name: tensor for tensor in small.graph.initializer}
    kept = [onnx.TensorProto.FromString(one.SerializeToString()) for one in once.values()]
    del small.graph.initializer[:]
    small.graph.initializer.extend(kept)
    return small


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The quantiser's module sets up logging for the whole process when it is imported, and tells
    # every layer.
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
