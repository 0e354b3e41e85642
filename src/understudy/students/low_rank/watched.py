"""Rows run through a network whose layers are watched: which may be cut, and what they answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from understudy.errors import ModelError, did_you_mean
from understudy.students.blocks.removal import first_tensor
from understudy.students.blocks.surgery import same
from understudy.students.low_rank.factors import Layer, read, reads_inputs, sides


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What a network's layers did with the rows.

    Attributes:
        order: layers and embeddings in the order in which they first ran.
        layers: those of the order that can have factors.
        left: why one that could have factors must not.
        moments: mean second moment per layer, float64: of its answers without bias, or of its
            inputs where these are fewer and it is linear.
    """

    order: tuple[str, ...]
    layers: dict[str, Layer]
    left: dict[str, str]
    moments: dict[str, Tensor]


def by_reason(left: Mapping[str, str]) -> list[str]:
    """Layers that must not be cut, reason by reason: the first few, and how many more."""
    told = []
    for why in dict.fromkeys(left.values()):
        paths = [path for path in left if left[path] == why]
        more = [] if len(paths) <= 4 else [f"{len(paths) - 3} more"]
        told.append(f"; {', '.join([*paths[: 3 if more else 4], *more])}: {why}")
    return told


def looked(network: nn.Module, rows: Tensor, *, batch_size: int, moments: Sequence[str]) -> Looked:
    """Run the rows through a copy of the network, and watch its layers.

    Args:
        network: any module; it is not changed.
        rows: what it takes.
        batch_size: rows per forward pass.
        moments: patterns of paths, of layers to gather second moments of.

    Raises:
        ModelError: the network cannot be copied, or does not take the rows.
    """
    if rows.ndim < 1 or len(rows) < 1:
        raise ModelError(f"calibration needs a row or more, but got {list(rows.shape)}")
    try:
        copy = deepcopy(network).eval()
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"{type(network).__name__} cannot be copied: {error}") from error
    if batch_size < 1:
        raise ModelError(f"`batch_size >= 1` must hold, but got {batch_size=}")
    order: list[str] = []
    left = _left(copy)
    goal = _steady(copy, rows[:2])
    watched = _watch(copy, order, moments=moments, but=left)
    try:
        with torch.no_grad():
            for at in range(0, len(rows), batch_size):
                copy(rows[at : at + batch_size])
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"{type(network).__name__} does not take the calibration rows {list(rows.shape)} of "
            f"{rows.dtype} ({error}): give it rows as they are in the data, preprocessed"
        ) from error
    ran = tuple(dict.fromkeys(order))
    second = {path: one.moment() for path, one in watched.items() if one.gathers}
    # Only now, as what runs is counted.
    found = None if goal is None else _answer(copy, rows[:2])
    if goal is not None and (found is None or not same(found, goal)):
        raise ModelError(
            f"{type(network).__name__} gives another answer once other modules stand where its "
            "layers were, as if its `forward` asked for their classes: cut it by depth or width"
        )
    _train(copy, rows[:2])
    for path, one in watched.items():
        if one.reads:
            names = ", ".join(f"`{name}`" for name in sorted(one.reads))
            left[path] = f"as the module around it reads its {names}"
        elif path not in ran:
            left[path] = "as it does not run on these rows"
    return Looked(
        order=ran,
        layers={path: one.layer for path, one in watched.items()},
        left=left,
        moments=second,
    )


def _answer(copy: nn.Module, rows: Tensor) -> Tensor | None:
    with torch.no_grad(), suppress(Exception):  # whatever the user's own forward raises
        return first_tensor(copy(rows))
    return None


def _steady(copy: nn.Module, rows: Tensor) -> Tensor | None:
    """What a network answers; None where it answers with no tensor, or never the same."""
    one, other = _answer(copy, rows), _answer(copy, rows)
    return one if one is not None and other is not None and same(one, other) else None


def _train(copy: nn.Module, rows: Tensor) -> None:
    """Run it as it is run to learn, for what is read only then; it need not take so few rows."""
    copy.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), suppress(Exception):
        copy(rows)


