"""What a causal model says: hidden states and head where these are its logits, else its logits."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.losses.vocabulary import HiddenLabels, LinearHead
from understudy.losses.vocabulary.tiles import Projection

SCALED: Final = "logit_scale"
DIVIDED: Final = "logits_scaling"
CAPPED: Final = "final_logit_softcapping"
ELSEWHERE: Final = frozenset({"attn_logit_softcapping", "num_logits_to_keep"})
"""Settings that sound like one of the head's, and are not."""

TOLERANCE: Final = 0.01
"""How far the head's logits may be from the model's, as a share of their size: bfloat16's noise."""


class Reader:
    """Reads one causal model, batch after batch.

    Whether the last hidden states and the head give the model's own logits is tried once, on the
    first batch. Where they do not, or nobody can tell, the logits themselves are read.
    """

    def __init__(self) -> None:
        self._sure: bool | None = None

    def __call__(
        self, model: Any, inputs: Mapping[str, Any], *, bare: Any, whole: bool = False
    ) -> tuple[Tensor | HiddenLabels, Any]:
        """What the model says of a batch, `[batch, length, ...]`, and its answer.

        Args:
            model: what is called, wrapped or not.
            inputs: its named inputs.
            bare: the model itself, which knows its head; None where its logits are to be read.
            whole: whether the answer must hold all logits, whatever is read.

        Raises:
            ModelError: the answer holds no logits `[batch, length, vocabulary]`.
        """
        head = None if bare is None or self._sure is False else head_of(bare)
        if head is not None and self._sure is None:
            self._sure = _agrees(bare, head, inputs)
        if head is None or not self._sure:
            answer = model(**inputs)
            return logits_in(answer), answer
        answer = model(**inputs, output_hidden_states=True, logits_to_keep=0 if whole else 1)
        states = HiddenLabels(hidden=answer.hidden_states[-1], head=head)
        # A Trainer would gather the hidden states of all layers as predictions.
        return states, {"logits": answer.logits}


def head_of(model: Any) -> LinearHead | None:
    """The head of a Hugging Face causal model; None where there is no plain one."""
    getter = getattr(model, "get_output_embeddings", None)
    layer = getter() if callable(getter) else None
    config = getattr(model, "config", None)
    # A layer that was rounded, sharded or given an adapter computes more than its weight says.
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter or config is None:
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


def logits_in(answer: Any) -> Tensor:
    """The logits of an answer: a tensor, or something that has them.

    Raises:
        ModelError: there are none of `[batch, length, vocabulary]`.
    """
    found = answer if isinstance(answer, Tensor) else getattr(answer, "logits", None)
    if found is None and isinstance(answer, Mapping):
        found = answer.get("logits")
    if not isinstance(found, Tensor) or found.ndim != 3:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(answer).__name__
        raise ModelError(
            f"a causal model must answer with logits [batch, length, vocabulary], but got {got}: "
            "return them as a tensor, or in a field `logits`"
        )
    return found


def _of_logits(name: str) -> bool:
    return "logit" in name or "softcap" in name


def _agrees(model: Any, head: LinearHead, inputs: Mapping[str, Any]) -> bool:
    """Whether hidden states and head give the logits that the model gives, for one row."""
    row = {k: v[:1] if isinstance(v, Tensor) and v.ndim else v for k, v in inputs.items()}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            answer = model(**row, output_hidden_states=True, logits_to_keep=1)
    finally:
        model.train(training)
    states, goal = getattr(answer, "hidden_states", None), logits_in(answer)[:, -1].float()
    if not states or states[-1].shape[-1] != head.weight.shape[1]:
        return False
    with torch.no_grad():
        found = _logits(states[-1][:, -1].float(), head)
    return bool((found - goal).abs().max() <= TOLERANCE * goal.abs().max())


def _logits(hidden: Tensor, head: LinearHead) -> Tensor:
    projection = Projection(
        hidden,
        weight=head.weight.detach(),
        bias=None if head.bias is None else head.bias.detach(),
        scale=float(head.scale),
        soft_cap=None if head.soft_cap is None else float(head.soft_cap),
        temperature=1.0,
        kept=None,
    )
    return projection.first(slice(0, len(head.weight)))
