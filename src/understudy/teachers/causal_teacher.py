"""A causal language model as a teacher: what it says after every token that counts."""

from typing import Final, Literal

import torch
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge, Ragged
from understudy.errors import ModelError
from understudy.losses.vocabulary import LinearHead
from understudy.models.causal import CausalModel, head_logits
from understudy.models.deployable import Deployable, inner

Tells = Literal["logits", "states"]
AT_ONCE: Final = 2**25
"""How many logits are computed together."""


class CausalTeacher:
    """Tells logits, or the states that its head makes logits of, for the positions that count.

    States take as many numbers as the model is wide instead of one per token of the vocabulary, so
    a live teacher tells these, and they can be stored.
    """

    def __init__(
        self, module: nn.Module, *, tells: Tells = "states", vocabulary: int | None = None
    ) -> None:
        """Hold the model; it is put into evaluation mode.

        Args:
            module: a causal model, or a `Deployable` around one.
            tells: what it is asked for.
            vocabulary: how many leading logits are tokens; the others are padding. None: all.

        Raises:
            ModelError: it is no causal model.
        """
        network = inner(module)
        if not isinstance(network, CausalModel):
            raise ModelError(
                "a teacher of a language model must be a causal model, with `states` and a "
                f"`head`, but {type(network).__name__} is none: use `kind: hf_causal` or `gpt`"
            )
        self._module = module.eval()
        self._network: CausalModel = network
        self._tells: Tells = tells
        self._vocabulary = network.vocabulary if vocabulary is None else vocabulary

    @property
    def offers(self) -> frozenset[str]:
        """What it is asked for."""
        return frozenset({self._tells})

    @property
    def head(self) -> LinearHead:
        """From its states to its logits, without gradient."""
        own, width = self._network.head, self._vocabulary
        return LinearHead(
            weight=own.weight.detach()[:width],
            bias=None if own.bias is None else own.bias.detach()[:width],
            scale=own.scale,
            soft_cap=own.soft_cap,
        )

    def __call__(self, batch: Batch) -> Knowledge:
        """What it says of the positions that count, row after row.

        Raises:
            ModelError: the batch does not say which positions count.
        """
        counted = batch.positions
        if counted is None:
            raise ModelError(
                "a teacher of a language model is asked for the positions that count, but this "
                "batch does not say which: give it `positions`"
            )
        rows = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        self._module.eval()
        with torch.inference_mode():
            own = self._module
            tokens = own.preprocess(rows) if isinstance(own, Deployable) else rows
            states = self._network.states(tokens)[counted]
            told = states if self._tells == "states" else self._logits(states)
        # Inference tensors may not go into somebody's graph.
        values = told.clone()
        return Knowledge(fields={self._tells: Ragged(values=values, lengths=counted.sum(dim=1))})

    def _logits(self, states: Tensor) -> Tensor:
        head = self.head
        step = max(1, AT_ONCE // len(head.weight))
        starts = range(0, len(states), step)
        parts = [head_logits(states[at : at + step].float(), head) for at in starts]
        return torch.cat(parts) if parts else states.new_zeros((0, len(head.weight)))