def called(network: nn.Module, order: Sequence[str], layers: Sequence[str]) -> list[str]:
    """The layers whose paths fit one of some patterns, in the order in which they run.

    Args:
        network: whose layers.
        order: in which its layers and embeddings first ran.
        layers: patterns, with `*`; none: all but the first and the last to run.

    Raises:
        ModelError: a pattern fits no layer that can have factors.
    """
    able = [path for path, part in network.named_modules() if path and min(sides(part))]
    if isinstance(layers, str):
        raise ModelError(f"`layers` must be a list of patterns, but got a text: [{layers!r}]")
    if not layers:
        # Embeddings are first layers too.
        layers, able = ("*",), [path for path in able if path not in (*order[:1], *order[-1:])]
    for pattern in layers:
        if able and not any(fnmatchcase(path, pattern) for path in able):
            raise ModelError(
                f"`layers` names `{pattern}`, but no nn.Linear, no nn.Conv2d without groups and no "
                f"Conv1D of Hugging Face's is called so: {did_you_mean(pattern, able)}"
            )
    chosen = [path for path in able if any(fnmatchcase(path, one) for one in layers)]
    place = {path: number for number, path in enumerate(order)}
    return sorted(chosen, key=lambda path: place.get(path, len(place)))


def _watch(
    network: nn.Module, order: list[str], *, moments: Sequence[str], but: Mapping[str, str]
) -> dict[str, "_Watched"]:
    """Put watched layers in the place of those that can be cut."""

    def note(path: str) -> Callable[..., None]:
        return lambda *_: order.append(path)

    watched: dict[str, _Watched] = {}
    for path, part in network.named_modules():
        if path and path not in but and min(sides(part)):
            gathers = any(fnmatchcase(path, pattern) for pattern in moments)
            watched[path] = _Watched(part, path, order, gathers=gathers)
        elif _weighted(part):
            part.register_forward_pre_hook(note(path))
    for path, one in watched.items():
        network.set_submodule(path, one)
    return watched


class _Watched(nn.Module):
    """A layer that counts its uses, what others read of it, and its second moment."""

    def __init__(self, layer: Layer, path: str, order: list[str], *, gathers: bool) -> None:
        super().__init__()
        self.reads: set[str] = set()
        self.layer = layer
        self.path, self.order, self.gathers = path, order, gathers
        self.positions = 0
        self.sum: Tensor | None = None
        self.training = layer.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("layer"), name)
            self.reads.add(name)
            return found

    def forward(self, inputs: Tensor) -> Tensor:
        self.order.append(self.path)
        made: Tensor = self.layer(inputs)
        if self.gathers:
            told = read(self.layer, inputs, made)
            if told.dtype not in (torch.float32, torch.float64):
                told = told.float()
            part = (told.T @ told).double()
            self.sum = part if self.sum is None else self.sum + part
            self.positions += len(told)
        return made

    def moment(self) -> Tensor:
        """Its mean over all positions.

        Raises:
            ModelError: it is not finite.
        """
        outputs, inputs = sides(self.layer)
        size = inputs if reads_inputs(self.layer) else outputs
        if self.sum is None:
            return torch.zeros(size, size, dtype=torch.float64)
        mean = self.sum / self.positions
        if not mean.isfinite().all():
            raise ModelError(
                f"`{self.path}` gives numbers that are not finite on the calibration rows: use "
                "others, or plan with `aware: false`"
            )
        return mean


def _weighted(part: nn.Module) -> bool:
    return any(p.ndim > 1 for p in part.parameters(recurse=False)) and not any(
        True for _ in part.children()
    )


def _left(network: nn.Module) -> dict[str, str]:
    """Layers that must stay as they are, seen without running them."""
    owners = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    places = Counter(id(m) for _, m in network.named_modules(remove_duplicate=False))
    left = {}
    for path, part in network.named_modules():
        if not min(sides(part)):
            continue
        if places[id(part)] > 1:
            left[path] = "as several parts of the network share it"
        elif any(owners[id(p)] > 1 for p in part.parameters()):
            left[path] = "as its weights are tied to another layer's"
        elif is_parametrized(part):
            left[path] = "as its weights are computed from others"
        elif part._forward_hooks or part._forward_pre_hooks:
            left[path] = "as it has hooks of its own"
    return left
