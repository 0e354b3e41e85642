"""The head of a Hugging Face causal model, where its logits are hidden states through a plain one.

The library is not imported: whoever has such a model has it.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from understudy.losses.vocabulary import LinearHead
from understudy.models.causal import head_logits

SCALED: Final = "logit_scale"
DIVIDED: Final = "logits_scaling"
CAPPED: Final = "final_logit_softcapping"
ELSEWHERE: Final = frozenset({"attn_logit_softcapping", "num_logits_to_keep"})
"""Settings that sound like one of the head's, and are not."""

TOLERANCE: Final = 0.01
"""How far the head's logits may be from the model's, as a share of their size: bfloat16's noise."""


def head_of(model: Any) -> LinearHead | None:
    """The head of a Hugging Face causal model; None where there is no plain one."""
    getter = getattr(model, "get_output_embeddings", None)
    layer = getter() if callable(getter) else None
    config = getattr(model, "config", None)
    # A layer that was rounded, sharded or given an adapter computes more than its weight says. An
    # exporter's weights are stand-ins, of a model that was looked at before.
    if type(layer) is not nn.Linear or config is None:
        return None
    if type(layer.weight) is not nn.Parameter and not torch.compiler.is_exporting():
        return None
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return None
    told = {name: value for name, value in vars(config).items() if _of_logits(name)}
    scale = told.pop(SCALED, None) or 1.0
    scale = scale / (told.pop(DIVIDED, None) or 1.0)
    cap = told.pop(CAPPED, None)
    if any(value is not None for name, value in told.items() if name not in ELSEWHERE):
        return None
    return LinearHead(weight=layer.weight, bias=layer.bias, scale=scale, soft_cap=cap)


def head_agrees(model: Any, head: LinearHead, inputs: Mapping[str, Any]) -> bool:
    """Whether hidden states and head give the logits that the model gives, for one row.

    Args:
        model: the model, which is asked in evaluation mode.
        head: what `head_of` says.
        inputs: its named inputs.
    """
    row = {k: v[:1] if isinstance(v, Tensor) and v.ndim else v for k, v in inputs.items()}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            answer = model(**row, output_hidden_states=True, logits_to_keep=1)
    finally:
        model.train(training)
    states, goal = getattr(answer, "hidden_states", None), answer.logits[:, -1].float()
    if not states or states[-1].shape[-1] != head.weight.shape[1]:
        return False
    with torch.no_grad():
        found = head_logits(states[-1][:, -1].to(head.weight.dtype), head).float()
    return bool((found - goal).abs().max() <= TOLERANCE * goal.abs().max())


def _of_logits(name: str) -> bool:
    return "logit" in name or "softcap" in name
