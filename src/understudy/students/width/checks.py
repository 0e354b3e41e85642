"""Whether a network, and what a width cut leaves of it, can be run and means the same."""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import get_args

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.models.resnet import PaddedShortcut
from understudy.students.wanted import check_number, check_whole
from understudy.students.width.answers import answer, other_answers
from understudy.students.width.choice import Choice, written
from understudy.students.width.criteria import Criterion, Side, axes
from understudy.students.width.plan import WidthPlan, channels_of, groups_of, remove
from understudy.students.width.transformers import unconfigured

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def check_target(
    keep: float | int | None, parameters: int | float | None, round_to: int, by: str
) -> None:
    """Refuse a target that means nothing.

    Raises:
        ModelError: neither or both are given, or one is outside of its range.
    """
    if by not in get_args(Criterion):
        raise ModelError(f"`by` must be one of {', '.join(get_args(Criterion))}, but got {by}")
    if (keep is None) == (parameters is None):
        raise ModelError(
            f"exactly one of `keep` and `parameters` must be given, but got {keep=}, {parameters=}"
        )
    for name, value in (("keep", keep), ("parameters", parameters)):
        if value is not None:
            check_number(name, value, usual=0.5)
    check_whole("round_to", round_to, usual=8)
    if keep is not None and not 0 < keep <= 1:
        raise ModelError(f"`0 < keep <= 1` must hold, but got {keep=}: 0.5 keeps every other unit")
    if parameters is not None and not parameters > 0:
        raise ModelError(f"`parameters > 0` must hold, but got {parameters=}")
    if round_to < 1:
        raise ModelError(f"`round_to >= 1` must hold, but got {round_to=}")


def check_paths(network: nn.Module, protect: Sequence[str]) -> None:
    """Refuse protected paths that the network does not have.

    Raises:
        ModelError: one is not there; the nearest ones are named.
    """
    if isinstance(protect, str):
        raise ModelError(f"`protect` must be a list of paths, but got a text: [{protect!r}]")
    known = [path for path, _ in network.named_modules() if path]
    for path in protect:
        if path not in known:
            near = get_close_matches(path, sorted(known), n=3) or [n for n in known if "." not in n]
            raise ModelError(
                f"`protect` names `{path}`, which {type(network).__name__} does not have: use one "
                f"of its modules, as {', '.join(f'`{one}`' for one in near)}"
            )


@contextmanager
def quietly(network: nn.Module) -> Iterator[None]:
    """Whatever runs inside leaves the random state of the process as it was."""
    devices = {p.device.index for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)):
        yield


def answered(model: nn.Module, rows: Tensor) -> Tensor:
    """What a copy, which this puts into evaluation mode, says of two rows; finite.

    Raises:
        ModelError: it says nothing that can be used.
    """
    return all_answered(model, rows)[0]


def all_answered(model: nn.Module, rows: Tensor) -> list[Tensor]:
    """The same, with what a network answers beside it: an embedding, a second head's answer.

    Raises:
        ModelError: it says nothing that can be used.
    """
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(rows[:2])
            answers = answer(outputs)
    except ModelError:
        raise
    except Exception as error:  # whatever the network raises
        raise ModelError(
            f"{type(model).__name__} must take the calibration rows, but for rows of shape "
            f"{tuple(rows.shape)} ({rows.dtype}) it raised {type(error).__name__}: {error}"
        ) from error
    if not len(rows) or not answers.isfinite().all():
        raise ModelError(
            f"the answer of {type(model).__name__} must be finite, but for rows of shape "
            f"{tuple(rows.shape)} it is not: look at the weights and the rows"
        )
    return [answers, *other_answers(outputs)]


def shapes(model: nn.Module, rows: Tensor) -> list[torch.Size]:
    """Of everything that a copy answers to two rows.

    Raises:
        ModelError: it says nothing that can be used.
    """
    return [tensor.shape for tensor in all_answered(model, rows)]


def breaking(
    network: nn.Module, plan: WidthPlan, rows: Tensor, shape: list[torch.Size], choice: Choice,
    kept: list[int],
) -> dict[int, str]:  # fmt: skip
    """The sites that the network needs whole, and why: by their place; none where the plan is fine.

    The cut network must run, answer in the old shape and give what the whole one gives once nobody
    listens to the removed channels: in float64, unless the network has a precision of its own.
    Where it does not, sites are cut one by one. Sites whose names differ in numbers only are taken
    to be alike where their first and last are.

    Raises:
        ModelError: sites that can be cut by themselves cannot be cut together.
    """
    trouble = _trouble(network, plan, rows, shape)
    if trouble is None:
        return {}

    def alone(place: int) -> str | None:
        count = [kept[i] if i == place else one.units for i, one in enumerate(choice.sites)]
        apart = replace(choice, sites=[unconfigured(one) for one in choice.sites])
        one = written(network, apart, count, by=plan.by, keep=plan.keep, whole=())
        return _trouble(network, one, rows, shape) if one.cuts else None

    families: dict[str, list[int]] = {}
    for place, site in enumerate(choice.sites):
        families.setdefault(re.sub(r"\d+", "#", site.name), []).append(place)
    found: dict[int, str] = {}
    for places in families.values():
        ends = {place: why for place in {places[0], places[-1]} if (why := alone(place))}
        if len(ends) == len({places[0], places[-1]}):
            found |= dict.fromkeys(places, ends[places[0]])
            continue
        found |= ends | {place: why for place in places[1:-1] if (why := alone(place))}
    if not found:
        names = ", ".join(site.name for site in choice.sites)
        raise ModelError(
            f"a narrower network must mean what the whole one does, but once {names} lost channels "
            f"together it does not, {trouble}: put some of them into `protect`"
        )
    return found


