"""What a network that is to be narrowed answers with: one tensor, or several."""

from typing import Any

from torch import Tensor

from understudy.errors import ModelError


def answer(outputs: Any) -> Tensor:
    """The tensor that a network answers with, where it answers with several.

    Raises:
        ModelError: there is none.
    """
    for name in ("logits", "last_hidden_state"):
        found = outputs.get(name) if isinstance(outputs, dict) else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    while isinstance(outputs, (tuple, list)) and outputs:
        outputs = outputs[0]
    if not isinstance(outputs, Tensor):
        raise ModelError(
            "a network that is cut must answer with a tensor (or `logits`, or "
            f"`last_hidden_state`), but got {type(outputs).__name__}: wrap it so that it does"
        )
    return outputs


def other_answers(outputs: Any) -> list[Tensor]:
    """The further tensors of an answer that is a plain sequence or dictionary of such.

    What a Hugging Face model gives beside its logits are its own states, not answers.
    """
    if any(isinstance(getattr(outputs, n, None), Tensor) for n in ("logits", "last_hidden_state")):
        return []
    items = outputs.values() if type(outputs) is dict else outputs
    if not isinstance(outputs, (tuple, list)) and type(outputs) is not dict:
        return []
    first = answer(outputs)
    return [item for item in items if isinstance(item, Tensor) and item is not first]
