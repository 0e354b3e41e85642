"""The int8 form of an exported file: weights and activations in eight bits, by calibration.

The activations are unsigned, the weights signed: ONNX Runtime's fast kernels on x86 take this
pair, and signed activations are slower there than float. The weights use seven of their eight
bits: on x86 without VNNI two full products overflow the 16 bits that they are added in, silently,
so a file that was measured on a new machine would answer worse on an old one.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from understudy.deployed import Deployed
from understudy.errors import DataError, ExportError
from understudy.export.calibrate import least_squares_ranges
from understudy.export.compact import WEIGHTED, before_rounding, compact
from understudy.export.onnx import PREFIX, cause
from understudy.export.ranges import LearnedRange, Range, range_overrides, tensor_ranges
from understudy.folders import write_atomic

Method = Literal["minmax", "entropy", "percentile", "mse"]
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "mse": CalibrationMethod.MinMax,  # and our own ranges instead
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_CHUNK = 32  # rows per calibration pass; only one pass is held in memory
# What stays in eight bits between two weighted layers: it costs no accuracy, and a float island
# in the middle would cost two conversions.
_BETWEEN = frozenset(
    {"Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape"}
    | {"Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad", "Split"}
)
# Networks with one of these have outliers in their sums that eight bits cannot hold.
_NORMS = frozenset(
    {"LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", "Attention"}
    | {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
)
_SHAPED = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Slice", "Pad", "Split", "Clip"})


def quantize_int8(
    fp32: Path,
    path: Path,
    *,
    calibration: NDArray[Any],
    per_channel: bool = True,
    method: Method = "minmax",
    reduce_range: bool = True,
    learned: Sequence[LearnedRange] = (),
) -> Path:
    """Write the int8 form of an exported file; the metadata is kept, with `precision: int8`.

    What stands before the first layer with weights, that is the scaling of the raw rows, stays in
    float, and so do the answer, normalisation, softmax and products of two activations. Networks
    with layer normalisation keep their residual sums in float as well, because these have the
    outliers that eight bits cannot hold.

    Args:
        fp32: a file written by `export_onnx`.
        path: the int8 file; an existing one is replaced when the new one is whole.
        calibration: raw training rows `[rows, ...]`, a few hundred, which give the ranges.
        per_channel: one scale per output channel of a weight rather than one per weight.
        method: `minmax` takes the range as seen; `percentile` cuts a hundredth of a per cent off
            each side; `mse` searches the range with the smallest squared error; `entropy` that
            which keeps most information, and is slow.
        reduce_range: keep weights within seven bits, which is exact on every processor. False
            gives them all eight, for processors with VNNI or such, or ARM.
        learned: ranges that training found, which go before those of the calibration; layers are
            found by their weights, so the file must be that of the network they were learned in.

    Raises:
        DataError: there are no calibration rows.
        ExportError: the file cannot be read or quantised, or has none of the layers whose ranges
            were learned.
        RunError: the file cannot be written.
    """
    if len(calibration) == 0:
        raise DataError("calibration needs training rows, but got 0; pass a few hundred of them")
    original = _load(fp32)
    with tempfile.TemporaryDirectory(prefix="understudy-") as folder, _quiet():
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            # Folds what still can be folded (a normalisation into its convolution) beforehand:
            # afterwards the runtime may not touch the rounded weights any more.
            quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
            graph = _load(prepared).graph
            chosen = _chosen(graph, fp32)
            kinds = {node.op_type for node in graph.node if node.name in set(chosen)}
            ranges = _learned(graph, learned, fp32)
            if method == "mse":
                sought = _activations(graph, chosen) - set(ranges)
                ranges |= least_squares_ranges(prepared, calibration, sorted(sought))
            quantize_static(
                str(prepared),
                str(quantized),
                _Chunks(calibration, name=original.graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=per_channel,
                reduce_range=reduce_range,
                # Only these are calibrated: a mask of attention has no range to speak of.
                op_types_to_quantize=sorted(kinds),
                nodes_to_quantize=chosen,
                calibrate_method=_METHODS[method],
                extra_options={
                    "CalibStridedMinMax": 1,
                    "CalibPercentile": 99.99,
                    "CalibTensorRangeSymmetric": False,
                    "TensorQuantOverrides": _tables(graph, reduce_range=reduce_range)
                    | range_overrides(ranges),
                    "OpTypesToExcludeOutputQuantization": _exact_outputs(graph),
                },
            )
        except ExportError:
            raise
        except Exception as error:  # the quantiser raises whatever it met
            raise ExportError(
                f"{fp32} cannot be quantised: {cause(error)}. Check that the {calibration.dtype} "
                f"calibration rows {list(calibration.shape)} are such as the file takes, "
                "or deploy the float32 file"
            ) from error
        model = _load(quantized)
        if _sums_stay_float(graph):
            _unround_sums(model.graph)
        compact(model)
        model.metadata_props.extend(original.metadata_props)
        model.metadata_props.add(key=f"{PREFIX}precision", value='"int8"')
        content = model.SerializeToString(deterministic=True)
        quantized.write_bytes(content)
        _check_answers(quantized, calibration[:2], fp32)
    write_atomic(path, content)
    return path


def _check_answers(quantized: Path, rows: NDArray[Any], fp32: Path) -> None:
    try:
        Deployed.open(quantized).predict(rows)
    except (DataError, ExportError) as error:
        raise ExportError(
            f"{fp32} has a layer whose int8 form ONNX Runtime cannot run ({error}); "
            "deploy the float32 file"
        ) from error


class _Chunks(CalibrationDataReader):  # type: ignore[misc]
    """Calibration rows, a few at a time, in the form that the quantiser asks for."""

    def __init__(self, rows: NDArray[Any], *, name: str) -> None:
        self._rows, self._name = rows, name
        self._chunks = self._read(0, len(self))

    def __len__(self) -> int:
        return -(-len(self._rows) // _CHUNK)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._chunks = self._read(start_index, end_index)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._chunks, None)

    def _read(self, start: int, end: int) -> Iterator[dict[str, NDArray[Any]]]:
        for number in range(start, end):
            chunk = self._rows[number * _CHUNK : (number + 1) * _CHUNK]
            yield {self._name: np.ascontiguousarray(chunk)}


def _chosen(graph: onnx.GraphProto, fp32: Path) -> list[str]:
    """The names of the nodes to quantise: those with weights, and what lies between them."""
    constants = {tensor.name for tensor in graph.initializer if tensor.data_type == tensor.FLOAT}
    weighted = [
        node
        for node in graph.node
        if node.op_type in WEIGHTED and not constants.isdisjoint(node.input)
    ]
    if not weighted:
        raise ExportError(
            f"{fp32} has no layer with weights that can be quantised; deploy the float32 file"
        )
    chosen = {node.name for node in weighted}
    if _sums_stay_float(graph):
        return sorted(chosen)
    after = {name for node in weighted for name in node.output}
    for node in graph.node:
        if not after.isdisjoint(node.input):
            after.update(node.output)
    before = {name for node in weighted for name in node.input}
    for node in reversed(graph.node):
        if not before.isdisjoint(node.output):
            before.update(node.input)
            if node.op_type in _BETWEEN and not after.isdisjoint(node.input):
                chosen.add(node.name)
    return sorted(chosen)


def _sums_stay_float(graph: onnx.GraphProto) -> bool:
    return any(node.op_type in _NORMS for node in graph.node)


def _unround_sums(graph: onnx.GraphProto) -> None:
    """Let what is computed in float take the number itself where only others needed it rounded.

    The quantiser rounds a tensor for all who take it, so also a sum beside a matrix product.
    """
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in WEIGHTED or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for at, name in enumerate(node.input):
            source = before_rounding(made, name)
            if source is not None and made[source].op_type not in WEIGHTED:
                node.input[at] = source


def _exact_outputs(graph: onnx.GraphProto) -> list[str]:
    """Matrix products give floats where floats are needed: rounding them would only cost."""
    return ["MatMul", "Gemm"] if _sums_stay_float(graph) else []


def _activations(graph: onnx.GraphProto, chosen: list[str]) -> set[str]:
    """The float tensors that the chosen nodes take and give, and that depend on the rows."""
    weights = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.name in set(chosen)]
    taken = {name for node in nodes if node.op_type != "Gather" for name in node.input}
    given = {name for node in nodes for name in node.output}
    shapes = {node.input[1] for node in nodes if node.op_type in _SHAPED and len(node.input) > 1}
    return (taken | given) - weights - shapes - {""}


def _learned(
    graph: onnx.GraphProto, learned: Sequence[LearnedRange], fp32: Path
) -> dict[str, Range]:
    ranges = tensor_ranges(graph, learned)
    if learned and not ranges:
        raise ExportError(
            f"learned ranges must be those of the exported network, but {fp32} has none of the "
            f"{len(learned)} layers that they were learned in: export the network that "
            "`finish_aware` gave with them"
        )
    return ranges


def _tables(graph: onnx.GraphProto, *, reduce_range: bool) -> dict[str, list[dict[str, Any]]]:
    """One scale for every embedding, as a lookup has no channels.

    All eight bits too, as nothing is added up, unless it is also the last layer.
    """
    constants = {tensor.name for tensor in graph.initializer}
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"} & constants
    others = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
    return {
        name: [
            {
                "quant_type": QuantType.QInt8,
                "symmetric": True,
                "reduce_range": reduce_range and name in others,
            }
        ]
        for name in sorted(looked_up)
    }


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf and the file system both have their own
        raise ExportError(
            f"{path} cannot be read as an ONNX file ({cause(error)}): export the model again"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The calibrators print their progress.
    with contextlib.redirect_stdout(io.StringIO()):
        yield
