"""Recurrent layers that PyTorch stacks in one module, as a list of modules."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError

_SIZES = (
    "input_size",
    "hidden_size",
    "num_layers",
    "batch_first",
    "bidirectional",
    "proj_size",
)


class Stack(nn.Module):
    """Recurrent layers of one level each, one after the other, with the answers of `nn.LSTM`.

    Args:
        layers: all alike but for the size of what the first one takes.
        like: the module that had them all. Its sizes are there too, since networks read them.
    """

    def __init__(self, layers: Sequence[nn.RNNBase], *, like: nn.RNNBase) -> None:
        super().__init__()
        for name in _SIZES:
            setattr(self, name, getattr(like, name))
        self.layers = nn.ModuleList(layers)
        self.between = nn.Dropout(float(like.dropout))

    def forward(self, stream: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """The top layer's answers, and the last states of all layers."""
        states = []
        for number, layer in enumerate(self.layers):
            if number:
                stream = self.between(stream)
            made = layer(stream) if hx is None else layer(stream, self._state(hx, number))
            stream = made[0]
            states.append(made[1])
        if isinstance(states[-1], tuple):
            return stream, tuple(_joined(list(kind)) for kind in zip(*states, strict=True))
        return stream, _joined(states)

    def _state(self, hx: Any, number: int) -> Any:
        if isinstance(hx, tuple):
            return tuple(self._state(one, number) for one in hx)
        each = len(hx) // len(self.layers)
        return hx[number * each : (number + 1) * each]


def _joined(states: list[Any]) -> Tensor | None:
    # A layer that was replaced has no cell state to tell.
    return None if any(state is None for state in states) else torch.cat(states)


def unrolled(network: nn.Module) -> nn.Module:
    """A copy of a network whose recurrent modules of several layers are lists of layers.

    It answers as before, and its layers can be blocks.

    Raises:
        ModelError: it has no recurrent module of several layers.
    """
    memo: dict[int, Any] = {}
    stacked = [m for m in network.modules() if isinstance(m, nn.RNNBase) and m.num_layers > 1]
    for module in stacked:
        memo[id(module)] = _stack(module)
    if not stacked:
        raise ModelError(
            f"{type(network).__name__} has no recurrent module of several layers to unroll: divide "
            "it as it is"
        )
    made: nn.Module = deepcopy(network, memo)
    return made


def _stack(module: nn.RNNBase) -> Stack:
    directions = 2 if module.bidirectional else 1
    answered = (module.proj_size or module.hidden_size) * directions
    layers = []
    for number in range(module.num_layers):
        settings: dict[str, Any] = {
            "bias": module.bias,
            "batch_first": module.batch_first,
            "bidirectional": module.bidirectional,
        }
        if isinstance(module, nn.LSTM):
            settings["proj_size"] = module.proj_size
        elif isinstance(module, nn.RNN):
            settings["nonlinearity"] = module.nonlinearity
        size = module.input_size if number == 0 else answered
        first = next(module.parameters())
        kind: Any = type(module)
        layer: nn.RNNBase = kind(
            size, module.hidden_size, device=first.device, dtype=first.dtype, **settings
        )
        own = dict(layer.named_parameters())
        with torch.no_grad():
            for name, weight in own.items():
                source = getattr(module, name.replace("_l0", f"_l{number}"))
                weight.copy_(source)
                weight.requires_grad_(source.requires_grad)
        layers.append(layer.train(module.training))
    stack = Stack(layers, like=module)
    return stack.train(module.training)
