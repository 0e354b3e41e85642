"""The margins of a teacher's layers, for the loss `overhaul`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.features.hooks import module_at
from understudy.losses.boundaries import margin


def margins(network: nn.Module, spot: str) -> Float[Tensor, " channels"]:
    """Per channel the mean of what is negative at a spot, by the batch norm that stands before it.

    It is the last batch norm inside the module of the spot: of a residual block the one before
    the sum, as the authors take it.

    Raises:
        ModelError: there is no batch norm with weights.
    """
    inside = [
        module
        for module in module_at(network, spot).modules()
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine
    ]
    if not inside:
        raise ModelError(
            f"`overhaul` needs the batch norm that a layer ends with, but `{spot}` holds none: "
            "name a block or a batch norm of the teacher, or use `hint`"
        )
    last = inside[-1]
    with torch.no_grad():
        return margin(last.weight, last.bias)
