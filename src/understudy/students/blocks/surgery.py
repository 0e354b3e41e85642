"""The chain of blocks that a network is made of, and looking at it with one of them left out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.blocks.chain import Run, answer_of, chain_of, given_to, keeps_shape, look
from understudy.students.blocks.removal import first_tensor, members, parent_of, remove, with_first


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One block of the chain.

    Attributes:
        path: in the network.
        removable: whether the network runs without it as if it passed its input on.
        stage: which container it stands in, from 0, in the order in which they run.
        outer: whether the code around it adds what it gives to what it takes.
    """

    path: str
    removable: bool
    stage: int
    outer: bool = False


def units(network: nn.Module, rows: Tensor) -> tuple[Unit, ...]:
    """The repeated blocks of the whole network, in the order in which they run.

    Where a network has stages of blocks, these are the blocks of all stages: the residual blocks
    of a ResNet, the layers of a transformer. A network of single layers in a sequence has those,
    each with the normalisation, activation and dropout behind it.

    A block is removable where its answer has the shape of its input, and the network without it
    runs and gives what it gives with the block skipped; both are tried on two rows.

    Args:
        network: it is not changed.
        rows: two rows or more that it takes as its one argument.

    Raises:
        ModelError: the network does not take the rows, or repeats no block.
    """
    runs = look(network, rows)
    chain = chain_of(network, runs)
    stages = list(dict.fromkeys(map(parent_of, chain)))
    return tuple(
        Unit(
            path=path,
            removable=_removable(network, rows, runs, path, chain),
            stage=stages.index(parent_of(path)),
            outer=runs[path].outer,
        )
        for path in chain
    )


@contextmanager
def skipped(network: nn.Module, path: str, *, outer: bool = False) -> Iterator[None]:
    """Inside, the block at `path` gives what it is given, in the form of its own answer.

    The block still runs, so it costs its time; only its answer is replaced.

    Args:
        network: runs inside.
        path: of the block.
        outer: whether the code around adds what the block gives to what it takes: then it gives
            zeros.

    Raises:
        ModelError: there is no such block.
    """
    try:
        modules = [network.get_submodule(name) for name in members(network, path)]
    except AttributeError:
        raise ModelError(
            f"{type(network).__name__} has no block `{path}`: see `named_modules()`"
        ) from None
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_passing(module, zeros=outer and module is modules[-1]))
        yield


@contextmanager
def _passing(module: nn.Module, *, zeros: bool) -> Iterator[None]:
    given: list[Tensor | None] = []

    def before(module: nn.Module, args: Any, settings: Any) -> None:
        found = given_to(module, args, settings)
        # A copy, as the block may write over what it is given.
        given.append(None if found is None else found.clone())

    def after(module: nn.Module, _args: Any, _settings: Any, made: Any) -> Any:
        kept = given.pop()
        if kept is None or first_tensor(made) is None:
            raise ModelError(f"{type(module).__name__} cannot be skipped: no tensor goes through")
        return with_first(made, torch.zeros_like(kept) if zeros else kept)

    hooks = [
        module.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def structure(network: nn.Module) -> nn.Module:
    """A copy of the modules that shares the weights: cheap, and safe to take apart."""
    memo = {id(t): t for t in (*network.parameters(), *network.buffers())}
    made: nn.Module = deepcopy(network, memo)
    return made


def copied(network: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        return deepcopy(network)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{type(network).__name__} cannot be copied ({error}): remove hooks and tensors with a "
            "gradient history from it first"
        ) from error


def _removable(
    network: nn.Module, rows: Tensor, runs: Mapping[str, Run], path: str, chain: Sequence[str]
) -> bool:
    if not keeps_shape(runs[path]):
        return False
    try:
        outer = runs[path].outer
        with skipped(network, path, outer=outer):
            goal = answer_of(network, rows[:2])
        cut = structure(network)
        items = {path: runs[path].items}
        remove(cut, [path], chain=chain, items=items, outer={path} if outer else ())
        return same(answer_of(cut, rows[:2]), goal)
    except Exception:  # whatever the user's own forward raises without the block
        return False


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two answers are equal but for rounding."""
    if one.shape != other.shape:
        return False
    size = max(1.0, float(other.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()))
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * size, equal_nan=True)
