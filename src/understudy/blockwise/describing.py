"""Runs of modules as the blocks of a partition: what each is, and whether it can be one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.form import Block, Partition, Piece, Rest, placed
from understudy.blockwise.links import Walk, bare, extras, unfit
from understudy.blockwise.traced import Chained, leaving
from understudy.errors import ModelError
from understudy.students.blocks.chain import answer_of
from understudy.students.blocks.removal import parent_of
from understudy.students.profiling import profiled, used


def divided(
    walk: Walk, rows: Tensor, runs: Sequence[list[str]], *, measure: bool, elsewhere: str
) -> Partition:
    """The partition into these runs of modules, once it is seen to be one.

    Raises:
        ModelError: a run cannot be a block.
    """
    network = walk.network
    for paths in runs:
        if isinstance(network, Chained) and (edge := leaving(network, paths)):
            raise ModelError(
                f"`{paths[0]}` to `{paths[-1]}` cannot be one block, as a skip connection that "
                f"cannot be carried leaves its middle:\n{edge}\n{elsewhere}"
            )
        if why := unfit(walk, paths):
            raise ModelError(
                f"`{paths[0]}` to `{paths[-1]}` cannot be one block: {why}; {elsewhere}"
            )
    found = _described(walk, rows, runs, measure=measure)
    _verify(network, found, rows, elsewhere)
    return found


def _described(
    walk: Walk, rows: Tensor, runs: Sequence[Sequence[str]], *, measure: bool
) -> Partition:
    flops = flops_of(walk, rows)
    ms = profiled(walk.network, rows) if measure else None
    seen: set[int] = set()
    blocks = []
    for paths in runs:
        first, last = walk.runs[paths[0]], walk.runs[paths[-1]]
        if first.given is None or last.made is None:
            raise ModelError(f"no tensor goes through `{paths[0]}`: leave it out of the blocks")
        _check_rows(paths, first.given, last.made, min(2, len(rows)))
        blocks.append(
            Block(
                name=_name(paths),
                paths=tuple(paths),
                takes=tuple(first.given.shape[1:]),
                gives=tuple(last.made.shape[1:]),
                parameters=_parameters([walk.network.get_submodule(p) for p in paths], seen),
                flops=round(sum(inside(flops, paths))),
                ms=None if ms is None else float(sum(inside(ms, paths))),
                extras=extras(walk, paths[0]),
                items=tuple(walk.items[path] for path in paths),
                bare=bare(walk, paths),
            )
        )
    times = [block.ms for block in blocks if block.ms is not None]
    rest = Rest(
        parameters=_parameters([walk.network], seen),
        flops=round(sum(flops.values())) - sum(block.flops for block in blocks),
        ms=None if ms is None else max(0.0, float(sum(ms.values()) - sum(times))),
    )
    return Partition(blocks=tuple(blocks), rest=rest)


def _check_rows(paths: Sequence[str], given: Tensor, made: Tensor, count: int) -> None:
    for path, tensor in ((paths[0], given), (paths[-1], made)):
        if tensor.ndim < 2 or len(tensor) != count:
            raise ModelError(
                f"what goes through a block must be `[rows, ...]`, but at `{path}` it is "
                f"{list(tensor.shape)} for {count} rows of data: put rows first there "
                "(`batch_first=True` in recurrent layers and attention)"
            )


def _name(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return paths[0]
    same = parent_of(paths[0]) == parent_of(paths[-1])
    return f"{paths[0]}..{paths[-1].rpartition('.')[2] if same else paths[-1]}"


def _parameters(modules: Sequence[nn.Module], seen: set[int]) -> int:
    """Their parameters that were not seen yet, which then are."""
    found = {id(p): p.numel() for module in modules for p in module.parameters()}
    new = {key: size for key, size in found.items() if key not in seen}
    seen.update(new)
    return sum(new.values())


def inside(values: dict[str, Any], paths: Sequence[str]) -> list[Any]:
    """Those of the values that belong to these modules or are inside of them."""
    return [
        value
        for path, value in values.items()
        if any(path == one or path.startswith(f"{one}.") for one in paths)
    ]


def flops_of(walk: Walk, rows: Tensor) -> dict[str, int]:
    """Operations of every module by itself, for one row."""
    return {path: use.flops for path, use in used(walk.network, rows[:1]).items()}


def memory_of(walk: Walk, rows: Tensor) -> dict[str, int]:
    """Bytes of every module's own weights, and of what it gives for all rows."""
    found = {}
    for path, use in used(walk.network, rows[:1]).items():
        own = list(walk.network.get_submodule(path).parameters(recurse=False))
        made = walk.runs[path].made if path in walk.runs else None
        size = 4 if made is None else made.element_size()
        held = sum(parameter.numel() * parameter.element_size() for parameter in own)
        found[path] = held + len(rows) * size * use.elements
    return found


def _verify(network: nn.Module, found: Partition, rows: Tensor, elsewhere: str) -> None:
    """Put the blocks together again, and see that the network answers as it did."""
    goal = answer_of(network, rows[:2])
    if _answers(network, found, [block.name for block in found.blocks], rows, goal):
        return
    bad = [b.name for b in found.blocks if not _answers(network, found, [b.name], rows, goal)]
    names = ", ".join(f"`{name}`" for name in bad) or "several blocks together"
    raise ModelError(
        f"the network answers otherwise when {names} gives its stream alone: it uses more than "
        "the first tensor of the last module's answer, such as an inner layer's answer or a state "
        f"(a skip connection out of the block's middle); {elsewhere}"
    )


def _answers(
    network: nn.Module, found: Partition, names: Sequence[str], rows: Tensor, goal: Tensor
) -> bool:
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
    pieces = {}
    for name in names:
        block = found[name]
        modules = [network.get_submodule(path) for path in block.paths]
        pieces[name] = Piece(modules, bare=[path in block.bare for path in block.paths])
    try:
        made = answer_of(placed(network, found, pieces, shared=shared), rows[:2])
    except ModelError:  # whatever the network does with an answer that lacks a part
        return False
    same = made.shape == goal.shape and (made == goal) | (made.isnan() & goal.isnan())
    return bool(torch.as_tensor(same).all())
