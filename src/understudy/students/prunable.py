"""Which weights of a network may be pruned one by one: what its layers multiply their inputs with.

Biases, normalisations, embeddings, and what stands first and last in a network are left whole: they
are few numbers, and the network suffers most from losing them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from understudy.errors import ModelError

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TURNED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One weight tensor that can be pruned.

    Attributes:
        name: of the parameter, in the network.
        layer: the path of its layer.
        inputs: which of its axes runs over the layer's inputs.
        width: how many there are along it.
    """

    name: str
    layer: str
    inputs: int
    width: int


def prunable(
    network: nn.Module, *, layers: Sequence[str] = (), group: int = 1
) -> tuple[Weight, ...]:
    """The weights of linear layers, convolutions and attention that can be pruned.

    Args:
        network: the user's own.
        layers: patterns of paths; none: all layers but the first and the last, in the order in
            which the network lists them. An embedding counts as the first.
        group: how many consecutive inputs make a group. A layer whose inputs do not divide into
            groups is left whole, unless it was named.

    Raises:
        ModelError: nothing is left, a pattern names no layer, or a named one does not divide.
    """
    found = _all(network)
    chosen = _named(found, layers) if layers else _middle(network, found)
    odd = [weight for weight in chosen if weight.width % group]
    if odd and layers:
        raise ModelError(
            f"groups of {group} inputs must divide a layer, but `{odd[0].layer}` has "
            f"{odd[0].width}: leave it out of `layers`, or choose another pattern"
        )
    whole = tuple(weight for weight in chosen if weight.width % group == 0)
    if not whole:
        why = f" with inputs in groups of {group}" if odd else ""
        raise ModelError(
            f"{type(network).__name__} has no layer{why} between its first and its last whose "
            f"weights could be pruned ({len(found)} in all): name some in `layers`"
        )
    return whole


def _all(network: nn.Module) -> list[Weight]:
    """Every weight that is multiplied with inputs, first to last; a shared one once."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, _TABLES)}
    found: list[Weight] = []
    seen: set[int] = set(tables)
    for path, module in network.named_modules():
        for attribute, axis in _weights(module):
            parameter = getattr(module, attribute)
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            name = f"{path}.{attribute}" if path else attribute
            found.append(
                Weight(name=name, layer=path, inputs=axis, width=int(parameter.shape[axis]))
            )
    return found


def _weights(module: nn.Module) -> list[tuple[str, int]]:
    """Which parameters of a layer are its weights, and the axis of its inputs."""
    if isinstance(module, _LAYERS):
        axis = 1
    elif isinstance(module, _TURNED) or _is_gpt_layer(module):
        axis = 0
    elif isinstance(module, nn.MultiheadAttention):
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [(n, 1) for n in names if isinstance(getattr(module, n, None), nn.Parameter)]
    else:
        return []
    return [("weight", axis)] if isinstance(module.weight, nn.Parameter) else []


def _is_gpt_layer(module: nn.Module) -> bool:
    """Hugging Face's linear layer with its weight turned, known by what it has."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def _named(found: Sequence[Weight], layers: Sequence[str]) -> list[Weight]:
    for pattern in layers:
        if not any(fnmatchcase(weight.layer, pattern) for weight in found):
            near = ", ".join(f"`{weight.layer}`" for weight in found[:8])
            raise ModelError(
                f"every pattern of `layers` must name a layer with weights, but `{pattern}` names "
                f"none: there are {near}{', ...' if len(found) > 8 else ''}"
            )
    return [w for w in found if any(fnmatchcase(w.layer, pattern) for pattern in layers)]


def _middle(network: nn.Module, found: Sequence[Weight]) -> list[Weight]:
    """All but the first and the last layer."""
    paths = [
        path
        for path, module in network.named_modules()
        if isinstance(module, _TABLES) or _weights(module)
    ]
    ends = {paths[0], paths[-1]} if paths else set()
    return [weight for weight in found if weight.layer not in ends]
