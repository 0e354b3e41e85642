"""What each module of a network does by itself for one row: operations, numbers, time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import thread_time
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.evaluate.operations import counting

# Exported files have none of these: they are folded into a layer, or do nothing by themselves.
_NOTHING = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
    nn.Sequential,
)
_ROUNDS = 3
_MOST_ROWS = 16
# In shorter runs most of the time is PyTorch's own, which an exported file does not spend.
_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What one module did by itself, its children aside.

    Attributes:
        flops: a multiply-add counts as two.
        elements: how many numbers it gave.
    """

    flops: int
    elements: int


def used(network: nn.Module, rows: Tensor) -> dict[str, Use]:
    """What every module that runs does with the rows, by path; the root's path is empty.

    Raises:
        ModelError: the network does not take the rows.
    """
    elements: dict[str, int] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, made: Any) -> None:
            del module, args
            elements[path] = elements.get(path, 0) + _numel(made)

        return hook

    with _resting(network), _hooked(network, after=note), counting(network) as counted:
        _run(network, rows)
    flops = counted.by_path
    own = _own({path: float(flops.get(path, 0)) for path in elements})
    return {path: Use(flops=round(own[path]), elements=elements[path]) for path in elements}


def profiled(network: nn.Module, rows: Tensor) -> dict[str, float]:
    """Milliseconds per row that every module takes by itself, on one thread, by path.

    This is processor time, so that a busy machine does not lengthen it.

    Raises:
        ModelError: the network does not take the rows.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _resting(network):
            _run(network, rows[:1])
            start = thread_time()
            _run(network, rows[:1])
            spent = max(thread_time() - start, 1e-6)
            number = min(_MOST_ROWS, int(_SECONDS / spent) + 1)
            fed = rows[torch.arange(number) % len(rows)]
            rounds = [_timed(network, fed) for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    inclusive = {p: median(one.get(p, 0.0) for one in rounds) for p in rounds[0]}
    free = {path for path, part in network.named_modules() if isinstance(part, _NOTHING)}
    return {
        path: 0.0 if path in free else max(0.0, value) * 1e3 / number
        for path, value in _own(inclusive).items()
    }


def _timed(network: nn.Module, rows: Tensor) -> dict[str, float]:
    begun: dict[str, float] = {}
    spent: dict[str, float] = {}

    def begin(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            begun[path] = thread_time()

        return hook

    def end(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            spent[path] = spent.get(path, 0.0) + thread_time() - begun[path]

        return hook

    with _hooked(network, before=begin, after=end):
        _run(network, rows)
    return spent


def _own(inclusive: Mapping[str, float]) -> dict[str, float]:
    """Sums that include what lies inside, without that."""
    own = dict(inclusive)
    for path, value in inclusive.items():
        above = path
        while above:
            above = above.rpartition(".")[0]
            if above in own:
                own[above] -= value
                break
    return own


def _run(network: nn.Module, rows: Tensor) -> None:
    try:
        network(rows)
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"{type(network).__name__} does not take {rows.dtype} rows {list(rows.shape)} "
            f"({error}): pass rows as they are in the data, preprocessed"
        ) from error


@contextmanager
def _resting(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient, and no fused layers, inside which nothing can be seen."""
    modes = {module: module.training for module in network.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    network.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _hooked(
    network: nn.Module,
    *,
    before: Callable[[str], Callable[..., None]] | None = None,
    after: Callable[[str], Callable[..., None]],
) -> Iterator[None]:
    hooks = []
    for path, module in network.named_modules():
        if before is not None:
            hooks.append(module.register_forward_pre_hook(before(path)))
        hooks.append(module.register_forward_hook(after(path)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _numel(made: Any) -> int:
    if isinstance(made, Tensor):
        return made.numel()
    if isinstance(made, Mapping):
        made = tuple(made.values())
    return next((one.numel() for one in made if isinstance(one, Tensor)), 0) if made else 0
