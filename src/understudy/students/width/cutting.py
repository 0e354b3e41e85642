"""A narrower copy of a network: channels, attention heads and hidden units are removed.

What is removed is found here in three ways that end in the same list of sites: attention and
feed-forward layers of transformers by the names that such layers have, everything else by
Torch-Pruning's dependency graph. The plan names every tensor's removed channels, so replaying it
needs neither tracing nor Torch-Pruning.
"""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.features.blocks import blocks
from understudy.students.width.checks import (
    breaking,
    check_paths,
    check_target,
    quietly,
    shapes,
)
from understudy.students.width.choice import Choice, fitting, met, written
from understudy.students.width.criteria import Criterion, Site, scores
from understudy.students.width.plan import Whole, WidthPlan, remove
from understudy.students.width.traced import traced_sites
from understudy.students.width.transformers import (
    attention,
    feed_forward,
    is_within,
    sharing_layers,
    unconfigured,
)

__all__ = ["WidthPlan", "cut_width", "plan_width"]


def plan_width(
    network: nn.Module,
    rows: Tensor,
    *,
    keep: float | int | None = None,
    parameters: int | float | None = None,
    by: Criterion = "magnitude",
    protect: Sequence[str] = (),
    protect_ends: bool = True,
    labels: Tensor | None = None,
    seed: int = 0,
    round_to: int = 1,
    even: bool = True,
    batch_size: int = 64,
) -> WidthPlan:
    """Choose which channels, heads and hidden units a narrower copy goes without.

    In a transformer these are whole attention heads (whole groups where queries share keys) and
    the hidden units of its feed-forward layers; the width of its tokens stays. In other networks
    they are channels and hidden units, each removed from all layers that Torch-Pruning finds
    coupled. What the network takes and answers is never touched. A layer that the network's own
    code needs as wide as it is, or whose channels it mixes by their number, stays whole; the plan
    says so.

    Args:
        network: as its owner left it; it is not changed.
        rows: calibration rows, what it takes as its one argument, `[rows, ...]`.
        keep: the share of units kept in every layer, above 0, at most 1.
        parameters: instead of `keep`, how many parameters may be left: a count, or below 1 a
            share. The plan comes as close from below as whole units allow.
        by: the criterion; see `criteria.scores`.
        protect: paths of modules whose layers give what they gave; what they take may shrink with
            the layer before them.
        protect_ends: whether what the first layer gives stays as it is. The last layer's answer
            always does.
        labels: for `taylor` and `gradient`, `[rows]` int64 or in the shape of the answer.
        seed: of `random`.
        round_to: keep multiples of this many channels and hidden units.
        even: the same share in every layer; otherwise the scores, divided by their layer's mean,
            compete over the whole network, and a layer keeps one unit at least.
        batch_size: rows at a time.

    Raises:
        ModelError: the target cannot be met, heads do not divide, the rows do not fit, a
            protected path is not there, or the cut network would not run.
        MissingExtraError: Torch-Pruning is needed and not installed.

    Paper:
        Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", section 3.2.

    Example:
        >>> from understudy.models import CifarResNet
        >>> network = CifarResNet(channels=3, width=10, depth=8)
        >>> plan = plan_width(network, torch.zeros(4, 3, 16, 16), keep=0.5)
        >>> plan.widths[0]
        ('stages.0.0.conv1', 'channels', 16, 8)
    """
    check_target(keep, parameters, round_to, by)
    check_paths(network, protect)
    with quietly(network):
        shape = shapes(copy.deepcopy(network), rows)
        sites, whole = _sites(network, rows, protect, protect_ends)
        _check_left(network, sites, whole)
        if keep is not None and even:
            sites = [fitting(site, keep) for site in sites]
        found = scores(network, rows, sites, by=by, labels=labels, seed=seed, batch_size=batch_size)
        while True:
            choice = Choice(sites=sites, scores=found, round_to=round_to, even=even)
            if keep is None:
                assert parameters is not None
                share, kept = met(network, choice, parameters)
            else:
                share, kept = float(keep), choice.counts(keep, keep)
            plan = written(network, choice, kept, by=by, keep=share, whole=whole)
            broken = breaking(network, plan, rows, shape, choice, kept)
            if not broken:
                _check_cut(plan, share, [site.units for site in sites], round_to)
                return plan
            whole = (*((sites[place].name, why) for place, why in broken.items()), *whole)
            left = [place for place in range(len(sites)) if place not in broken]
            _check_left(network, left, whole)
            found = [found[place] for place in left]
            sites = _configured([sites[place] for place in left], sites)


