"""How many units a layer keeps for a share or a parameter target, and which."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.width.criteria import Criterion, Kind, Side, Site, axes
from understudy.students.width.plan import Whole, WidthPlan, channels_of, groups_of

_SIDES: tuple[Side, ...] = ("out", "in")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """How many units each site keeps for a share, and which."""

    sites: list[Site]
    scores: list[Tensor]
    round_to: int
    even: bool

    def counts(self, heads: float | int, others: float | int) -> list[int]:
        """Units kept per site, at a share of heads and a share of everything else."""
        wanted = [0.0] * len(self.sites)
        for share, mine in ((heads, True), (others, False)):
            places = [i for i, s in enumerate(self.sites) if (s.kind == "heads") is mine]
            for place, count in zip(places, self._wanted(places, share), strict=True):
                wanted[place] = count
        return [self.whole(i, count) for i, count in enumerate(wanted)]

    def _wanted(self, places: list[int], share: float | int) -> list[float]:
        if self.even or not places:
            return [float(share * self.sites[i].units) for i in places]
        normal = [self.scores[i] / self.scores[i].mean().clamp(min=1e-300) for i in places]
        total = sum(len(one) for one in normal)
        order = torch.cat(normal).argsort(descending=True, stable=True)
        best = torch.zeros(total, dtype=torch.bool)
        best[order[: math.floor(share * total + 0.5)]] = True
        return [float(one.sum()) for one in torch.split(best, [len(one) for one in normal])]

    def step(self, place: int) -> int:
        """The smallest change of how many units a site keeps."""
        site = self.sites[place]
        return math.lcm(site.sections, 1 if site.kind == "heads" else self.round_to)

    def whole(self, place: int, count: float) -> int:
        """The nearest number of units that a site can keep."""
        units, step = self.sites[place].units, self.step(place)
        if count >= units:
            return units
        return min(max(step, math.floor(count / step + 0.5) * step), units)

    def removed(self, place: int, kept: int) -> list[int]:
        """The units that go, those that matter least of every section."""
        site = self.sites[place]
        worth = self.scores[place].reshape(site.sections, -1)
        order = worth.argsort(dim=1, stable=True)[:, : (site.units - kept) // site.sections]
        first = torch.arange(site.sections)[:, None] * worth.shape[1]
        return sorted((order + first).flatten().tolist())


def fitting(site: Site, keep: float | int) -> Site:
    """The division of a site's heads that a share fits."""
    if site.kind != "heads":
        return site
    for one in (site, site.other):
        if one is None:
            continue
        count = keep * one.units
        if abs(count - round(count)) < 1e-6 and round(count) and round(count) % one.sections == 0:
            return one
    able = {n / site.units for n in range(1, site.units + 1)}
    if site.other is not None:
        step = site.other.sections
        able |= {n / site.other.units for n in range(step, site.other.units + 1, step)}
    near = sorted(sorted(able, key=lambda share: abs(share - keep))[:4])
    groups = f" in {site.units} groups that share keys" if site.each > 1 else ""
    raise ModelError(
        f"`keep * heads` must be a whole number, in equal groups, but `{site.name}` has "
        f"{site.units * site.each} heads{groups} and keep={keep}: use "
        f"{', '.join(f'{share:.6g}' for share in near)}, or protect: [{site.name}]"
    )


def met(network: nn.Module, choice: Choice, target: int | float) -> tuple[float, list[int]]:
    """The largest share whose parameters fit a target, and the units per site."""
    total = _count(network)
    share_of = target < 1 or (isinstance(target, float) and target == 1)
    goal = math.floor(target * total) if share_of else int(target)

    def size(kept: list[int]) -> int:
        return _size(network, choice, kept)

    least = size(choice.counts(0.0, 0.0))
    if least > goal:
        raise ModelError(
            f"`parameters` must be at least {least:,} ({least / total:.1%}): that is what is left "
            f"of {total:,} with one unit in every layer that may be narrowed, but got {target}. "
            "Cut the depth too, or protect less"
        )

    def largest(heads: float | None) -> float:
        low, high = 0.0, 1.0
        for _ in range(14):
            share = (low + high) / 2
            fits = size(choice.counts(share if heads is None else heads, share)) <= goal
            low, high = (share, high) if fits else (low, share)
        return low

    if size(choice.counts(1, 1)) <= goal:
        return 1.0, choice.counts(1, 1)
    share = largest(None)
    # One head more in every layer may be too much where a few hidden units more are not.
    kept = choice.counts(share, largest(share))
    gaps = sorted(range(len(kept)), key=lambda i: kept[i] / choice.sites[i].units)
    for place in gaps:
        if choice.sites[place].kind != "channels":
            continue
        more = list(kept)
        more[place] = min(more[place] + choice.step(place), choice.sites[place].units)
        if size(more) <= goal:
            kept = more
    return share, kept


