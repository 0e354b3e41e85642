"""Taking blocks out of a network: its containers, their numbers, and what configurations count."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

# How Hugging Face and PyTorch write down how many layers there are.
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
_DECODER_COUNTS = ("decoder_layers", "num_decoder_layers")
# What a configuration lists layer by layer.
_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "block_types")
# How a layer writes down its own place, by which a cache of keys and values is addressed.
_PLACES = ("layer_idx", "layer_index", "layer_id", "block_idx")
# What in a sequence belongs to the single layer before it.
_FOLLOWING = ("activation", "dropout", "batchnorm", "normalization", "instancenorm")
_RESHAPING = (nn.GLU, nn.MultiheadAttention)


class Pass(nn.Module):
    """Stands where a block was, and gives what it is given.

    Or zeros of that shape, where the code around adds to the input what the block gives.

    Args:
        items: how many items the block's tuple had, 0 where it gave a bare tensor; the items
            behind the first become None.
        takes: the names of the block's arguments, as `taken` tells them.
        outer: whether the code around adds.
    """

    def __init__(self, *, items: int = 0, takes: Sequence[str] = (), outer: bool = False) -> None:
        super().__init__()
        self.items, self.outer = items, outer
        self.declares = tuple(takes)

    def forward(self, *args: Any, **settings: Any) -> Any:
        """The first argument or zeros, in the block's own form."""
        stream = args[0] if args else first_tensor(declared(self, settings))
        if self.outer and stream is not None:
            stream = torch.zeros_like(stream)
        if not self.items:
            return stream
        return (stream, *(None for _ in range(self.items - 1)))


def taken(module: nn.Module) -> tuple[str, ...]:
    """The names of the arguments that a module's `forward` declares, in order.

    What stands where another module was has that one's names, in `declares`.
    """
    names = vars(module).get("declares")
    if isinstance(names, tuple):
        return names
    try:
        return tuple(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):  # compiled, or written in another language
        return ()


