"""What a causal model says: hidden states and head where these are its logits, else its logits."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from understudy.errors import ModelError
from understudy.losses.vocabulary import HiddenLabels
from understudy.teachers.hf_head import head_agrees, head_of


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
            self._sure = head_agrees(bare, head, inputs)
        if head is None or not self._sure:
            answer = model(**inputs)
            return logits_in(answer), answer
        answer = model(**inputs, output_hidden_states=True, logits_to_keep=0 if whole else 1)
        states = HiddenLabels(hidden=answer.hidden_states[-1], head=head)
        # A Trainer would gather the hidden states of all layers as predictions.
        return states, {"logits": answer.logits}


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
