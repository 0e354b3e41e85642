"""A PyTorch module as teacher: held, not registered, so no optimizer, state dict or DDP sees it."""

from collections.abc import Sequence

import torch
from torch import nn

from understudy.contracts import Batch, Knowledge
from understudy.features.hooks import capture, module_at
from understudy.models.deployable import inner


class TorchTeacher:
    """A frozen module that takes raw rows and answers `[batch, width]`, and layers inside it."""

    def __init__(self, module: nn.Module, *, output: str, spots: Sequence[str] = ()) -> None:
        """Take the module as it is, in evaluation mode.

        Args:
            module: raw rows to answers.
            output: what its answer is called as knowledge, `logits` or `values`.
            spots: layers that are read too, in the words of `features.hooks`.

        Raises:
            ModelError: a spot that the module does not have.
        """
        for spot in spots:
            module_at(inner(module), spot)
        self.module = module.eval()
        self._output, self._spots = output, tuple(spots)

    @property
    def offers(self) -> frozenset[str]:
        """Its answer, and the layers that are read."""
        return frozenset({self._output, *self._spots})

    def __call__(self, batch: Batch) -> Knowledge:
        """Its answer to the batch, on the device the rows are on, without gradient.

        Raises:
            ModelError: a layer that did not run, or does not give a tensor.
        """
        inputs = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        first = next(self.module.parameters(), None)
        if first is not None and first.device != inputs.device:
            self.module.to(inputs.device)
        # Not inference_mode: its tensors may not enter a graph, and losses may save them for one.
        with torch.no_grad(), capture(inner(self.module), self._spots) as captured:
            answer = self.module(inputs)
        return Knowledge(fields={self._output: answer, **captured.found()})
