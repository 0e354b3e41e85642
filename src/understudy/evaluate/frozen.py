"""Weights that need no gradient for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient; afterwards those do that did.

    PyTorch's counter of operations follows the tensors that modules are given, and breaks off where
    one of them is a view of a weight (a learned query, an expanded token) that asks for a gradient
    while none is being recorded.
    """
    asking = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in asking:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)