def declared(module: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Named arguments in the order in which the module declares them, not in that of the call.

    So the first tensor is the stream, also where a caller names a mask before it.
    """
    order = {name: place for place, name in enumerate(taken(module))}
    return dict(sorted(settings.items(), key=lambda item: order.get(item[0], len(order))))


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in what a module takes or gives; None where there is none."""
    if isinstance(value, Tensor):
        return value
    items: Sequence[Any] = ()
    if isinstance(value, Mapping):
        items = tuple(value.values())
    elif isinstance(value, (tuple, list)):
        items = value
    return next((item for item in items if isinstance(item, Tensor)), None)


def with_first(value: Any, tensor: Tensor) -> Any:
    """What a module gives, with another first tensor and the rest as it is."""
    if isinstance(value, Tensor):
        return tensor
    if isinstance(value, Mapping):
        changed: Any = copy(value)
        name = next(name for name, item in value.items() if isinstance(item, Tensor))
        changed[name] = tensor
        return changed
    place = next(i for i, item in enumerate(value) if isinstance(item, Tensor))
    items = [*value[:place], tensor, *value[place + 1 :]]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def parent_of(path: str) -> str:
    """The path of the module that a module stands in."""
    return path.rpartition(".")[0]


def members(network: nn.Module, path: str) -> list[str]:
    """A block's own path, and those of what goes with it.

    In a sequence, a single layer takes the normalisation, activation and dropout behind it along.
    """
    parent = network.get_submodule(parent_of(path))
    found = [path]
    if not isinstance(parent, nn.Sequential) or any(network.get_submodule(path).children()):
        return found
    names = list(parent._modules)
    prefix = path[: len(path) - len(path.rpartition(".")[2])]
    for name in names[names.index(path.removeprefix(prefix)) + 1 :]:
        module = parent.get_submodule(name)
        room = type(module).__module__
        known = room.startswith("torch.nn.modules.") and room.rpartition(".")[2] in _FOLLOWING
        if not known or isinstance(module, _RESHAPING):
            break
        found.append(prefix + name)
    return found


def remove(
    network: nn.Module,
    drop: Sequence[str],
    *,
    chain: Sequence[str],
    items: Mapping[str, int],
    outer: Collection[str] = (),
) -> dict[str, str]:
    """Take blocks out of a network, in place.

    A list, sequence or dictionary of modules becomes shorter, and is numbered from 0 again. A
    block that is an attribute leaves a `Pass` behind. Configurations, counts and the layers' own
    places are brought into line.

    Args:
        network: it is changed; copy it first.
        drop: paths of blocks of the chain.
        chain: paths of all its blocks, in order.
        items: how many items the tuple of a dropped block has, where it gives one.
        outer: the blocks whose answer the code around adds to their input.

    Returns:
        The kept blocks' new paths to their old ones, in order.
    """
    before = {parent: _inside(parent, chain) for parent in dict.fromkeys(map(parent_of, chain))}
    renamed: dict[str, str] = {}
    for parent, blocks in before.items():
        gone = [path for path in blocks if path in set(drop)]
        names = _take_out(network, parent, gone, items, outer) if gone else {}
        renamed |= {path: names.get(path, path) for path in blocks if path not in gone}
        if gone:
            _count(network, parent, blocks, gone)
    _count_stages(network, [len(blocks) for blocks in before.values()], before, set(drop))
    return {renamed[path]: path for path in chain if path in renamed}


def _inside(parent: str, chain: Sequence[str]) -> list[str]:
    return [path for path in chain if parent_of(path) == parent]


def _take_out(
    network: nn.Module,
    parent: str,
    gone: Sequence[str],
    items: Mapping[str, int],
    outer: Collection[str],
) -> dict[str, str]:
    """Old paths to new ones, of everything that stays in a container."""
    container = network.get_submodule(parent)
    if not isinstance(container, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        for path in gone:
            block = network.get_submodule(path)
            passing = Pass(items=items.get(path, 0), takes=taken(block), outer=path in outer)
            setattr(container, path.rpartition(".")[2], passing)
        return {}
    renamed = renumbered(network, parent, gone)
    kept = {new: network.get_submodule(old) for old, new in renamed.items()}
    container._modules.clear()
    for new, module in kept.items():
        container._modules[new.rpartition(".")[2]] = module
    return renamed


def renumbered(network: nn.Module, parent: str, gone: Sequence[str]) -> dict[str, str]:
    """Old paths to new ones, in order, of what stays in a container without the blocks `gone`."""
    container = network.get_submodule(parent)
    left_out = {name.rpartition(".")[2] for path in gone for name in members(network, path)}
    kept = [name for name in container._modules if name not in left_out]
    numbered = not isinstance(container, nn.ModuleDict) and all(n.isdigit() for n in kept)
    prefix = f"{parent}." if parent else ""
    return {
        f"{prefix}{name}": f"{prefix}{place if numbered else name}"
        for place, name in enumerate(kept)
    }


def moved(
    before: nn.Module, after: nn.Module, chain: Sequence[str], provenance: Mapping[str, str]
) -> dict[str, str]:
    """New paths to old ones of what stood behind dropped blocks, and got other numbers."""
    kept = set(provenance.values())
    found: dict[str, str] = {}
    for parent in dict.fromkeys(map(parent_of, chain)) if kept else ():
        gone = [path for path in chain if parent_of(path) == parent and path not in kept]
        renamed = renumbered(before, parent, gone) if gone else {}
        # Of a block that was an attribute something stays behind, under the old names.
        if renamed and [*renamed.values()] == _children(after, parent):
            found |= {new: old for old, new in renamed.items()}
    return found


def _children(network: nn.Module, path: str) -> list[str]:
    try:
        return [f"{path}.{name}" if path else name for name in network.get_submodule(path)._modules]
    except AttributeError:
        return []


def _count(network: nn.Module, parent: str, blocks: Sequence[str], gone: Sequence[str]) -> None:
    kept = [place for place, path in enumerate(blocks) if path not in set(gone)]
    old, new = len(blocks), len(kept)
    above = list(_above(network, parent))
    for module in above[-2:]:
        _recount(module, vars(module), _COUNTS, old, new)
    for config in _configs(above):
        both = bool(getattr(config, "is_encoder_decoder", False))
        names = _DECODER_COUNTS if both and "decoder" in parent else _COUNTS
        if isinstance(getattr(config, "depths", None), (list, tuple)):
            continue  # of stages: whatever it counts are not these blocks
        _recount(config, None, names, old, new)
        _restage(config, kept, old)
        for name in _LISTS:
            # Not what the class lists for all its configurations, as the kinds that there are.
            value = _own(config).get(name)
            if isinstance(value, (list, tuple)) and len(value) == old:
                write_attribute(config, name, type(value)(value[place] for place in kept))
    container = network.get_submodule(parent)
    if isinstance(container, (nn.Sequential, nn.ModuleList)) and len(container) == new:
        for place, (was, block) in enumerate(zip(kept, container, strict=True)):
            _renumber(block, was, place)


def _restage(config: Any, kept: Sequence[int], old: int) -> None:
    """What a backbone calls its blocks and which it gives; for one that is gone the one before."""
    stages = _own(config).get("stage_names")
    if stages != ["stem", *(f"stage{place + 1}" for place in range(old))]:
        return
    config.stage_names = stages[: len(kept) + 1]
    given = _own(config).get("_out_indices")
    if given is not None:
        places = [place if place >= 0 else old + 1 + place for place in given]
        left = [sum(block < place for block in kept) for place in places]
        config._out_indices = sorted(set(left))
        if _own(config).get("_out_features") is not None:
            config._out_features = [config.stage_names[place] for place in config._out_indices]


def _recount(
    holder: Any, own: Mapping[str, Any] | None, names: Sequence[str], old: int, new: int
) -> None:
    for name in names:
        value = getattr(holder, name, None) if own is None else own.get(name)
        if type(value) is int and value == old:
            write_attribute(holder, name, new)


def _renumber(block: nn.Module, was: int, place: int) -> None:
    for module in block.modules():
        for name in _PLACES:
            if type(vars(module).get(name)) is int and vars(module)[name] == was:
                setattr(module, name, place)


def _count_stages(
    network: nn.Module, old: list[int], before: Mapping[str, Sequence[str]], drop: set[str]
) -> None:
    new = [sum(path not in drop for path in blocks) for blocks in before.values()]
    for config in _configs(list(_above(network, next(iter(before), "")))):
        value = getattr(config, "depths", None)
        if isinstance(value, (list, tuple)) and list(value) == old:
            write_attribute(config, "depths", type(value)(new))


def _above(network: nn.Module, path: str) -> Iterator[nn.Module]:
    """The network, and every module on the way down to `path`."""
    yield network
    parts = path.split(".") if path else []
    for end in range(1, len(parts) + 1):
        yield network.get_submodule(".".join(parts[:end]))


def _configs(modules: Sequence[nn.Module]) -> list[Any]:
    found = [vars(module).get("config") for module in modules]
    # A class is the teacher's too: whatever was written into it, the teacher would read.
    usable = [config for config in found if config is not None and not isinstance(config, type)]
    return list({id(config): config for config in usable}.values())


def _own(config: Any) -> Mapping[str, Any]:
    """The attributes that a configuration has of its own; a dictionary or a text has none."""
    found: Mapping[str, Any] = getattr(config, "__dict__", {})
    return found


def write_attribute(holder: Any, name: str, value: Any) -> None:
    """Set an attribute, also of what calls itself frozen: it is the student's own copy."""
    try:
        setattr(holder, name, value)
    except (AttributeError, TypeError, ValueError):
        with suppress(AttributeError, TypeError):  # a property or a named tuple stays as it is
            object.__setattr__(holder, name, value)
