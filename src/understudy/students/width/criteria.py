"""How much each channel, head or hidden unit of a network matters, measured on calibration rows."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.students.width.answers import answer

Criterion = Literal["magnitude", "taylor", "activation", "gradient", "random"]
Side = Literal["out", "in"]
Kind = Literal["channels", "heads", "units"]
Worth = Callable[[nn.Parameter], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """What the units of a site are in one layer.

    Attributes:
        path: of the layer.
        side: whether they are among the channels that it gives, or those that it takes.
        channels: int64 `[units, channels of each]`, the layer's own numbers.
    """

    path: str
    side: Side
    channels: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Site:
    """Units that may be removed one by one, each from all its layers at once.

    Attributes:
        name: of the layer that gives them.
        kind: channels of convolutions, attention heads, or hidden units.
        units: how many there are.
        parts: every layer that holds some of them.
        sections: as many units must be kept in each of so many equal runs of units (the groups of
            a convolution or of grouped queries).
        counts: module paths and attributes that are in proportion to the number of units.
        other: a finer division of the same heads, for shares that do not fit this one.
        each: heads per unit, where queries share keys.
    """

    name: str
    kind: Kind
    units: int
    parts: tuple[Part, ...]
    sections: int = 1
    counts: tuple[tuple[str, str], ...] = field(default=())
    other: "Site | None" = None
    each: int = 1


def axes(module: nn.Module, side: Side) -> dict[str, int]:
    """By tensor of a layer, the axis that its given (or taken) channels lie on; empty if unknown.

    A grouped convolution's `in` channels lie on axis 1 of each group by itself.
    """
    if isinstance(module, nn.Linear):
        return {"weight": 0, "bias": 0} if side == "out" else {"weight": 1}
    # Hugging Face's GPT-2 keeps its weights as [taken, given].
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return {"weight": 1, "bias": 0} if side == "out" else {"weight": 0}
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return {"weight": 0, "bias": 0} if side == "out" else {"weight": 1}
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d)) and module.groups == 1:
        return {"weight": 1, "bias": 0} if side == "out" else {"weight": 0}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), 0)
    if isinstance(module, nn.GroupNorm) or _flat_norm(module):
        return {"weight": 0, "bias": 0}
    if isinstance(module, nn.Embedding):
        return {"weight": 1} if side == "out" else {}
    if isinstance(module, nn.PReLU):
        return {"weight": 0} if module.num_parameters > 1 else {}
    return {}


def by_channel(module: nn.Module, values: Tensor, side: Side, axis: int) -> Tensor:
    """Numbers in the shape of a layer's tensor as `[channels, numbers of each]`."""
    groups = getattr(module, "groups", 1)
    if side == "in" and axis == 1 and groups > 1:
        per_group = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
        return per_group.transpose(1, 2).reshape(groups * values.shape[1], -1)
    return values.movedim(axis, 0).reshape(values.shape[axis], -1)


def scores(
    network: nn.Module,
    rows: Tensor,
    sites: Sequence[Site],
    *,
    by: Criterion,
    labels: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Tensor]:
    """How much every unit of every site matters: float64 `[units]` each, never negative.

    A unit stands for all its weights in all its layers.

    - `magnitude`: their L2 norm; needs no rows.
    - `activation`: the mean absolute value with which the unit reaches the layers that take it.
    - `taylor`: the first-order change of the loss if the unit were 0: the sum of weight times
      gradient over each of its layers, squared, added up and averaged over the batches; its root.
    - `gradient`: the L2 norm of the loss's gradient in them, likewise over the batches.
    - `random`: uniform, a function of the seed.

    The loss is the cross entropy with `labels` (squared error if they are not whole numbers).
    Without labels it is half the squared norm of the answer: it needs no assumption about what
    the answer means, and has a gradient where the divergence from the network's own distribution
    has none.

    Args:
        network: as its owner left it; it is not changed.
        rows: what it takes as its one argument, `[rows, ...]`.
        sites: where to look.
        by: the criterion.
        labels: `[rows]` int64, -1 where unlabelled, or in the shape of the answer.
        seed: of `random`.
        batch_size: rows at a time.

    Raises:
        ModelError: labels that do not fit the rows, or a score that is not finite.

    Paper:
        Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3
        (Taylor, first order, equation 9); Muralidharan et al. 2024, "Compact Language Models via
        Pruning and Knowledge Distillation" (Minitron), section 2.2 (activation).
    """
    if by == "random":
        generator = torch.Generator().manual_seed(seed)
        return [torch.rand(s.units, generator=generator, dtype=torch.float64) for s in sites]
    if by == "magnitude":
        found = _magnitude(network, sites)
    elif by == "activation":
        found = _activation(network, rows, sites, batch_size)
    else:
        found = _by_gradient(network, rows, sites, by, labels, batch_size)
    broken = [site.name for site, one in zip(sites, found, strict=True) if not one.isfinite().all()]
    if broken:
        raise ModelError(
            f"every score by {by} must be finite, but those of {', '.join(broken)} are not: the "
            "weights or the calibration rows hold values that are not finite"
        )
    return found


