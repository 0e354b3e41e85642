"""A module becomes one ONNX file that takes raw rows.

Scaling and layout are part of the module, so they are part of the file: whoever deploys it cannot
get them wrong.
"""

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common.initializer_deduplication import DeduplicateHashedInitializersPass
from torch import Tensor, nn

from understudy.errors import ExportError
from understudy.export.operators import operators_once
from understudy.export.recurrent import with_operators
from understudy.folders import write_atomic

INPUT, OUTPUT, BATCH, LENGTH = "rows", "output", "batch", "length"
_ANY_SIZE = 1 << 62
PREFIX = "understudy."
# A protobuf message ends at 2 GiB; the graph and the metadata need some of it.
LARGEST = 1_900_000_000
_REMEDY = (
    "write its `forward` with tensor operations only, without branches on tensor values and "
    "without a fixed batch size; or leave the export out, and the student is measured in torch"
)


def export_onnx(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, str],
    opset: int | None = None,
    free_length: bool | None = None,
) -> Path:
    """Write a module as one ONNX file, raw rows `[batch, ...]` in, `[batch, width]` float32 out.

    The input is called `rows`, the output `output`, and the batch is free; so is the length of
    rows of tokens where it is asked for. Batch normalisation is
    folded into the layer before it. Equal modules give equal bytes, and nothing in the file tells
    where or by what code it was made except the metadata. The module itself is not touched: a
    float32 copy in evaluation mode is exported, on the CPU.

    Args:
        module: what to export; it takes raw rows.
        example: two raw rows or more, in the type that the deployed file shall take.
        path: the file; an existing one is replaced when the new one is whole.
        metadata: JSON texts by name, to be kept in the file; `Deployed.metadata` reads them back.
        opset: ONNX operator set; by default the exporter's own.
        free_length: whether the second axis may have any length too, as in padded rows of token
            ids `[batch, length]`. The example is then three tokens long or more. None: where the
            module's own preprocessing is one of texts.

    Raises:
        ExportError: the module is too large for one file, does not answer one row of numbers per
            raw row, works for one length only, or does something that ONNX has no words for.
        RunError: the file cannot be written.
    """
    if free_length is None:
        free_length = getattr(getattr(module, "preprocess", None), "form", "") == "text"
    _check_metadata(metadata)
    _check_size(module)
    rows = _check_example(example, free_length=free_length)
    still = frozen(module)
    _check_answer(still, rows, name=type(module).__name__)
    if free_length:
        still = with_operators(still)
    try:
        model = _translate(still, rows, opset=opset, free_length=free_length)
    except Exception as error:  # the exporter raises whatever it met
        raise ExportError(
            f"{type(module).__name__} cannot be exported to ONNX: {cause(error)}. {_REMEDY}"
        ) from error
    _name_batch(model, name=type(module).__name__)
    if free_length:
        _name_length(model, name=type(module).__name__)
    strip(model)
    for key in sorted(metadata):
        model.metadata_props.add(key=f"{PREFIX}{key}", value=metadata[key])
    write_atomic(path, model.SerializeToString(deterministic=True))
    return path


def stored_parameters(path: Path) -> int:
    """How many floating-point numbers an ONNX file stores: its parameters, and its statistics.

    Raises:
        ExportError: the file is not ONNX.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, of several kinds
        raise ExportError(f"{path} cannot be read as an ONNX file: export it again") from error
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    stored = [one for one in model.graph.initializer if one.data_type in floats]
    return sum(math.prod(one.dims) for one in stored)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for name, text in metadata.items():
        try:
            json.loads(text)
        except ValueError as error:
            raise ExportError(
                f"metadata must be JSON texts, but `{name}` is {text!r}; pass `json.dumps(...)`"
            ) from error


def strip(model: onnx.ModelProto) -> None:
    """Remove all metadata, with the stack traces and paths in them, and all inferred shapes."""
    model.producer_name = "understudy"
    model.ClearField("producer_version")
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    _strip_graph(model.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(field)
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        named.ClearField("doc_string")
        named.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _strip_graph(inner)


def cause(error: BaseException) -> str:
    """What went wrong in the first place, as one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def _check_size(module: nn.Module) -> None:
    held = {tensor.data_ptr(): tensor.numel() for tensor in module.state_dict().values()}
    size = 4 * sum(held.values())
    if size > LARGEST:
        raise ExportError(
            f"an exported model must fit into one file of {LARGEST / 1e9:.1f} GB, but "
            f"{type(module).__name__} has {size / 1e9:.1f} GB of float32 weights; "
            "choose a smaller student"
        )


