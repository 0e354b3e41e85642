"""How a network ends: its last layer, and the features that it reads, found by a dry run."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.features.resizing import resize

ONE = (1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkEnd:
    """How a network ends.

    Attributes:
        head: the last layer.
        head_path: where it is.
        features: the map from which the last layer reads, or the vectors that it reads.
        features_path: the layer that gives them; empty where none does.
        vector_path: the layer that gives the very vectors, or else the map whose mean they are.
        grid: the height and the width to which the map is averaged before it becomes a vector;
            1 and 1 is the mean over space, and says nothing where the features are no map.
        direct: whether the vectors are the mean of what the layer gives, and not of the positive
            part, or of several places.
    """

    head: nn.Linear
    head_path: str
    features: Tensor
    features_path: str
    vector_path: str
    grid: tuple[int, int]
    direct: bool


def network_end(
    side: str, network: nn.Module, rows: Tensor, *, head: str = "", features: str = ""
) -> NetworkEnd:
    """Look at it, in evaluation mode.

    Args:
        side: what errors call the network.
        network: any module that ends in a linear layer on one vector per row; it is not changed.
        rows: two raw rows or more.
        head: path of the last layer; by default it is found.
        features: path of the layer that gives the features; likewise.

    Raises:
        ModelError: it does not take the rows, a path is not there, or it ends otherwise.
    """
    with evaluating(network):
        runs = _dry_run(side, network, rows)
    once = {run.path: run for run in runs}
    for path in (head, features):
        if path and path not in once:
            raise ModelError(
                f"the {side} has no layer `{path}` that runs just once; there are: "
                f"{', '.join(sorted(p for p in once if p))}"
            )
    last = once[head] if head else _last(runs)
    if last is None or not isinstance(last.module, nn.Linear) or last.given is None:
        raise ModelError(
            f"the last layer of the {side} must be nn.Linear, but it is "
            f"{type(last.module).__name__ if last else 'not to be seen'}: name it with "
            f"`{side}_head`, or choose another student"
        )
    if last.given.ndim != 2:
        raise ModelError(
            f"the last layer of the {side} must read one vector per row, [batch, width], but it "
            f"reads {list(last.given.shape)}: choose another student"
        )
    pooled = _pooled([once[features]] if features else runs, last.given)
    vector = _vector(runs, last.given)
    path = features or (pooled.path if pooled else vector)
    shown = pooled.features if pooled else once[path].made if path else None
    return NetworkEnd(
        head=last.module,
        head_path=last.path,
        features=last.given if shown is None else shown,
        features_path=path,
        vector_path=vector or (pooled.path if pooled and pooled.direct else ""),
        grid=pooled.grid if pooled else ONE,
        direct=pooled is None or pooled.direct,
    )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: a dry run must not move running statistics."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What one module did in a dry run, in the order in which modules ended."""

    path: str
    module: nn.Module
    given: Tensor | None
    made: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pooled:
    """A layer whose map becomes the vectors that are read, and how."""

    path: str
    features: Tensor
    grid: tuple[int, int]
    direct: bool


def _dry_run(side: str, network: nn.Module, rows: Tensor) -> list[_Run]:
    runs: list[_Run] = []

    def keep(path: str, module: nn.Module, args: Any, made: Any) -> None:
        given = args[0] if args and isinstance(args[0], Tensor) else None
        kept = made.detach() if isinstance(made, Tensor) else None
        runs.append(_Run(path=path, module=module, given=given, made=kept))

    hooks = [
        module.register_forward_hook(lambda m, args, made, path=path: keep(path, m, args, made))
        for path, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(rows)
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"the {side} does not take the example rows {list(rows.shape)} ({error}): pass two "
            "rows or more as they are in the data"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(run.path for run in runs)
    return [run for run in runs if times[run.path] == 1]


def _last(runs: list[_Run]) -> _Run | None:
    # A module around others ends after them, with weights of its own or without.
    inner = [run for run in runs if not any(True for _ in run.module.children())]
    weighted = [run for run in inner if any(True for _ in run.module.parameters())]
    return weighted[-1] if weighted else None


def _vector(runs: list[_Run], read: Tensor) -> str:
    found = [run.path for run in runs if run.made is not None and _same(run.made, read)]
    return found[-1] if found else ""


def _pooled(runs: list[_Run], read: Tensor) -> _Pooled | None:
    found = [pooled for run in runs if (pooled := _pooling(run, read)) is not None]
    # The outermost of several modules with one outcome ends last; of a map and what a layer made
    # of it by averaging, the map is the one that has all there is to imitate.
    best = [p for p in found if p.direct] or found
    size = max((p.features[0, 0].numel() for p in best), default=0)
    return next((p for p in reversed(best) if p.direct or p.features[0, 0].numel() == size), None)


def _pooling(run: _Run, read: Tensor) -> _Pooled | None:
    maps = run.made
    if maps is None or maps.ndim != 4 or maps.shape[2] * maps.shape[3] == 1:
        return None
    if len(maps) != len(read) or read.shape[1] % maps.shape[1]:
        return None
    places = read.shape[1] // maps.shape[1]
    grids = [(a, places // a) for a in range(1, places + 1) if places % a == 0]
    for shown in (maps, maps.relu()):
        for grid in grids:
            if grid[0] > maps.shape[2] or grid[1] > maps.shape[3]:
                continue
            if _same(resize(shown, grid).flatten(1), read):
                direct = shown is maps and grid == ONE
                return _Pooled(path=run.path, features=shown, grid=grid, direct=direct)
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)
