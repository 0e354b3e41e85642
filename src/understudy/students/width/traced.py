"""The channels of any other network, found by Torch-Pruning's dependency graph."""

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import MissingExtraError, ModelError
from understudy.models.resnet import PaddedShortcut
from understudy.students.width.answers import answer, other_answers
from understudy.students.width.criteria import Part, Side, Site, axes
from understudy.students.width.plan import Whole, channels_of, groups_of, is_depthwise
from understudy.students.width.transformers import is_within, sharing_layers

# How often Torch-Pruning may visit each node of a network, on average, for one layer.
_ROUNDS = 20
_STEPS = 1_000


class _Joined:
    """Which channels of which layers stand or fall together: sets that only grow."""

    def __init__(self) -> None:
        self.above: dict[tuple[str, Side, int], tuple[str, Side, int]] = {}

    def top(self, atom: tuple[str, Side, int]) -> tuple[str, Side, int]:
        self.above.setdefault(atom, atom)
        while self.above[atom] != atom:
            self.above[atom] = self.above[self.above[atom]]
            atom = self.above[atom]
        return atom

    def join(self, one: tuple[str, Side, int], other: tuple[str, Side, int]) -> None:
        self.above[self.top(one)] = self.top(other)


def traced_sites(
    network: nn.Module, rows: Tensor, protect: Sequence[str], protect_ends: bool
) -> tuple[list[Site], Whole]:
    """Sites of a network without attention, and what stays whole.

    Raises:
        MissingExtraError: Torch-Pruning is not installed.
        ModelError: it cannot follow the network.
    """
    joined = _Joined()
    blocked: dict[tuple[str, Side, int], str] = {}
    model = copy.deepcopy(network).eval().requires_grad_(True)
    first, inputs = _watched(model, rows)
    if first is not None and protect_ends:
        size = channels_of(network.get_submodule(first), "out")
        blocked |= {(first, "out", c): "as the first layer" for c in range(size)}
    for path, before in inputs.items():
        # A pad puts each channel where it was: the graph sees a layer, and this says the rest.
        _stand_in(model, path, before)
        for channel in range(before):
            joined.join((path, "in", channel), (path, "out", channel))
    shared = sharing_layers(network)
    for root, items in _groups_of(model, rows):
        for name, side, channels, roots in items:
            reason = _obstacle(network, name, side, protect, shared)
            if reason is None and _beyond(network, name, side, channels):
                reason = "as Torch-Pruning cannot follow its channels"
            for channel, of in zip(channels, roots, strict=True):
                own: tuple[str, Side, int] = (root, "out", of)
                if reason is not None:
                    blocked[own] = reason
                else:
                    joined.join((name, side, channel), own)
    return _as_sites(network, joined, blocked)


