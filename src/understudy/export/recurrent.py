"""LSTMs as the one operator that ONNX has for them, for rows of any length.

PyTorch's own exporter writes every step of an LSTM out, which fixes how many there are.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class OnnxLSTM(nn.Module):
    """What an `nn.LSTM` is in an exported graph; it cannot be run, only translated.

    Args:
        lstm: the layer, in batches first, without projections.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.hidden, self.layers = lstm.hidden_size, lstm.num_layers
        self.ways = 2 if lstm.bidirectional else 1
        # What a network's own `forward` may ask of its layer.
        self.input_size, self.hidden_size = lstm.input_size, lstm.hidden_size
        self.num_layers, self.bidirectional = lstm.num_layers, lstm.bidirectional
        self.batch_first, self.proj_size, self.dropout = True, 0, lstm.dropout
        for layer in range(self.layers):
            ends = ["", "_reverse"][: self.ways]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                parts = [
                    _reordered(getattr(lstm, f"{name}_l{layer}{end}", None), self.hidden)
                    for end in ends
                ]
                self.register_buffer(f"{name}_{layer}", torch.stack(parts))

    def flatten_parameters(self) -> None:
        """Nothing to be done here."""

    def forward(
        self,
        rows: Float[Tensor, " batch steps inputs"],
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States `[batch, steps, ways * hidden]`, and the last ones as `nn.LSTM` gives them.

        Args:
            rows: what it takes.
            hx: states and memories to begin with, `[ways * layers, batch, hidden]`; zeros.
        """
        states = rows.transpose(0, 1)
        ends: list[Tensor] = []
        memories: list[Tensor] = []
        for layer in range(self.layers):
            steps, batch = states.shape[0], states.shape[1]
            last = (self.ways, batch, self.hidden)
            weight, recurrent, first, second = (
                cast(Tensor, getattr(self, f"{name}_{layer}"))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            inputs: list[Tensor | None] = [
                states, weight, recurrent, torch.cat([first, second], dim=1),
            ]  # fmt: skip
            if hx is not None:
                own = slice(layer * self.ways, (layer + 1) * self.ways)
                inputs += [None, hx[0][own], hx[1][own]]
            states, end, memory = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                inputs,
                {
                    "hidden_size": self.hidden,
                    "direction": "bidirectional" if self.ways == 2 else "forward",
                },
                dtypes=(torch.float32,) * 3,
                shapes=((steps, self.ways, batch, self.hidden), last, last),
            )
            states = states.transpose(1, 2).reshape(steps, batch, self.ways * self.hidden)
            ends.append(end)
            memories.append(memory)
        return states.transpose(0, 1), (torch.cat(ends), torch.cat(memories))


def with_operators(module: nn.Module) -> nn.Module:
    """The module, changed in place: every LSTM that ONNX has an operator for is that operator."""
    for path, part in list(module.named_modules()):
        # What computes more than an LSTM is left to PyTorch's exporter.
        plain = isinstance(part, nn.LSTM) and type(part).forward is nn.LSTM.forward
        if plain and part.batch_first and not part.proj_size and path:
            parent, _, name = path.rpartition(".")
            setattr(module.get_submodule(parent), name, OnnxLSTM(part))
    return module


def _reordered(weights: Tensor | None, hidden: int) -> Tensor:
    """From PyTorch's order of gates (input, forget, cell, output) to that of ONNX."""
    if weights is None:  # without bias
        return torch.zeros(4 * hidden)
    start, forget, cell, output = torch.split(weights.detach(), hidden)
    return torch.cat([start, output, forget, cell])