def _over_parts(network: nn.Module, part: Part, *, of: Worth) -> Tensor:
    """The worth of a part's weights, added up by unit, float64 `[units]`."""
    module = network.get_submodule(part.path)
    total = torch.zeros(len(part.channels), dtype=torch.float64)
    for name, axis in axes(module, part.side).items():
        weight = getattr(module, name, None)
        if isinstance(weight, nn.Parameter):
            each = by_channel(module, of(weight), part.side, axis).sum(1).cpu()
            total += each.double()[part.channels].sum(1)
    return total


def _magnitude(network: nn.Module, sites: Sequence[Site]) -> list[Tensor]:
    def squares(weight: nn.Parameter) -> Tensor:
        return _wide(weight.detach()).square()

    return [
        torch.stack([_over_parts(network, p, of=squares) for p in site.parts]).sum(0).sqrt()
        for site in sites
    ]


def _by_gradient(
    network: nn.Module,
    rows: Tensor,
    sites: Sequence[Site],
    by: Criterion,
    labels: Tensor | None,
    batch_size: int,
) -> list[Tensor]:
    def worth(weight: nn.Parameter) -> Tensor:
        if weight.grad is None:
            return torch.zeros_like(weight)
        slope = _wide(weight.grad)
        return slope * _wide(weight.detach()) if by == "taylor" else slope.square()

    if labels is not None and len(labels) != len(rows):
        raise ModelError(
            f"every row needs a label (-1: unlabelled), but got {len(rows)} rows and "
            f"{len(labels)} labels"
        )
    model = copy.deepcopy(network).eval().requires_grad_(True)
    totals = [torch.zeros(site.units, dtype=torch.float64) for site in sites]
    for start, chunk in _chunks(rows, batch_size):
        model.zero_grad(set_to_none=True)
        own = None if labels is None else labels[start : start + len(chunk)]
        with torch.enable_grad():
            torch.autograd.backward(_loss(answer(model(chunk)), own))
        share = len(chunk) / len(rows)
        for place, site in enumerate(sites):
            for part in site.parts:
                found = _over_parts(model, part, of=worth)
                totals[place] += share * (found.square() if by == "taylor" else found)
    return [total.sqrt() for total in totals]


def _loss(answers: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        return answers.flatten(1).square().sum(1).mean() / 2
    if (labels := labels.to(answers.device)).is_floating_point():
        known = ~labels.isnan()
        if labels.shape != answers.shape:
            raise ModelError(
                "labels that are not whole numbers must have the shape of the answer, but got "
                f"{tuple(labels.shape)} and {tuple(answers.shape)}"
            )
        return (answers - labels.nan_to_num()).square().mul(known).sum() / known.sum().clamp(min=1)
    low, high = int(labels.min()), int(labels.max())
    if answers.shape[:-1] != labels.shape or low < -1 or high >= answers.shape[-1]:
        raise ModelError(
            f"labels must be one class of each answer (-1: none), but got labels "
            f"{tuple(labels.shape)} from {low} to {high} and answers {tuple(answers.shape)}"
        )
    flat = labels.flatten()
    # A mean over no rows would not be a number.
    losses = F.cross_entropy(answers.flatten(0, -2), flat, ignore_index=-1, reduction="sum")
    return losses / (flat >= 0).sum().clamp(min=1)


def _activation(
    network: nn.Module, rows: Tensor, sites: Sequence[Site], batch_size: int
) -> list[Tensor]:
    model = copy.deepcopy(network).eval()
    sums: dict[str, Tensor] = {}
    seen: dict[str, int] = {}

    def reader(path: str, axis: int) -> Any:
        def read(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            del module
            values = _wide(inputs[0].detach()).abs().movedim(axis, 0).flatten(1)
            sums[path] = sums.get(path, 0) + values.sum(1).double().cpu()
            seen[path] = seen.get(path, 0) + values.shape[1]

        return read

    takers = {p.path for site in sites for p in site.parts if p.side == "in"}
    for path in takers:
        module = model.get_submodule(path)
        if axes(module, "in"):
            spatial = isinstance(module, nn.modules.conv._ConvNd)
            module.register_forward_pre_hook(reader(path, 1 if spatial else -1))
    with torch.no_grad():
        for _, chunk in _chunks(rows, batch_size):
            model(chunk)
    found = []
    for site in sites:
        total = torch.zeros(site.units, dtype=torch.float64)
        for part in site.parts:
            if part.side == "in" and part.path in sums:
                total += (sums[part.path] / seen[part.path])[part.channels].mean(1)
        found.append(total)
    return found


def _chunks(rows: Tensor, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(rows), batch_size):
        yield start, rows[start : start + batch_size]


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _flat_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1
