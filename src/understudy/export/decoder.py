"""A causal language model becomes one ONNX file that remembers what it has read.

One graph for every step: new tokens `[batch, length]` and what is remembered of those before them
go in, logits after the last token and what is remembered now come out. At the start nothing is
remembered, so one file reads a prompt at once and goes on token by token.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from understudy.errors import ExportError
from understudy.export.compact import compact
from understudy.export.onnx import LARGEST, PREFIX, cause, frozen, quiet
from understudy.export.operators import operators_once
from understudy.folders import write_atomic
from understudy.models.causal import CausalModel

TOKENS, LOGITS, BEFORE, NOW = "tokens", "logits", "past", "present"


class _Step(nn.Module):
    """A model's step with its memory spread out."""

    def __init__(self, model: CausalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits, then what is remembered."""
        logits, now = self.model.step(tokens, past)
        return (logits, *now)


def export_decoder(
    model: CausalModel,
    path: Path,
    *,
    tokenizer: Mapping[str, Any] | None = None,
    stop: tuple[int, ...] | None = None,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
) -> Path:
    """Write a causal model as one ONNX file with its keys and values as inputs and outputs.

    Inputs are `tokens`, int64 `[batch, length]`, and `past.0`, `past.1`, ...: the tokens read so
    far `[batch, past]`, then keys and values `[batch, heads, past, dim]`, layer by layer, of length
    0 at the start. Outputs are `logits` `[batch, vocabulary]` after the last token, and `present.0`
    and so on, which are the next step's past. Batch, length and past are free. A tied head is
    stored once. The model is not touched: a float32 copy in evaluation mode is exported.

    Args:
        model: what to export.
        path: the file; an existing one is replaced when the new one is whole.
        tokenizer: what prompts are encoded with, as plain JSON: `content` (the JSON text of a
            `tokenizer.json`) and `begin` (the token that prompts begin with, or None). Without it
            the file takes tokens only.
        stop: tokens after which a text is over; None for the model's own.
        metadata: more JSON texts by name.
        opset: ONNX operator set; by default the exporter's own.

    Raises:
        ExportError: the model is too large for one file, its tokenizer has more tokens than it, or
            it does something that ONNX has no words for.
        RunError: the file cannot be written.
    """
    if not isinstance(model, nn.Module):
        raise ExportError(f"a module must be exported, but got {type(model).__name__}")
    told = _described(model, stop, tokenizer)
    _check_size(model)
    step = _Step(cast(CausalModel, frozen(model)))
    try:
        made = _translated(step, opset=opset)
    except Exception as error:  # the exporter raises whatever it met
        raise ExportError(
            f"{type(model).__name__} cannot be exported as a decoder: {cause(error)}. Export it "
            "with `attn_implementation` sdpa or eager where it is one of Hugging Face's"
        ) from error
    _name_axes(made)
    compact(made)
    for key, text in sorted({**(metadata or {}), **told}.items()):
        made.metadata_props.add(key=f"{PREFIX}{key}", value=text)
    write_atomic(path, made.SerializeToString(deterministic=True))
    return path


def _described(
    model: CausalModel, stop: tuple[int, ...] | None, tokenizer: Mapping[str, Any] | None
) -> dict[str, str]:
    decoder = {
        "vocabulary": model.vocabulary,
        "context": model.context,
        "stop": list(model.stop if stop is None else stop),
    }
    told = {"decoder": json.dumps(decoder)}
    if tokenizer is not None:
        highest = _highest(str(tokenizer["content"]))
        if highest >= model.vocabulary:
            raise ExportError(
                "`tokens < vocabulary` must hold for a tokenizer and its model, but the tokenizer "
                f"has token {highest} and the model {model.vocabulary} logits: export the model "
                "with the tokenizer that it was trained with"
            )
        told["tokenizer"] = json.dumps(dict(tokenizer), ensure_ascii=False)
    return told


def _highest(content: str) -> int:
    """The highest token that a `tokenizer.json` speaks of; -1 where it is told in another way."""
    read = json.loads(content)
    known = read.get("model", {}).get("vocab", {})
    tokens = list(known.values()) if isinstance(known, dict) else list(range(len(known)))
    tokens += [token["id"] for token in read.get("added_tokens") or ()]
    return max(tokens, default=-1)


def _check_size(model: nn.Module) -> None:
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > LARGEST:
        raise ExportError(
            f"a decoder must fit into one file, with at most {LARGEST / 1e9:.1f} GB of float32 "
            f"weights, but {type(model).__name__} has {size / 1e9:.1f} GB; choose a smaller student"
        )


def _translated(step: _Step, *, opset: int | None) -> onnx.ModelProto:
    few = torch.zeros((2, 3), dtype=torch.int64)
    with torch.no_grad():
        _, *past = step(few)
    # Made anew: a view of something else would be one to the exporter too.
    given = (few, *(torch.zeros(one.shape, dtype=one.dtype) for one in past))
    batch, free = torch.export.Dim("batch"), torch.export.Dim.DYNAMIC
    axes = tuple({0: batch, _along(one): free} for one in past)
    with quiet(), operators_once():
        program = torch.export.export(
            step, given, dynamic_shapes=({0: batch, 1: free}, axes), strict=False
        )
        exported = torch.onnx.export(
            program,
            (),
            None,
            input_names=[TOKENS, *(f"{BEFORE}.{n}" for n in range(len(past)))],
            output_names=[LOGITS, *(f"{NOW}.{n}" for n in range(len(past)))],
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    return model


def _along(one: Tensor) -> int:
    """Which axis of something remembered counts the tokens."""
    return 1 if one.ndim == 2 else 2


def _name_axes(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param = "batch"
        if value.name == LOGITS:
            continue
        along = 1 if len(axes) == 2 else 2
        if not axes[along].dim_param:
            raise ExportError(
                f"a decoder must take any number of tokens, but `{value.name}` is exported for "
                f"{axes[along].dim_value} only: write the model's `step` for any length"
            )
        remembered = "past" if value.name.startswith(BEFORE) else "past + length"
        axes[along].dim_param = "length" if value.name == TOKENS else remembered
