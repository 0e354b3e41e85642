"""Finding the chain of blocks that a network is made of, by a dry run."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.blocks.removal import declared, first_tensor
from understudy.students.blocks.sums import Sums


@contextmanager
def resting(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient for a while; modes and the random state are as before."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def answer_of(network: nn.Module, rows: Tensor) -> Tensor:
    """The first tensor of the network's answer, at rest.

    Raises:
        ModelError: it does not take the rows, or answers without a tensor.
    """
    try:
        with resting(network):
            found = first_tensor(network(rows))
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"{type(network).__name__} does not take {rows.dtype} rows {list(rows.shape)} "
            f"({error}): pass two rows or more as they are in the data"
        ) from error
    if found is None:
        raise ModelError(
            f"{type(network).__name__} answers without a tensor: wrap it in a module that gives one"
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one module did in a dry run.

    Attributes:
        path: of the module.
        given: the first tensor that it took.
        made: the first tensor that it gave.
        items: how many items its tuple has, 0 where it gave something else.
        given_version: how often that tensor had been written over when it was taken.
        made_version: likewise when it was given.
        joins: whether it took a further tensor of the shape of what it gave, as a sum does.
        outer: whether the code around it adds what it gave to what it took.
    """

    path: str
    given: Tensor | None
    made: Tensor | None
    items: int
    given_version: int
    made_version: int
    joins: bool = False
    outer: bool = False


def look(network: nn.Module, rows: Tensor) -> dict[str, Run]:
    """The modules that run just once on two of the rows, in the order in which they begin.

    Raises:
        ModelError: the network does not take the rows.
    """
    if rows.ndim < 2 or len(rows) < 1:
        raise ModelError(
            f"calibration rows must be `[rows, ...]`, one or more, but got {list(rows.shape)}"
        )
    begun: list[str] = []
    given: dict[str, tuple[Tensor | None, int]] = {}
    shapes: dict[str, list[torch.Size]] = {}
    runs: dict[str, Run] = {}
    sums = Sums()

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, settings: Any) -> None:
            begun.append(path)
            found = given_to(module, args, settings)
            given[path] = found, _version(found)
            all_there = [*args, *settings.values()]
            shapes[path] = [one.shape for one in all_there if isinstance(one, Tensor)]

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, _args: Any, made: Any) -> None:
            items = len(made) if type(made) is tuple else 0
            found, (taken, version) = first_tensor(made), given[path]
            sums.gave(found)
            runs[path] = Run(
                path=path,
                given=taken,
                made=found,
                items=items,
                given_version=version,
                made_version=_version(found),
                joins=found is not None and found.shape in shapes[path][1:],
            )

        return hook

    hooks: list[Any] = []
    for path, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
        hooks.append(module.register_forward_hook(after(path)))
    try:
        with sums:
            answer_of(network, rows[:2])
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(begun)
    once = {path: runs[path] for path in begun if times[path] == 1 and path in runs}
    return {
        path: replace(run, outer=sums.around(run.given, run.made)) for path, run in once.items()
    }


def _version(tensor: Tensor | None) -> int:
    return -1 if tensor is None or tensor.is_inference() else tensor._version


def given_to(module: nn.Module, args: Any, settings: Any) -> Tensor | None:
    """The first tensor among a module's arguments, in the order in which it declares them."""
    found = first_tensor(args)
    return first_tensor(declared(module, settings)) if found is None else found


def chain_of(network: nn.Module, runs: Mapping[str, Run]) -> tuple[str, ...]:
    """The blocks of all stages, in the order in which they run.

    Raises:
        ModelError: no class of modules stands for two blocks that run once each.
    """
    families = _families(network, runs)
    if not families or _aside(network, runs, families):
        raise ModelError(
            f"{type(network).__name__} has no repeated blocks to cut: two or more modules of one "
            "class must run, once each in a forward pass (shared blocks run several times); "
            "choose a network with repeated layers"
        )
    outer = [family for family in families if not _within(network, family, families)]
    chosen = max(outer or families, key=lambda family: _rank(network, runs, family))
    while inner := _inner(network, runs, chosen, families):
        chosen = inner
    return chosen


