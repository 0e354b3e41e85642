"""Batch norms become part of the layer before them, which in evaluation mode they are a part of."""

from collections import Counter
from typing import Final

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PAIRS: Final = frozenset(
    {
        (nn.Conv1d, nn.BatchNorm1d),
        (nn.Conv2d, nn.BatchNorm2d),
        (nn.Conv3d, nn.BatchNorm3d),
        (nn.Linear, nn.BatchNorm1d),
    }
)


def fold(network: nn.Module) -> tuple[nn.Module, int]:
    """The network with its batch norms folded, and how many were.

    With `y = (W x + b - mean) / sqrt(var + eps) * scale + shift`, the constants of the norm go
    into new `W` and `b`, and a pass over the maps is saved. Folded is a norm that alone reads a
    convolution or linear layer, where both are called once.

    Args:
        network: in evaluation mode; it shares its other layers with what is returned.

    Raises:
        Exception: whatever its forward does when it is traced, as one with branches on values.
    """
    traced = fx.symbolic_trace(network)
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    count = 0
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.args else None
        if not _folds(node, before, modules, calls):
            continue
        assert isinstance(before, fx.Node)
        layer, norm = modules[str(before.target)], modules[str(node.target)]
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        traced.set_submodule(str(before.target), fuse(layer, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        count += 1
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, count


def _folds(
    norm: fx.Node, layer: object, modules: dict[str, nn.Module], calls: Counter[object]
) -> bool:
    if not isinstance(layer, fx.Node) or len(layer.users) != 1:
        return False
    if any(one.op != "call_module" or calls[one.target] != 1 for one in (layer, norm)):
        return False
    # The very classes: what is derived from them may compute something else.
    one, other = modules[str(layer.target)], modules[str(norm.target)]
    return (type(one), type(other)) in _PAIRS and bool(other.track_running_stats)
