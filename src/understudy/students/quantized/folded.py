"""Which tensor of a network goes where, as far as rounding needs to know it; normalisation folded.

The runtime folds a batch normalisation into the layer before it and drops a ReLU behind a rounded
layer, as the unsigned range does its work. A network that is trained for eight bits has to round
at the same places. What its `forward` does is watched while it answers some rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.overrides import TorchFunctionMode

from understudy.students.blocks.sums import tensors_in

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_RECTIFIERS: frozenset[Any] = frozenset(
    {F.relu, F.relu6, F.hardtanh, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
    | {torch.clamp, Tensor.clamp, Tensor.clamp_, F.relu_, F.hardtanh_}
)
_SUMS_STAY_FLOAT: frozenset[Any] = frozenset(
    {F.layer_norm, F.rms_norm, torch.layer_norm, F.scaled_dot_product_attention, F.softmax}
    | {torch.softmax, Tensor.softmax, torch.rsqrt, Tensor.rsqrt}
)


@dataclass(kw_only=True, slots=True)
class Watched:
    """What was seen of a network while it answered.

    Attributes:
        calls: how often each module was called, by its identity.
        users: what took each layer's output, in order, by the layer's identity.
        norm_after: the normalisation that took a layer's output, by the layer's identity.
        normed_axes: how many axes that output has, likewise.
        fixed: modules that took something else than one item per row, by their identity, such as a
            table of positions; the exporter looks these up beforehand.
        float_sums: whether the network normalises its rows or attends, so that the deployed form
            keeps sums in float.
    """

    calls: dict[int, int] = field(default_factory=dict)
    users: dict[int, list[Callable[..., Any]]] = field(default_factory=dict)
    norm_after: dict[int, nn.Module] = field(default_factory=dict)
    normed_axes: dict[int, int] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    float_sums: bool = False


class _Watch(TorchFunctionMode):
    def __init__(self, seen: Watched) -> None:
        super().__init__()
        self.seen = seen
        self.made: dict[int, int] = {}
        self.held: list[Tensor] = []  # an identity may not be given to another tensor meanwhile

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        self.seen.float_sums |= func in _SUMS_STAY_FLOAT
        if not any(True for _ in tensors_in([answer])):  # it asked for a shape or the like
            return answer
        for value in tensors_in([*args, *(kwargs or {}).values()]):
            layer = self.made.get(id(value))
            if layer is not None:
                self.seen.users[layer].append(func)
                if answer is value:  # in place: from here on it is another tensor
                    del self.made[id(value)]
        return answer

    def layer_done(self, layer: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.made[id(output)] = id(layer)
            self.held.append(output)
            self.seen.users.setdefault(id(layer), [])

    def norm_begins(self, norm: nn.Module, inputs: Any) -> None:
        layer = self.made.get(id(inputs[0])) if inputs else None
        if layer is not None:
            self.seen.norm_after[layer] = norm
            self.seen.normed_axes[layer] = inputs[0].ndim


def watch(network: nn.Module, rows: Tensor) -> Watched:
    """Let a network in evaluation mode answer, and note where its layers' outputs go."""
    seen = Watched()
    mode = _Watch(seen)

    def count(module: nn.Module, inputs: Any) -> None:
        seen.calls[id(module)] = seen.calls.get(id(module), 0) + 1
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].shape[:1] != rows.shape[:1]:
            seen.fixed.add(id(module))

    hooks = []
    for module in network.modules():
        hooks.append(module.register_forward_pre_hook(count))
        if isinstance(module, LAYERS):
            hooks.append(module.register_forward_hook(mode.layer_done))
        if isinstance(module, _NORMS):
            hooks.append(module.register_forward_pre_hook(mode.norm_begins))
    try:
        with torch.no_grad(), mode:
            network(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def foldable(network: nn.Module, seen: Watched) -> dict[str, str]:
    """The paths of layers that are directly followed by a batch normalisation, and its path.

    Layers or normalisations that are used more than once are left out, as are classes made from
    PyTorch's own, which may do more than these (an activation, say), and the normalisation of a
    linear layer's tokens.
    """
    paths = {id(module): path for path, module in network.named_modules()}
    return {
        path: paths[id(seen.norm_after[id(layer)])]
        for path, layer in network.named_modules()
        if _once(layer, seen.norm_after.get(id(layer)), seen)
    }


def fold_norms(network: nn.Module, pairs: Mapping[str, str]) -> None:
    """Fold the normalisations of `foldable` into their layers, in place.

    An `nn.Identity` takes each one's place, so that all paths stay.
    """
    for path, behind in pairs.items():
        norm = network.get_submodule(behind)
        _fold(network.get_submodule(path), norm)
        for parent in list(network.modules()):  # it may be known under several names
            for name in [name for name, child in parent._modules.items() if child is norm]:
                setattr(parent, name, nn.Identity().train(norm.training))


def rounds_output(layer: nn.Module, seen: Watched) -> bool:
    """Whether the deployed form rounds the layer's output by itself.

    A convolution's output is always rounded: where a ReLU follows, after that, which is the input
    of the next layer. A linear layer's is where something in eight bits follows.
    """
    users = seen.users.get(id(layer), [])
    if isinstance(layer, nn.Linear) and seen.float_sums:
        return False
    return any(func not in _RECTIFIERS for func in users)


@contextmanager
def as_found(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; the modes and the random state are put back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes:
            module.training = training


def _once(layer: nn.Module, norm: nn.Module | None, seen: Watched) -> bool:
    if norm is None or type(norm) not in _NORMS or type(layer) not in LAYERS:
        return False
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    # Behind a linear layer the second of three axes holds tokens, not what the layer gives.
    if isinstance(layer, nn.Linear) and seen.normed_axes[id(layer)] != 2:
        return False
    once = seen.calls.get(id(layer)) == 1 and seen.calls.get(id(norm)) == 1
    tracked = norm.running_mean is not None and norm.running_var is not None
    return once and tracked and len(seen.users.get(id(layer), [])) == 1


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    assert isinstance(layer, LAYERS)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    learns = layer.weight.requires_grad
    scale, shift = norm.weight, norm.bias
    weight, bias = fuse(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        torch.ones_like(norm.running_mean) if scale is None else scale,
        torch.zeros_like(norm.running_mean) if shift is None else shift,
    )
    layer.weight = nn.Parameter(weight.detach(), requires_grad=learns)
    layer.bias = nn.Parameter(bias.detach(), requires_grad=learns)
