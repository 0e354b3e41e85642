"""What constraints read: the student's weights, and what they were when training began."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from understudy.models.deployable import inner


def trained(student: nn.Module) -> dict[str, Tensor]:
    """The student's weights that train, by their names in its own network; shared ones once."""
    network = inner(student)
    return {n: p for n, p in network.named_parameters() if p.requires_grad}


class Start(nn.Module):
    """A copy of the weights as they were, in buffers: checkpointed beside the student, not in it.

    It is a part of the objective, so it is left behind where the student is exported, and a
    training that goes on from a checkpoint reads the start of the training, not of the session.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Copy these weights."""
        super().__init__()
        # A buffer's name has no dots.
        self._names = {name: f"weight_{number}" for number, name in enumerate(weights)}
        for name, value in weights.items():
            self.register_buffer(self._names[name], value.detach().clone())

    def weights(self) -> dict[str, Tensor]:
        """The copies, by the weights' names."""
        return {name: self.get_buffer(buffer) for name, buffer in self._names.items()}

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor]) -> bool:
        """Copy these weights instead; False where they are others in name or shape."""
        own = self.weights()
        if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in weights.items()}:
            return False
        for name, value in own.items():
            value.copy_(weights[name])
        return True
