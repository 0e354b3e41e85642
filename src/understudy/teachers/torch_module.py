"""A PyTorch module as teacher: held, not registered, so no optimizer, state dict or DDP sees it."""

import torch
from torch import nn

from understudy.contracts import Batch, Knowledge


class TorchTeacher:
    """A frozen module that takes raw rows and answers `[batch, width]`."""

    def __init__(self, module: nn.Module, *, output: str) -> None:
        """Take the module as it is, in evaluation mode.

        Args:
            module: raw rows to answers.
            output: what its answer is called as knowledge, `logits` or `values`.
        """
        self.module = module.eval()
        self._output = output

    @property
    def offers(self) -> frozenset[str]:
        """Its answer."""
        return frozenset({self._output})

    def __call__(self, batch: Batch) -> Knowledge:
        """Its answer to the batch, on the device the rows are on, without gradient."""
        inputs = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        first = next(self.module.parameters(), None)
        if first is not None and first.device != inputs.device:
            self.module.to(inputs.device)
        # Not inference_mode: its tensors may not enter a graph, and losses may save them for one.
        with torch.no_grad():
            return Knowledge(fields={self._output: self.module(inputs)})