def _aside(network: nn.Module, runs: Mapping[str, Run], families: Sequence[Sequence[str]]) -> bool:
    """Whether there are but single layers beside blocks of more weight that run several times."""
    if not all(_single(network.get_submodule(family[0])) for family in families):
        return False
    most = max(sum(_weights(network.get_submodule(p)) for p in family) for family in families)
    return any(
        _weights(module) > most
        for path, module in network.named_modules()
        if not _single(module) and not any(f"{run}.".startswith(f"{path}.") for run in runs)
    )


def _within(network: nn.Module, family: Sequence[str], families: Sequence[Sequence[str]]) -> bool:
    """Whether most of a family stands in the members of another."""
    for other in families:
        if other is family or _single(network.get_submodule(other[0])):
            continue
        inside = [p for p in family if any(p.startswith(f"{name}.") for name in other)]
        if 2 * len(inside) > len(family):
            return True
    return False


def _families(network: nn.Module, runs: Mapping[str, Run]) -> list[tuple[str, ...]]:
    """Modules of one class that run, the outermost where one stands in another."""
    found: dict[Any, list[str]] = {}
    last = _last(network, runs)
    for path in runs:
        module = network.get_submodule(path)
        alone = _single(module)
        if not path or not _weights(module) or (alone and (path == last or not _mixes(runs[path]))):
            continue
        names = found.setdefault(_kind(module, alone), [])
        if not any(path.startswith(f"{name}.") for name in names):
            names.append(path)
    return [tuple(names) for names in found.values() if len(names) > 1]


def _mixes(run: Run) -> bool:
    """An embedding looks up, and is no block."""
    return run.given is not None and run.given.is_floating_point()


def _kind(module: nn.Module, alone: bool) -> Any:
    if type(module) is not nn.Sequential or alone:
        return type(module)
    return nn.Sequential, frozenset(type(m) for m in module.children() if _weights(m))


def _last(network: nn.Module, runs: Mapping[str, Run]) -> str | None:
    """The layer that answers, which is no block."""
    layers = [p for p in runs if _single(m := network.get_submodule(p)) and _weights(m)]
    return layers[-1] if layers else None


def _rank(
    network: nn.Module, runs: Mapping[str, Run], family: Sequence[str]
) -> tuple[bool, bool, int, int]:
    modules = [network.get_submodule(path) for path in family]
    whole = not _single(modules[0])
    steady = any(keeps_shape(runs[path]) for path in family)
    depth = family[0].count(".")
    return whole, steady, sum(map(_weights, modules)), -depth


def _inner(
    network: nn.Module,
    runs: Mapping[str, Run],
    stages: tuple[str, ...],
    families: list[tuple[str, ...]],
) -> tuple[str, ...] | None:
    """The blocks that these modules are mere sequences of, if they are."""
    for family in families:
        if family == stages or _single(network.get_submodule(family[0])):
            continue
        inside = {stage: [p for p in family if p.startswith(f"{stage}.")] for stage in stages}
        all_there = sum(map(len, inside.values())) == len(family)
        holders = type(network.get_submodule(stages[0])) is nn.Sequential
        more = len(family) > len(stages) or (holders and len(family) == len(stages))
        if not (all_there and more and all(names for names in inside.values())):
            continue
        if all(_straight(runs, stage, names[-1]) for stage, names in inside.items()):
            return family
    return None


def _straight(runs: Mapping[str, Run], stage: str, block: str) -> bool:
    """Whether a stage gives what its last block gives, or what single layers made of that.

    What joins it with another tensor is a shortcut around the blocks: then the stage is the block.
    """
    wanted = runs[stage].made, runs[stage].made_version
    makers = [run for path, run in runs.items() if path.startswith(f"{stage}.")]
    goal = runs[block].made, runs[block].made_version
    for _ in makers:
        if _is(wanted, goal):
            return True
        # The outermost module that gave it: what is within begins later.
        maker = next((r for r in makers if _is((r.made, r.made_version), wanted)), None)
        if maker is None or maker.joins:
            return False
        wanted = maker.given, maker.given_version
    return False


def _is(one: tuple[Tensor | None, int], other: tuple[Tensor | None, int]) -> bool:
    # A sum in place makes a new value of the same tensor.
    return one[0] is other[0] and one[1] == other[1]


def keeps_shape(run: Run) -> bool:
    """Whether a module gives a tensor like the one that it takes."""
    if run.given is None or run.made is None:
        return False
    return run.given.shape == run.made.shape and run.given.dtype == run.made.dtype


def _single(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
