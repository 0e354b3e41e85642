"""What a width cut removes, and removing it: no tracing, no rows."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.models.resnet import PaddedShortcut
from understudy.students.blocks.removal import write_attribute
from understudy.students.width.criteria import Criterion, Kind, Side, axes

Whole = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WidthPlan:
    """What a cut removes, by name and number.

    Attributes:
        by: the criterion that chose.
        keep: the share of units that was asked for, or found for a parameter target.
        cuts: layers, as (path, `out` or `in`), that lose the same channels, and these.
        settings: module path, attribute (`config.NAME` for a configuration) and its new value.
        widths: a layer or an attention, what is counted there, how many before and after.
        whole: what stays as it is, and why.
        parameters: before and after.
    """

    by: Criterion
    keep: float
    cuts: tuple[tuple[tuple[tuple[str, Side], ...], tuple[int, ...]], ...]
    settings: tuple[tuple[str, str, int], ...]
    widths: tuple[tuple[str, Kind, int, int], ...]
    whole: tuple[tuple[str, str], ...]
    parameters: tuple[int, int]

    def to_data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        return {
            "kind": "width",
            "by": self.by,
            "keep": self.keep,
            "cuts": [
                {"layers": [list(layer) for layer in layers], "removed": list(removed)}
                for layers, removed in self.cuts
            ],
            "settings": [list(one) for one in self.settings],
            "widths": [list(one) for one in self.widths],
            "whole": [list(one) for one in self.whole],
            "parameters": list(self.parameters),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "WidthPlan":
        """The plan that `to_data` wrote.

        Raises:
            ModelError: it is something else.
        """
        if data.get("kind") != "width":
            raise ModelError(f'`kind` must be "width", but got {data.get("kind")!r}')
        try:
            before, after = data["parameters"]
            return cls(
                by=data["by"],
                keep=float(data["keep"]),
                cuts=tuple(
                    (tuple((path, side) for path, side in cut["layers"]), tuple(cut["removed"]))
                    for cut in data["cuts"]
                ),
                settings=tuple((path, name, value) for path, name, value in data["settings"]),
                widths=tuple((path, kind, old, new) for path, kind, old, new in data["widths"]),
                whole=tuple((path, reason) for path, reason in data["whole"]),
                parameters=(before, after),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"this is no plan of a width cut ({error!r} is missing or wrong): plan it again"
            ) from error

    def lines(self) -> list[str]:
        """The plan in words, a line per layer."""
        before, after = self.parameters
        head = (
            f"width: {self.keep:.3g} of the units kept by {self.by}, "
            f"{before:,} parameters -> {after:,} ({after / max(before, 1):.1%})"
        )
        cut = [f"  {path}: {old} -> {new} {kind}" for path, kind, old, new in self.widths]
        reasons: dict[str, list[str]] = {}
        for path, reason in self.whole:
            reasons.setdefault(reason, []).append(path)
        kept = [f"  kept whole, {reason}: {', '.join(p)}" for reason, p in reasons.items()]
        return [head, *cut, *kept]


def remove(module: nn.Module, plan: WidthPlan) -> None:
    """Remove from a module, in place, what a plan says.

    Raises:
        ModelError: the plan was made for another architecture.
    """
    removed: dict[tuple[str, Side], set[int]] = defaultdict(set)
    for layers, channels in plan.cuts:
        for layer in layers:
            removed[layer].update(channels)
    for (path, side), channels_of in removed.items():
        _narrow(_there(module, path), path, side, channels_of)
    for path, name, value in plan.settings:
        holder: Any = _there(module, path)
        *outer, last = name.split(".")
        for one in outer:
            holder = getattr(holder, one)
        write_attribute(holder, last, value)


def _there(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"this plan narrows `{path}`, which {type(network).__name__} does not have: a plan "
            "fits the architecture that it was made for"
        ) from None


def _narrow(layer: nn.Module, path: str, side: Side, removed: set[int]) -> None:
    if isinstance(layer, PaddedShortcut):
        layer.extra += len(removed) if side == "in" else -len(removed)
        return
    before = channels_of(layer, side)
    if not before or max(removed) >= before:
        raise ModelError(
            f"this plan removes channel {max(removed)} of what `{path}` "
            f"{'gives' if side == 'out' else 'takes'}, but there are {before}: a plan fits the "
            "architecture that it was made for"
        )
    kept = [channel for channel in range(before) if channel not in removed]
    for name, axis in axes(layer, side).items():
        values = getattr(layer, name, None)
        if values is None:
            continue
        picked = _picked(layer, values.detach(), side, axis, kept)
        if isinstance(values, nn.Parameter):
            picked = nn.Parameter(picked, requires_grad=values.requires_grad)
        setattr(layer, name, picked)
    _resize(layer, side, len(kept))


def _picked(layer: nn.Module, values: Tensor, side: Side, axis: int, kept: list[int]) -> Tensor:
    groups = groups_of(layer)
    index = torch.tensor(kept, dtype=torch.int64, device=values.device)
    if side == "out" or groups == 1:
        return values.index_select(axis, index)
    each = values.chunk(groups)
    local = (index % values.shape[1]).chunk(groups)
    return torch.cat([v.index_select(1, i) for v, i in zip(each, local, strict=True)])


def _resize(layer: nn.Module, side: Side, size: int) -> None:
    """The numbers that a layer keeps beside its weights."""
    names = {
        "out": ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim",
                "num_parameters", "nf"),
        "in": ("in_features", "in_channels", "nx"),
    }[side]  # fmt: skip
    if is_depthwise(layer):
        names = ("in_channels", "out_channels", "groups")
    for name in names:
        if isinstance(getattr(layer, name, None), int):
            setattr(layer, name, size)
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        layer.normalized_shape = (size,)


def channels_of(layer: nn.Module, side: Side) -> int:
    """How many channels a layer gives or takes; 0 where that is not known."""
    for name, axis in axes(layer, side).items():
        values = getattr(layer, name, None)
        if values is not None:
            groups = groups_of(layer) if side == "in" else 1
            return int(values.shape[axis]) * groups
    # Instance normalisation holds no numbers unless it is asked to.
    return int(getattr(layer, "num_features", 0))


def groups_of(layer: nn.Module) -> int:
    """How many groups a convolution has; 1 for any other layer."""
    return layer.groups if isinstance(layer, nn.modules.conv._ConvNd) else 1


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer gives each channel that it takes, by itself."""
    groups = groups_of(layer)
    return groups > 1 and groups == layer.out_channels == layer.in_channels