def cut_width(network: nn.Module, plan: WidthPlan, rows: Tensor) -> Student:
    """The narrower copy that a plan describes, with the weights that are kept.

    Args:
        network: of the architecture that the plan was made for; it is not changed.
        plan: what goes.
        rows: a few rows, to see that the copy runs.

    Returns:
        The copy; every block of it came from the block of the same path.

    Raises:
        ModelError: the plan was made for another architecture, or the copy does not run.
    """
    with quietly(network):
        before = shapes(copy.deepcopy(network), rows)
        module = copy.deepcopy(network)
        remove(module, plan)
        after = shapes(copy.deepcopy(module), rows)
    if before != after:
        raise ModelError(
            f"a cut must leave the answer as wide as it was, but got {list(map(tuple, after))} "
            f"after {list(map(tuple, before))}: plan it again with the layers that give the answer "
            "in `protect`"
        )
    try:
        provenance = {path: path for path in blocks(module)}
    except ModelError:
        provenance = {}
    return Student(module=module, provenance=provenance)


def _sites(
    network: nn.Module, rows: Tensor, protect: Sequence[str], protect_ends: bool
) -> tuple[list[Site], Whole]:
    whole: list[tuple[str, str]] = []
    heads, forward = list(attention(network)), list(feed_forward(network))
    if not heads and not any(isinstance(m, nn.MultiheadAttention) for m in network.modules()):
        try:
            return traced_sites(network, rows, protect, protect_ends)
        except ModelError:
            if not forward:
                raise
            whole.append(("all other layers", "as Torch-Pruning cannot follow this network"))
    found = [*heads, *forward]
    shared = sharing_layers(network)
    sites: list[Site] = []
    for site in found:
        paths = [part.path for part in site.parts]
        givers = [part.path for part in site.parts if part.side == "out"]
        if any(is_within(path, protect) for path in (site.name, *givers)):
            whole.append((site.name, "as protected"))
        elif any(path in shared for path in paths):
            whole.append((site.name, "as another layer has the same weights"))
        else:
            sites.append(site)
    sites = _configured(sites, found)
    sites += _before(network, rows, protect, protect_ends, found, whole)
    whole += [
        (path, "as PyTorch's own attention has as many heads as its tokens are wide")
        for path, m in network.named_modules()
        if isinstance(m, nn.MultiheadAttention)
    ]
    whole.append(("the tokens' width", "as embedding, shortcuts, norms and head share it"))
    return sites, tuple(whole)


def _before(
    network: nn.Module,
    rows: Tensor,
    protect: Sequence[str],
    protect_ends: bool,
    found: Sequence[Site],
    whole: list[tuple[str, str]],
) -> list[Site]:
    """The channels of convolutions beside attention, where they do not reach it.

    What these cannot lose is added to `whole`. A Hugging Face model's own convolutions stay: its
    configuration lists their channels.
    """
    bodies = [p for p, m in network.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]
    held = [p for p, m in network.named_modules() if p and hasattr(m, "config")]
    bodies = [path for path in bodies if not is_within(path, held)]
    if len(bodies) < 2 or hasattr(network, "config"):
        return []
    taken = [part.path for site in found for part in site.parts]
    taken += [site.name for site in found if site.kind == "heads"]
    taken += [p for p, m in network.named_modules() if isinstance(m, nn.MultiheadAttention)]
    try:
        sites, left = traced_sites(network, rows, protect, protect_ends)
    except ModelError:
        whole.append(("convolutions", "as Torch-Pruning cannot follow this network"))
        return []
    whole += [(path, why) for path, why in left if path in bodies]
    free: list[Site] = []
    for site in sites:
        if site.name not in bodies:
            continue
        if any(is_within(part.path, taken) for part in site.parts):
            whole.append((site.name, "as attention takes what it gives"))
        else:
            free.append(site)
    return free


def _configured(sites: list[Site], before: Sequence[Site]) -> list[Site]:
    """Sites of which a configuration still speaks, when not all of those before are left."""
    for kind in {site.kind for site in before} - {"channels"}:
        # A configuration speaks of all layers: where some stay as they are, it says nothing.
        if sum(s.kind == kind for s in before) != sum(s.kind == kind for s in sites):
            sites = [unconfigured(site) if site.kind == kind else site for site in sites]
    return sites


def _check_cut(plan: WidthPlan, share: float, units: Sequence[int], round_to: int) -> None:
    if share >= 1 or plan.cuts:
        return
    raise ModelError(
        f"{share:.4g} of the units must be fewer than all somewhere, but the widest of what can be "
        f"narrowed has {max(units)} units, kept in multiples of {round_to}: lower `keep`"
        + (" or `round_to`" if round_to > 1 else "")
    )


def _check_left(network: nn.Module, sites: Sequence[object], whole: Whole) -> None:
    if not sites:
        reasons = "; ".join(f"`{path}` {reason}" for path, reason in whole) or "no layers"
        raise ModelError(f"{type(network).__name__} has nothing to narrow: {reasons}")