def _check_example(example: Tensor, *, free_length: bool) -> Tensor:
    if example.ndim < 2 or len(example) < 2:
        raise ExportError(
            "the example must be raw rows `[batch, ...]`, two or more, so that the batch can be "
            f"left free, but its shape is {list(example.shape)}; pass more rows"
        )
    if free_length and example.shape[1] < 3:
        raise ExportError(
            "the example must be three tokens long or more, so that the length can be left free, "
            f"but its shape is {list(example.shape)}; pass longer rows"
        )
    rows = example.detach().cpu()
    return rows.float() if rows.dtype.is_floating_point else rows


def frozen(module: nn.Module) -> nn.Module:
    """A float32 copy in evaluation mode, on the CPU.

    Raises:
        ExportError: the module cannot be copied.
    """
    compiled = getattr(module, "_orig_mod", module)
    try:
        copy: nn.Module = deepcopy(compiled)
    except (RuntimeError, TypeError) as error:
        raise ExportError(
            f"{type(module).__name__} cannot be copied for its export: {cause(error)}. "
            "Remove hooks and tensors with a gradient history from it first"
        ) from error
    copy = copy.cpu().float().eval().requires_grad_(False)
    return copy.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


def _check_answer(module: nn.Module, rows: Tensor, *, name: str) -> None:
    try:
        with torch.no_grad():
            output = module(rows)
    except Exception as error:  # whatever the user's own forward raises
        raise ExportError(
            f"{name} does not take the example, {rows.dtype} rows {list(rows.shape)}: "
            f"{cause(error)}. Pass rows as they are in the data; scaling belongs into the module"
        ) from error
    if not isinstance(output, Tensor):
        raise ExportError(
            f"an exported model must answer with one tensor, but {name} answers with "
            f"{type(output).__name__}; wrap it in a module that picks the tensor to deploy"
        )
    if output.ndim < 2 or len(output) != len(rows) or not output.dtype.is_floating_point:
        raise ExportError(
            f"an exported model must answer `[batch, width]` floats, but {name} answers "
            f"{output.dtype} {list(output.shape)} to {len(rows)} rows; reshape its output"
        )


def _translate(
    module: nn.Module, rows: Tensor, *, opset: int | None, free_length: bool
) -> onnx.ModelProto:
    free: dict[int, Any] = {0: torch.export.Dim(BATCH)}
    if free_length:
        # Not a named one: how long rows may be is for the module to say, by its positions.
        free[1] = torch.export.Dim.DYNAMIC
    with quiet(), operators_once():
        # Non-strict only: the exporter's own second try with the strict tracer would double the
        # waiting time, and hide the first and clearer message.
        program = torch.export.export(module, (rows,), dynamic_shapes=(free,), strict=False)
        exported = torch.onnx.export(
            program,
            (),
            None,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert exported is not None
        model: onnx.ModelProto = exported.model_proto
    return _once(model) if _shares(module) else model


def _shares(module: nn.Module) -> bool:
    """Whether a parameter stands at several places."""
    every = list(module.named_parameters(remove_duplicate=False))
    return len(every) > len({id(parameter) for _, parameter in every})


def _once(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every weight once: the exporter gives each block that shares one a transposed copy."""
    read = onnx_ir.from_proto(model)
    DeduplicateHashedInitializersPass(size_limit=_ANY_SIZE)(read)
    found: onnx.ModelProto = onnx_ir.to_proto(read)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter says to its own developers; a user's warnings still pass."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    fast = torch.backends.mha.get_fastpath_enabled()
    logger.setLevel(logging.ERROR)
    # The fused inference path of nn.TransformerEncoderLayer has no ONNX form.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            # nn.LSTM and nn.GRU refill their list of weights in `forward`, which changes nothing.
            warnings.filterwarnings("ignore", message=r"The tensor attributes? .*_flat_weights")
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)


def _name_batch(model: onnx.ModelProto, *, name: str) -> None:
    axes = [
        value.type.tensor_type.shape.dim[0] for value in (*model.graph.input, *model.graph.output)
    ]
    symbols = {axis.dim_param for axis in axes}
    if len(axes) != 2 or len(symbols) != 1 or "" in symbols:
        raise ExportError(
            f"an exported model must answer one row for each row it is given, but the number of "
            f"rows that {name} answers depends on their values; keep the batch axis as it is"
        )
    for axis in axes:
        axis.dim_param = BATCH


def _name_length(model: onnx.ModelProto, *, name: str) -> None:
    axis = model.graph.input[0].type.tensor_type.shape.dim[1]
    old = axis.dim_param
    if not old:
        raise ExportError(
            f"rows of any length were asked for, but {name} works for {axis.dim_value} tokens "
            f"only; leave `free_length` out, or write its `forward` for any length. {_REMEDY}"
        )
    for value in (*model.graph.input, *model.graph.output):
        for one in value.type.tensor_type.shape.dim:
            if one.dim_param == old:
                one.dim_param = LENGTH
