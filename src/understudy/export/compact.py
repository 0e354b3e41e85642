"""A quantised graph in few bytes: short names, nothing twice, nothing unused.

In a network of a few thousand weights the names and constants that the quantiser adds would
outweigh what eight bits save.
"""

from collections.abc import Iterable

import onnx

from understudy.export.onnx import strip

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"})
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def compact(model: onnx.ModelProto) -> None:
    """Rewrite a quantised model in place: small, the same for equal weights, answers in float."""
    strip(model)
    graph = model.graph
    used = {node.domain for node in graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    _replace(model, "opset_import", kept)
    # Branches and loops may refer to any outer name, so their graphs keep all of them.
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    _unround_answer(graph)
    _drop_unused(graph)
    _share_constants(graph)
    _rename(graph)


def _unround_answer(graph: onnx.GraphProto) -> None:
    """Leave out every rounding after the last weights: 256 steps would tie close classes."""
    made = {name: node for node in graph.node for name in node.output}
    answer = graph.output[0].name
    source = before_rounding(made, answer)
    if source is not None:
        graph.node.remove(made[answer])
        for node in graph.node:
            _rename_in(node, {source: answer})
        made[answer] = made.pop(source)
    waiting = [made[answer]]
    while waiting:
        node = waiting.pop()
        if node.op_type in WEIGHTED:
            continue
        for at, name in enumerate(node.input):
            node.input[at] = before_rounding(made, name) or name
            if node.input[at] in made:
                waiting.append(made[node.input[at]])


def before_rounding(made: dict[str, onnx.NodeProto], name: str) -> str | None:
    """The tensor that this one is the rounded form of, where it is one."""
    back = made.get(name)
    if back is None or back.op_type != "DequantizeLinear":
        return None
    there = made.get(back.input[0])
    if there is None or there.op_type != "QuantizeLinear" or there.input[0] not in made:
        return None
    return str(there.input[0])


def _drop_unused(graph: onnx.GraphProto) -> None:
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            kept.append(node)
    _replace(graph, "node", reversed(kept))
    _replace(graph, "initializer", [t for t in graph.initializer if t.name in needed])


def _share_constants(graph: onnx.GraphProto) -> None:
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        nameless = onnx.TensorProto()
        nameless.CopyFrom(tensor)
        nameless.ClearField("name")
        content = nameless.SerializeToString(deterministic=True)
        same[tensor.name] = first.setdefault(content, tensor.name)
    for node in graph.node:
        _rename_in(node, same)
    _replace(graph, "initializer", [t for t in graph.initializer if same[t.name] == t.name])


def _rename(graph: onnx.GraphProto) -> None:
    short = {value.name: value.name for value in (*graph.input, *graph.output)}
    short[""] = ""  # an optional input that is not given
    number = 0
    for node in graph.node:
        node.ClearField("name")
        for name in (*node.input, *node.output):
            if name not in short:
                short[name] = _word(number)
                number += 1
        _rename_in(node, short)
    order = {name: at for at, name in enumerate(short)}
    tensors = sorted(graph.initializer, key=lambda tensor: order[tensor.name])
    for tensor in tensors:
        tensor.name = short[tensor.name]
    _replace(graph, "initializer", tensors)


def _rename_in(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for field in (node.input, node.output):
        for at, name in enumerate(field):
            field[at] = names.get(name, name)


def _word(number: int) -> str:
    word = ""
    while True:
        number, digit = divmod(number, len(_DIGITS))
        word += _DIGITS[digit]
        if number == 0:
            return word


def _replace(
    holder: onnx.ModelProto | onnx.GraphProto, field: str, values: Iterable[object]
) -> None:
    copies = []
    for value in values:
        copy = type(value)()
        copy.CopyFrom(value)  # type: ignore[attr-defined]
        copies.append(copy)
    holder.ClearField(field)
    getattr(holder, field).extend(copies)
