"""The int8 form of an exported decoder, and how near a file's texts are to its model's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from understudy.deployed.generating import Decoder
from understudy.errors import DataError, ExportError
from understudy.export.onnx import cause
from understudy.export.weight_only import Bits, rounded_weights
from understudy.folders import write_atomic
from understudy.models.causal import CausalModel
from understudy.models.generating import generate

_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderParity:
    """How near a decoder's answers are to its model's, after the same tokens.

    Attributes:
        same_texts: the share of prompts that both go on with in the same tokens, each likeliest
            ones of its own, 0 to 1.
        same_tokens: the share of places where both find the same token the likeliest, having read
            the model's text so far.
        max_abs_difference: the largest difference of two logits there.
        tokens: how many places were compared.
    """

    same_texts: float
    same_tokens: float
    max_abs_difference: float
    tokens: int


def decoder_parity(
    model: CausalModel,
    path: Path,
    prompts: Sequence[Sequence[int]],
    *,
    most: int = 64,
    exact: bool = False,
) -> DecoderParity:
    """Compare a file with the model it was made from, on texts that the model goes on with.

    Args:
        model: the model.
        path: the file, float or int8.
        prompts: tokens to go on from, at least one prompt.
        most: tokens per text.
        exact: whether texts must be the same, as a float file's are. An int8 file is only
            reported on: rounding is what it is for.

    Raises:
        ExportError: texts differ and must not, or the file is no decoder.
        DataError: there are no prompts, or some that the model cannot go on from.
    """
    if not prompts:
        raise DataError("a decoder is compared on prompts, but got none: give at least one")
    decoder = Decoder.open(path)
    texts = [row.tolist() for row in generate(model, prompts, most=most)]
    same: list[bool] = []
    largest, agreed = 0.0, []
    for prompt, text in zip(prompts, texts, strict=True):
        own = list(decoder.tokens(prompt, most=most, stop=model.stop))
        if exact and own != text:
            pairs = zip([*own, -1], [*text, -1], strict=False)
            at = next(n for n, (a, b) in enumerate(pairs) if a != b)
            raise ExportError(
                "an exported decoder must go on as its model does, but "
                f"{path.name} goes another way after {at} of {len(text)} tokens: look for "
                "randomness in the model's `step`, or for two tokens that are equally likely"
            )
        same.append(own == text)
        difference, agreement = _compared(model, decoder, [*prompt, *text], len(prompt))
        largest = max(largest, difference)
        agreed += agreement
    return DecoderParity(
        same_texts=float(np.mean(same)),
        same_tokens=float(np.mean(agreed)),
        max_abs_difference=largest,
        tokens=len(agreed),
    )


def _compared(
    model: CausalModel, decoder: Decoder, text: list[int], start: int
) -> tuple[float, list[bool]]:
    """The largest difference of logits at every new token of a text, and who agrees."""
    row = torch.tensor([text[:-1]], device=next(model.parameters()).device)
    training = model.training
    model.eval()
    with torch.no_grad():
        goal = model(row)[0, start - 1 :].float().cpu().numpy()
    model.train(training)
    found, past = decoder.step(np.array([text[:start]]))
    logits = [found[0]]
    for token in text[start:-1]:
        found, past = decoder.step(np.array([[token]]), past)
        logits.append(found[0])
    told = np.stack(logits)
    agreed: list[bool] = (told.argmax(1) == goal.argmax(1)).tolist()
    return float(np.abs(told - goal).max()), agreed


def decoder_int8(fp32: Path, path: Path, *, bits: Bits = 8, block: int = 32) -> Path:
    """Write a decoder whose linear layers and embeddings hold their weights in eight bits, or four.

    Every `block` weights of an output share a scale and a zero point; inputs are rounded within
    each product as they come, so there is nothing to calibrate. A tied head and its embedding stay
    one. The metadata is kept, with `precision: weight_int8`.

    Args:
        fp32: a file written by `export_decoder`.
        path: the new file; an existing one is replaced when the new one is whole.
        bits: for the weights of linear layers; embeddings that are no head take eight.
        block: weights per scale, a power of two of at least 16.

    Raises:
        ExportError: the file cannot be read, is no decoder, or cannot be run afterwards.
        RunError: the file cannot be written.
    """
    Decoder.open(fp32)
    try:
        model = onnx.load(fp32)
    except Exception as error:  # protobuf and the file system both have their own
        raise ExportError(
            f"{fp32} cannot be read as an ONNX file ({cause(error)}): export the model again"
        ) from error
    finish = _one_table if bits == 8 else None
    small = rounded_weights(model, bits=bits, block=block, name=str(fp32), finish=finish)
    write_atomic(path, small.SerializeToString(deterministic=True))
    try:
        Decoder.open(path).step(np.zeros((1, 2), np.int64))
    except Exception as error:  # ONNX Runtime's errors share no other base
        path.unlink()
        raise ExportError(
            f"ONNX Runtime cannot run {fp32} with weights of {bits} bits ({cause(error)}); deploy "
            "the float32 file"
        ) from error
    return path


def _one_table(graph: onnx.GraphProto) -> None:
    """Look up rows of the rounded head where it is the embedding too, which is then left out."""
    weights = {one.name: one for one in graph.initializer}
    heads = {
        node.input[1].partition(".turned")[0]: node
        for node in graph.node
        if node.op_type == "MatMulNBits" and ".turned" in node.input[1]
    }
    nodes: list[onnx.NodeProto] = []
    answers: set[str] = set()
    for node in graph.node:
        table = node.input[0].removesuffix(".whole") if node.op_type == "Gather" else ""
        if table in heads and table != node.input[0]:
            answer = node.output[0].removesuffix(".whole")
            answers.add(answer)
            nodes += _rows_of_head(heads[table], weights, node.input[1], answer)
            graph.initializer.extend(_constants(heads[table], answer))
        elif answers.isdisjoint(node.output):
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _rows_of_head(
    head: onnx.NodeProto, weights: dict[str, onnx.TensorProto], ids: str, answer: str
) -> list[onnx.NodeProto]:
    """`(whole - zero) * scale` of the rows that are looked up, block by block."""
    whole, scale, zero = head.input[1:4]
    blocks, block = weights[whole].dims[1:]
    width = next(one.i for one in head.attribute if one.name == "K")
    made = [
        helper.make_node("Gather", [source, ids], [f"{answer}.{name}"])
        for name, source in (("w", whole), ("s", scale), ("z", zero))
    ]
    made += [
        helper.make_node("Cast", [f"{answer}.{name}"], [f"{answer}.{name}f"], to=_FLOAT)
        for name in ("w", "z")
    ]
    made += [
        helper.make_node("Unsqueeze", [f"{answer}.{name}", f"{answer}.last"], [f"{answer}.{name}u"])
        for name in ("zf", "s")
    ]
    flat = answer if blocks * block == width else f"{answer}.padded"
    made += [
        helper.make_node("Sub", [f"{answer}.wf", f"{answer}.zfu"], [f"{answer}.d"]),
        helper.make_node("Mul", [f"{answer}.d", f"{answer}.su"], [f"{answer}.m"]),
        helper.make_node("Reshape", [f"{answer}.m", f"{answer}.flat"], [flat]),
    ]
    if flat != answer:
        bounds = [f"{answer}.{name}" for name in ("first", "width", "last")]
        made.append(helper.make_node("Slice", [flat, *bounds], [answer]))
    return made


def _constants(head: onnx.NodeProto, answer: str) -> list[onnx.TensorProto]:
    width = next(one.i for one in head.attribute if one.name == "K")
    values = {"flat": [0, 0, -1], "last": [-1], "first": [0], "width": [width]}
    return [
        numpy_helper.from_array(np.array(value, np.int64), f"{answer}.{name}")
        for name, value in values.items()
    ]
