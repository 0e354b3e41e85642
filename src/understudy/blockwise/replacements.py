"""New modules that stand for parts of a block, each started from the weights that it replaces."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError

_CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


def separated(layer: nn.Module) -> nn.Sequential | None:
    """A depthwise and a pointwise convolution in the place of a full one.

    For every channel that comes in, the kernels to all channels that go out are brought to rank
    one: one kernel, and one weight per channel that goes out. No such pair is nearer to the
    layer's weights in the sum of squares.

    Returns:
        None where the layer is no plain convolution, or the pair has no fewer weights.

    Paper:
        Howard et al. 2017, "MobileNets", section 3.1, for the layer; Eckart and Young 1936, "The
        Approximation of One Matrix by Another of Lower Rank", for the optimum.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <...>
        >>> pair = separated(nn.Conv2d(8, 8, 3, padding=1))
        >>> [list(one.weight.shape) for one in pair]
        [[8, 1, 3, 3], [8, 8, 1, 1]]
    """
    if not _plain(layer):
        return None
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    outputs, inputs, size = *layer.weight.shape[:2], layer.weight[0, 0].numel()
    if inputs * (size + outputs) >= outputs * inputs * size:
        return None
    kind: Any = type(layer)
    deep = kind(
        inputs, inputs, layer.kernel_size, stride=layer.stride, padding=layer.padding,
        dilation=layer.dilation, groups=inputs, bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip
    point = kind(inputs, outputs, 1, bias=layer.bias is not None)
    # In the layer's own precision before the weights come.
    made = nn.Sequential(deep, point).to(layer.weight)
    per_channel = layer.weight.detach().double().flatten(2).transpose(0, 1)
    left, strength, right = torch.linalg.svd(per_channel, full_matrices=False)
    first = right[:, 0]
    # The sign of a singular vector is chance, and machines differ.
    sign = torch.sign(first.gather(1, first.abs().argmax(dim=1, keepdim=True)))
    root = strength[:, :1].sqrt() * sign
    with torch.no_grad():
        deep.weight.copy_((first * root).reshape(deep.weight.shape))
        point.weight.copy_((left[:, :, 0] * root).T.reshape(point.weight.shape))
        if layer.bias is not None:
            point.bias.copy_(layer.bias)
    return made


def grouped(layer: nn.Module, groups: int) -> nn.Module | None:
    """A convolution in groups in the place of a full one, with the weights inside the groups.

    Returns:
        None where the layer is no plain convolution, or its channels do not divide.
    """
    if not _plain(layer):
        return None
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    outputs, inputs = layer.weight.shape[:2]
    if groups < 2 or inputs % groups or outputs % groups:
        return None
    kind: Any = type(layer)
    made: nn.Module = kind(
        inputs, outputs, layer.kernel_size, stride=layer.stride, padding=layer.padding,
        dilation=layer.dilation, groups=groups, bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )  # fmt: skip
    size = layer.weight.shape[2:]
    split = layer.weight.detach().reshape(groups, -1, groups, inputs // groups, *size)
    inside = torch.cat([split[number, :, number] for number in range(groups)])
    made.to(layer.weight).load_state_dict({**layer.state_dict(), "weight": inside})
    return made


def _plain(layer: nn.Module) -> bool:
    dims = _CONVOLUTIONS.get(type(layer))
    if dims is None:
        return False
    size, groups = layer.kernel_size, layer.groups
    return bool(groups == 1 and max(size) > 1)  # type: ignore


class SlimRecurrent(nn.Module):
    """An LSTM, GRU or plain recurrent layer with fewer hidden units, and a projection behind it.

    Called and answering as `layer` does, final states included, which are projected too. It starts
    from the units whose weights are largest; the projection puts them back in their places.

    Args:
        layer: `nn.LSTM`, `nn.GRU` or `nn.RNN`.
        hidden: units of the new layer, fewer than the old one has.

    Raises:
        ModelError: the layer projects already, or `hidden` is not smaller.
    """

    def __init__(self, layer: nn.RNNBase, *, hidden: int) -> None:
        super().__init__()
        if layer.proj_size or not 1 <= hidden < layer.hidden_size:
            raise ModelError(
                "a recurrent layer without a projection, and `1 <= hidden < hidden_size`, must "
                f"be given, but got proj_size={layer.proj_size}, {hidden=} and "
                f"hidden_size={layer.hidden_size}"
            )
        kind: Any = type(layer)
        more = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
        self.inner = kind(
            layer.input_size, hidden, layer.num_layers, bias=layer.bias,
            batch_first=layer.batch_first, dropout=layer.dropout,
            bidirectional=layer.bidirectional, **more,
        )  # fmt: skip
        self.out = nn.Linear(hidden, layer.hidden_size, bias=False)
        self.batch_first = layer.batch_first
        self.directions = 2 if layer.bidirectional else 1
        self.to(next(layer.parameters()))
        self._start(layer, hidden)

    def forward(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The layer's answer and its final state.

        Raises:
            ModelError: a start state is given: it would have the units of the old layer.
        """
        if state is not None:
            raise ModelError("a narrower recurrent layer cannot take a start state of the old one")
        made, last = self.inner(inputs)
        wide = self.out(made.reshape(*made.shape[:2], self.directions, -1)).flatten(-2)
        if isinstance(last, tuple):
            return wide, tuple(self.out(one) for one in last)
        return wide, self.out(last)

    def _start(self, layer: nn.RNNBase, hidden: int) -> None:
        before = layer.hidden_size
        old = {name: value.detach() for name, value in layer.named_parameters()}
        score = torch.zeros(before)
        for value in old.values():
            if value.ndim == 2:
                score += (
                    value.square().reshape(-1, before, value.shape[1]).sum(dim=(0, 2)).float().cpu()
                )
        kept = score.argsort(descending=True, stable=True)[:hidden].sort().values
        with torch.no_grad():
            for name, value in self.inner.named_parameters():
                picked = old[name].reshape(-1, before, *old[name].shape[1:])[:, kept].flatten(0, 1)
                recurrent = name.startswith("weight_hh")
                if recurrent or (name.startswith("weight_ih") and not _is_first(name)):
                    picked = picked.reshape(len(picked), -1, before)[:, :, kept].flatten(1)
                value.copy_(picked)
            self.out.weight.zero_()
            self.out.weight[kept, torch.arange(hidden)] = 1.0


def _is_first(name: str) -> bool:
    return name.removesuffix("_reverse").endswith("_l0")


class Shared(nn.Module):
    """The weights of a neighbouring block, with a scale and a shift of its own per feature.

    The neighbour's weights are held still: `tie` puts the neighbour itself in their place when
    both are in one network, so that they are there once.

    Args:
        neighbour: a block that takes and gives the same shapes; it is copied.
        features: how many the answer has.
        axis: of the features in `[rows, ...]`.
    """

    def __init__(self, neighbour: nn.Module, *, features: int, axis: int) -> None:
        super().__init__()
        self.neighbour = copy.deepcopy(neighbour).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.axis = axis

    def forward(self, stream: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the neighbour makes of the stream, scaled and shifted."""
        made = self.neighbour(stream, *args, **kwargs)
        shape = [-1 if axis == self.axis else 1 for axis in range(1, made.ndim)]
        answer: Tensor = made * self.scale.reshape(shape) + self.shift.reshape(shape)
        return answer

    def tie(self, neighbour: nn.Module) -> None:
        """Use this very module from now on."""
        self.neighbour = neighbour