def _watched(model: nn.Module, rows: Tensor) -> tuple[str | None, dict[str, int]]:
    """The first layer with channels that runs, and how many channels every padded shortcut takes.

    Raises:
        ModelError: a padded shortcut takes fewer channels than it got.
    """
    order: list[str] = []
    inputs: dict[str, int] = {}

    def watch(path: str) -> Any:
        def seen(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            del result
            if isinstance(module, PaddedShortcut):
                inputs[path] = int(given[0].shape[1])
            else:
                order.append(path)

        return seen

    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, PaddedShortcut)
    hooks = [
        module.register_forward_hook(watch(path))
        for path, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model(rows[:2])
    for hook in hooks:
        hook.remove()
    return (order[0] if order else None), inputs


def _stand_in(model: nn.Module, path: str, before: int) -> None:
    pad = model.get_submodule(path)
    assert isinstance(pad, PaddedShortcut)
    layer = nn.Conv2d(before, before + pad.extra, kernel_size=1, stride=pad.stride, bias=False)
    some = next(model.parameters())
    model.set_submodule(path, layer.to(some.device, some.dtype))


def _groups_of(
    model: nn.Module, rows: Tensor
) -> Iterator[tuple[str, list[tuple[str, Side, list[int], list[int]]]]]:
    """Torch-Pruning's groups: a giving layer, and every (layer, side) coupled to it.

    Raises:
        MissingExtraError: Torch-Pruning is not installed.
        ModelError: it cannot follow the network.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError("torch-pruning", "prune") from error
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(
                model, rows[:2], forward_fn=lambda m, x: _followed(m(x)), verbose=False
            )
    except Exception as error:  # whatever tracing met
        raise ModelError(
            f"Torch-Pruning cannot follow {type(model).__name__}: "
            f"{type(error).__name__}: {error}. Cut its depth, or give a student of its own"
        ) from error
    names = {id(module): path for path, module in model.named_modules()}
    steps = _bounded(graph.module2node.values())
    for module in list(graph.module2node):
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)):
            continue
        pruner = graph.get_pruner_of_module(module)
        size = pruner.get_out_channels(module)
        steps.clear()
        group = graph.get_pruning_group(module, pruner.prune_out_channels, list(range(size)))
        items: list[tuple[str, Side, list[int], list[int]]] = []
        for item in group:
            target = item.dep.target.module
            # A step between layers holds nothing itself, nor does a slope that all channels share;
            # the answer and a bare parameter do.
            inner = isinstance(target, nn.Module) and id(target) not in names
            if inner and type(target).__name__ != "_OutputOp":
                continue
            if isinstance(target, nn.PReLU) and target.num_parameters == 1:
                continue
            path = names.get(id(target), "" if inner else "a parameter")
            given = _one_sided(target) or graph.is_out_channel_pruning_fn(item.dep.handler)
            items.append((path, "out" if given else "in", list(item.idxs), list(item.root_idxs)))
        yield names[id(module)], items


def _followed(outputs: Any) -> list[Tensor]:
    """The tensors of an answer that came from weights."""
    made = [answer(outputs), *other_answers(outputs)]
    return [tensor for tensor in made if tensor.grad_fn is not None] or made


class _Bounded(list[Any]):
    """Where a node leads to; asking this too often is refused."""

    def __init__(self, items: Iterable[Any], steps: list[None], most: int) -> None:
        super().__init__(items)
        self._steps, self._most = steps, most

    def __iter__(self) -> Iterator[Any]:
        self._steps.append(None)
        if len(self._steps) > self._most:
            raise ModelError(
                "Torch-Pruning cannot follow this network: it comes back to the same layers with "
                "ever other channels. Cut its depth, or give a student of its own"
            )
        return super().__iter__()


def _bounded(nodes: Iterable[Any]) -> list[None]:
    """Keep Torch-Pruning from walking in circles; returns the steps of the walk so far."""
    steps: list[None] = []
    found = list(nodes)
    for node in found:
        node.dependencies = _Bounded(node.dependencies, steps, _ROUNDS * len(found) + _STEPS)
    return steps


def _one_sided(layer: Any) -> bool:
    """Whether what a layer takes and gives are the same channels."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        return is_depthwise(layer)
    return not isinstance(layer, nn.Linear)


def _obstacle(
    network: nn.Module, path: str, side: Side, protect: Sequence[str], shared: set[str]
) -> str | None:
    """Why a layer, and all that is coupled with it, must stay as it is."""
    if path in ("", "a parameter"):
        return "as the answer" if not path else "as a parameter outside of any layer is as wide"
    layer = network.get_submodule(path)
    if side == "out" and is_within(path, protect):
        return "as protected"
    if path in shared:
        return "as another layer has the same weights"
    if isinstance(layer, PaddedShortcut):
        return None
    unknown = not axes(layer, "out") or hasattr(layer, "parametrizations")
    if unknown or groups_of(layer) in _single(layer):
        return f"as {type(layer).__name__} in this form cannot be narrowed"
    return None


def _beyond(network: nn.Module, path: str, side: Side, channels: Sequence[int]) -> bool:
    """Whether a layer has no such channels: an axis was taken for another on the way."""
    layer = network.get_submodule(path)
    return not isinstance(layer, PaddedShortcut) and max(channels) >= channels_of(layer, side)


def _single(layer: nn.Module) -> tuple[int, ...]:
    """The numbers of groups that leave one channel in each, so that none can go."""
    if not isinstance(layer, nn.modules.conv._ConvNd) or layer.groups == 1 or is_depthwise(layer):
        return ()
    return (layer.in_channels, layer.out_channels)


def _as_sites(
    network: nn.Module, joined: _Joined, blocked: Mapping[tuple[str, Side, int], str]
) -> tuple[list[Site], Whole]:
    order = {path: number for number, (path, _) in enumerate(network.named_modules())}
    reasons = {joined.top(atom): reason for atom, reason in blocked.items()}
    units: dict[Any, dict[tuple[str, Side], list[int]]] = defaultdict(lambda: defaultdict(list))
    for path, side, channel in sorted(joined.above, key=lambda a: (order[a[0]], a[1], a[2])):
        units[joined.top((path, side, channel))][path, side].append(channel)
    families: dict[Any, list[dict[tuple[str, Side], list[int]]]] = defaultdict(list)
    whole: dict[str, str] = {}
    for top, unit in units.items():
        name = _giver(network, unit)
        if name is None:
            continue
        reason = reasons.get(top)
        if reason is None and not _taken(network, unit):
            reason = "as nothing else takes what it gives"
        if reason is not None:
            whole.setdefault(name, reason)
            continue
        families[tuple((layer, len(channels)) for layer, channels in unit.items())].append(unit)
    sites = []
    for members in families.values():
        parts = tuple(
            Part(path=path, side=side, channels=torch.tensor([u[path, side] for u in members]))
            for path, side in members[0]
        )
        name = _giver(network, members[0])
        assert name is not None
        sections = math.lcm(*(_sections(network, part) for part in parts))
        covered = sections == 1 or all(
            part.channels.numel() == channels_of(network.get_submodule(part.path), part.side)
            for part in parts
            if _sections(network, part) > 1
        )
        if not covered or len(members) % sections or len(members) <= sections:
            whole.setdefault(name, "as its groups cannot lose as many channels each")
        else:
            sites.append(
                Site(name=name, kind="channels", units=len(members), parts=parts, sections=sections)
            )
    sites.sort(key=lambda site: (order[site.name], int(site.parts[0].channels[0, 0])))
    return sites, tuple(sorted(whole.items(), key=lambda one: order[one[0]]))


def _giver(network: nn.Module, unit: Iterable[tuple[str, Side]]) -> str | None:
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)
    for path, side in unit:
        if side == "out" and isinstance(network.get_submodule(path), kinds):
            return path
    return None


def _taken(network: nn.Module, unit: Iterable[tuple[str, Side]]) -> bool:
    return any(s == "in" and bool(axes(network.get_submodule(p), "in")) for p, s in unit)


def _sections(network: nn.Module, part: Part) -> int:
    layer = network.get_submodule(part.path)
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    return 1 if is_depthwise(layer) else groups_of(layer)
