"""Following the stream of a network from module to module, by a dry run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from understudy.blockwise.form import parted
from understudy.errors import ModelError
from understudy.students.blocks.chain import Run, look
from understudy.students.blocks.removal import first_tensor, taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A network's dry run on two rows.

    Attributes:
        network: itself.
        runs: what the modules that run once took and gave, in the order in which they begin.
        calls: their arguments, positional and named.
        items: how many items their tuples have, 0 for a bare tensor, -1 for anything else.
    """

    network: nn.Module
    runs: Mapping[str, Run]
    calls: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]]
    items: Mapping[str, int]


def walked(network: nn.Module, rows: Tensor) -> Walk:
    """Run a network on two of the rows.

    Raises:
        ModelError: it does not take the rows.
    """
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    items: dict[str, int] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            calls[path] = args, dict(kwargs)

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, _args: Any, made: Any) -> None:
            tuples = len(made) if type(made) is tuple else -1
            items[path] = 0 if isinstance(made, Tensor) else tuples

        return hook

    hooks: list[Any] = []
    for path, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
        hooks.append(module.register_forward_hook(after(path)))
    try:
        runs = look(network, rows)
    finally:
        for hook in hooks:
            hook.remove()
    return Walk(network=network, runs=runs, calls=calls, items=items)


def following(walk: Walk, path: str, *, around: str = "") -> str | None:
    """The outermost module that takes what the one at `path` gives; None where none does.

    A module that has `around` inside is passed over for what it begins with.
    """
    run, seen = walk.runs[path], False
    for other, next_run in walk.runs.items():
        if other == path:
            seen = True
            continue
        outside = not other.startswith(f"{path}.") and not around.startswith(f"{other}.")
        if seen and outside and takes(next_run, run):
            return other
    return None


def takes(run: Run, earlier: Run) -> bool:
    """Whether a module takes the very tensor that another gave, not written over since."""
    return run.given is earlier.made and run.given_version == earlier.made_version


def joints(walk: Walk, first: str, goal: str) -> tuple[str, ...] | None:
    """The modules between two modules, through which the stream goes from one to the other.

    None where something other than a module stands between them.
    """
    found: list[str] = []
    path = first
    while len(found) <= len(walk.runs):
        after = following(walk, path, around=goal)
        there = takes(walk.runs[goal], walk.runs[path])
        if there and (after in (None, goal) or not _idle(walk, str(after))):
            return tuple(found)
        if after is None or after in found:
            return None
        found.append(after)
        path = after
    return None


def _idle(walk: Walk, path: str) -> bool:
    """Whether a module passes on what it is given, as dropout does at rest."""
    run = walk.runs[path]
    return run.made is run.given and run.made_version == run.given_version


def unfit(walk: Walk, paths: Sequence[str]) -> str:
    """Why these modules, one after the other, cannot be one block; empty where they can."""
    for path in paths:
        if walk.items[path] < 0:
            kind = type(walk.network.get_submodule(path)).__name__
            return f"`{path}` ({kind}) answers neither with a tensor nor with a tuple"
    first = others(walk, paths[0])
    for path in paths[1:]:
        mine = others(walk, path)
        # A part of a traced network passes over what it does not use.
        loose = hasattr(walk.network.get_submodule(path), "carries")
        if not _within(mine, first, loose=loose):
            return f"`{path}` is called with other arguments than `{paths[0]}`"
    return ""


def bare(walk: Walk, paths: Sequence[str]) -> tuple[str, ...]:
    """The modules that are called with the stream alone, where the first is not."""
    if not any(others(walk, paths[0])):
        return ()
    return tuple(path for path in paths[1:] if not any(others(walk, path)))


def extras(walk: Walk, path: str) -> tuple[str, ...]:
    """Names of the tensors that a module takes beside the stream."""
    args, kwargs = others(walk, path)
    module = walk.network.get_submodule(path)
    known = taken(module)[1:]
    names = [*known[: len(args)], *(f"argument {n + 2}" for n in range(len(known), len(args)))]
    pairs = [*zip(names, args, strict=True), *kwargs.items()]
    return tuple(name for name, value in pairs if first_tensor(value) is not None)


def others(walk: Walk, path: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A module's arguments without the stream."""
    try:
        _, args, kwargs = parted(walk.network.get_submodule(path), *walk.calls[path])
    except ModelError as error:
        raise ModelError(f"`{path}` cannot be in a block: {error}") from None
    return args, kwargs


def _within(
    mine: tuple[tuple[Any, ...], dict[str, Any]],
    first: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    loose: bool,
) -> bool:
    """Whether a module gets what the first one gets, or the stream alone."""
    if not any(mine):
        return True
    known = {key: first[1][key] for key in mine[1] if key in first[1]} if loose else first[1]
    return _same(mine[0], first[0]) and _same(mine[1], known)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) or type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, (bool, int, float, str)) and one == other
