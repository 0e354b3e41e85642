"""Whether a network, and what a width cut leaves of it, can be run and means the same."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from understudy.students.width_choice import Choice, written
from understudy.students.width_plan import WidthPlan, groups_of, remove

from understudy.errors import ModelError
from understudy.models.resnet import PaddedShortcut
from understudy.students.criteria import answer, axes


def check_target(keep: float | int | None, parameters: int | float | None, round_to: int) -> None:
    """Refuse a target that means nothing.

    Raises:
        ModelError: neither or both are given, or one is outside of its range.
    """
    if (keep is None) == (parameters is None):
        raise ModelError(
            f"exactly one of `keep` and `parameters` must be given, but got {keep=}, {parameters=}"
        )
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
    model.eval()
    try:
        with torch.no_grad():
            answers = answer(model(rows[:2]))
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
    return answers


def check_runs(
    network: nn.Module,
    plan: WidthPlan,
    rows: Tensor,
    shape: torch.Size,
    choice: Choice,
    kept: list[int],
) -> None:
    """That the cut network runs and answers in the old shape; else, which layers are to blame."""
    trouble = _trouble(network, plan, rows, shape)
    if trouble is None:
        return
    broken = []
    for place, site in enumerate(choice.sites):
        alone = [count if i == place else choice.sites[i].units for i, count in enumerate(kept)]
        one = written(network, choice, alone, by=plan.by, keep=plan.keep, whole=())
        if _trouble(network, one, rows, shape) is not None:
            broken.append(site.name)
    names = ", ".join(broken or [site.name for site in choice.sites])
    raise ModelError(
        f"a narrower network must run as the whole one does, but once {names} lost channels "
        f"{trouble}: use protect: [{names}]"
    )


def _trouble(network: nn.Module, plan: WidthPlan, rows: Tensor, shape: torch.Size) -> str | None:
    slim = copy.deepcopy(network)
    remove(slim, plan)
    try:
        found = answered(slim, rows).shape
    except ModelError as error:
        return str(error)
    if found != shape:
        return f"it answers {tuple(found)} instead of {tuple(shape)}"
    layers = {path for cut, _ in plan.cuts for path, _ in cut}
    norms = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
    if not rows.is_floating_point() or any(
        isinstance(network.get_submodule(path), norms) for path in layers
    ):
        # What these layers say of a channel depends on the others, so the next law does not hold.
        return None
    return _confused(network, slim, plan, rows)


def _confused(network: nn.Module, slim: nn.Module, plan: WidthPlan, rows: Tensor) -> str | None:
    """Whether the cut network is the whole one whose removed channels nobody listens to."""
    deaf = copy.deepcopy(network)
    for layers, gone in plan.cuts:
        for path, side in layers:
            layer = deaf.get_submodule(path)
            if side == "in" and not isinstance(layer, PaddedShortcut):
                _silence(layer, list(gone))
    try:
        exact = rows[:2].double()
        whole, cut = (answered(model.double(), exact) for model in (deaf, slim))
    except (ModelError, TypeError, RuntimeError):
        return None  # a network, or a device, with one precision of its own
    if torch.allclose(whole, cut, rtol=1e-6, atol=1e-9 * (1 + float(whole.abs().max()))):
        return None
    return "the others mean something else (an operation mixes channels by their number)"


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