def _trouble(
    network: nn.Module, plan: WidthPlan, rows: Tensor, shape: list[torch.Size]
) -> str | None:
    slim = copy.deepcopy(network)
    remove(slim, plan)
    try:
        found = shapes(slim, rows)
    except ModelError:
        return "as the network does not run with less of it"
    if found != shape:
        return "as the answer would have another shape"
    # Where weights are small, what mixes up channels may hardly be seen.
    for whole in (_loud(network), network):
        for kind in (torch.float64, torch.float32):
            if (same := _same(whole, plan, rows, kind)) is not None:
                return None if same else "as an operation mixes its channels by their number"
    return None


def _loud(network: nn.Module) -> nn.Module:
    """A copy whose layers give about as much as they are given, or more."""
    copied = copy.deepcopy(network)
    if any(isinstance(part, _BATCH_NORMS) for part in copied.modules()):
        return copied  # these amplify by themselves what is small
    with torch.no_grad():
        for part in copied.modules():
            weight = getattr(part, "weight", None)
            if (
                not isinstance(weight, nn.Parameter)
                or weight.ndim < 2
                or isinstance(part, nn.Embedding)
            ):
                continue
            spread = float(weight.float().std())
            usual = (weight[0].numel() if weight.ndim > 2 else min(weight.shape)) ** -0.5
            if 0 < spread < usual:
                weight.mul_(usual / spread)
    return copied


def _same(network: nn.Module, plan: WidthPlan, rows: Tensor, kind: torch.dtype) -> bool | None:
    """Whether the cut network is the whole one whose removed channels nobody listens to.

    None where the network does not run in this precision.
    """
    deaf, slim = copy.deepcopy(network), copy.deepcopy(network)
    remove(slim, plan)
    gone = _gone(plan)
    for (path, side), channels in gone.items():
        layer = deaf.get_submodule(path)
        if isinstance(layer, _NORMS):
            if type(layer).forward not in [norm.forward for norm in _NORMS]:
                return True  # nobody knows which axis its channels lie on
            deaf.set_submodule(path, _Partly(slim.get_submodule(path), layer, channels))
        elif side == "in" and not isinstance(layer, PaddedShortcut):
            _silence(layer, sorted(channels))
    exact = rows[:2].to(kind) if rows.is_floating_point() else rows[:2]
    try:
        whole, cut = (all_answered(model.to(kind), exact) for model in (deaf, slim))
    except (ModelError, TypeError, RuntimeError):
        return None  # a network, or a device, with another precision of its own
    relative, absolute = (1e-6, 1e-9) if kind == torch.float64 else (1e-3, 1e-4)
    for one, other in zip(whole, cut, strict=True):
        largest = float(one.double().abs().max()) if one.numel() else 0.0
        least = absolute * largest + 1e-12
        if not torch.allclose(one.double(), other.double(), rtol=relative, atol=least):
            return False
    return True


def _gone(plan: WidthPlan) -> dict[tuple[str, Side], set[int]]:
    gone: dict[tuple[str, Side], set[int]] = {}
    for layers, channels in plan.cuts:
        for layer in layers:
            gone.setdefault(layer, set()).update(channels)
    return gone


class _Partly(nn.Module):
    """A normalisation of the kept channels among all of them; the removed ones become 0."""

    def __init__(self, slim: nn.Module, layer: nn.Module, gone: set[int]) -> None:
        super().__init__()
        self.slim = copy.deepcopy(slim)
        self.axis = 1 if isinstance(layer, nn.GroupNorm) else -1
        size = channels_of(layer, "out")
        self.kept = torch.tensor([c for c in range(size) if c not in gone])

    def forward(self, given: Tensor) -> Tensor:
        kept = self.kept.to(given.device)
        made: Tensor = self.slim(given.index_select(self.axis, kept))
        return torch.zeros_like(given).index_copy(self.axis, kept, made)


def _silence(layer: nn.Module, channels: list[int]) -> None:
    with torch.no_grad():
        for name, axis in axes(layer, "in").items():
            weight = getattr(layer, name)
            groups = groups_of(layer)
            size, given = weight.shape[axis], weight.shape[0] // groups
            for channel in channels:
                # A group of a convolution takes its own channels, by numbers from 0.
                own = weight.narrow(0, channel // size * given, given) if groups > 1 else weight
                own.select(axis, channel % size).zero_()