def written(
    network: nn.Module,
    choice: Choice,
    kept: list[int],
    *,
    by: Criterion,
    keep: float,
    whole: Whole,
) -> WidthPlan:
    """The plan that keeps so many of each site's units, those that matter most."""
    cuts: dict[tuple[int, ...], dict[tuple[str, Side], None]] = {}
    for place, count in enumerate(kept):
        units = choice.removed(place, count)
        for part in choice.sites[place].parts if units else ():
            gone = tuple(sorted(part.channels[units].flatten().tolist()))
            cuts.setdefault(gone, {})[part.path, part.side] = None
    return WidthPlan(
        by=by,
        keep=keep,
        cuts=tuple((tuple(layers), gone) for gone, layers in cuts.items()),
        settings=_settings(network, choice.sites, kept),
        widths=_widths(network, choice.sites, kept),
        whole=whole,
        parameters=(_count(network), _size(network, choice, kept)),
    )


def _widths(
    network: nn.Module, sites: list[Site], kept: list[int]
) -> tuple[tuple[str, Kind, int, int], ...]:
    found: dict[str, tuple[str, Kind, int, int]] = {}
    for site, count in zip(sites, kept, strict=True):
        for part in site.parts:
            layer = network.get_submodule(part.path)
            if site.kind != "channels":
                found[site.name] = (site.name, site.kind, site.units * site.each, count * site.each)
            elif part.side == "out" and isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
                before = channels_of(layer, "out")
                left = found[part.path][3] if part.path in found else before
                left -= (site.units - count) * part.channels.shape[1]
                found[part.path] = (part.path, site.kind, before, left)
    return tuple(found.values())


def _settings(
    network: nn.Module, sites: list[Site], kept: list[int]
) -> tuple[tuple[str, str, int], ...]:
    wanted: dict[tuple[str, str], set[int]] = defaultdict(set)
    for site, count in zip(sites, kept, strict=True):
        for path, name in site.counts:
            holder: Any = network.get_submodule(path)
            for one in name.split("."):
                holder = getattr(holder, one)
            # GPT-2's `n_inner` is None where it is the usual number.
            wanted[path, name].add(count if holder is None else holder * count // site.units)
            if name == "config.num_attention_heads" and count != site.units:
                wanted |= _head_size(network, site, path)
    # A configuration that several layers share cannot say that they differ.
    return tuple(
        (path, name, min(values)) for (path, name), values in wanted.items() if len(values) == 1
    )


def _head_size(network: nn.Module, site: Site, path: str) -> dict[tuple[str, str], set[int]]:
    """What a configuration must say that works the size of a head out of the number of heads."""
    config: Any = network.get_submodule(path).config
    # Families whose queries share keys read it there, and only they do.
    if not hasattr(config, "num_key_value_heads") or getattr(config, "head_dim", None):
        return {}
    return {(path, "config.head_dim"): {site.parts[-1].channels.shape[1] // site.each}}


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _size(network: nn.Module, choice: Choice, kept: list[int]) -> int:
    """The parameters that are left when every site keeps so many units."""
    removed: dict[tuple[str, Side], int] = defaultdict(int)
    for site, count in zip(choice.sites, kept, strict=True):
        for part in site.parts:
            removed[part.path, part.side] += (site.units - count) * part.channels.shape[1]
    total = _count(network)
    for path in dict.fromkeys(path for path, _ in removed):
        layer = network.get_submodule(path)
        shapes = {name: list(p.shape) for name, p in layer.named_parameters(recurse=False)}
        total -= sum(math.prod(shape) for shape in shapes.values())
        for side in _SIDES:
            gone = removed.get((path, side), 0) // (groups_of(layer) if side == "in" else 1)
            for name, axis in axes(layer, side).items():
                if name in shapes:
                    shapes[name][axis] -= gone
        total += sum(math.prod(shape) for shape in shapes.values())
    return total
