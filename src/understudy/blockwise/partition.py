"""Dividing a network into a chain of blocks."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.balancing import balanced
from understudy.blockwise.cost import module_flops
from understudy.blockwise.form import Block, Partition, Piece, Rest, placed
from understudy.blockwise.links import Walk, bare, extras, joints, unfit, walked
from understudy.blockwise.named import named_runs
from understudy.blockwise.traced import Chained, leaving
from understudy.errors import ModelError
from understudy.students.blocks.chain import answer_of, chain_of
from understudy.students.blocks.removal import members, parent_of
from understudy.students.profiling import profiled, used

_BY = ("block", "stage", "flops", "memory")


def partition(
    network: nn.Module,
    rows: Tensor,
    *,
    by: str | Sequence[str] = "block",
    parts: int | None = None,
    measure: bool = True,
) -> Partition:
    """Divide a network into a chain of blocks.

    Units are its repeated modules in the order in which they run: residual blocks, transformer
    layers, recurrent layers, or single layers with the activations behind them. What lies between
    two units of one block goes along; what lies between blocks stays outside of them.

    The blocks are put together again on two rows before this returns: the network must then
    answer as it did, bit for bit.

    Args:
        network: it is left as found. One without repeated modules becomes one with
            `traced.as_chain`.
        rows: what it takes as its one argument, two rows or more.
        by: `block`: every unit; `stage`: the units of one container together; `flops` or
            `memory`: `parts` runs of units, the heaviest of which is as light as can be; or the
            paths of the blocks' first modules. Memory is that of the weights and of what all
            modules give for all of `rows`.
        parts: how many blocks, for `flops` and `memory` only.
        measure: whether to time the modules, in PyTorch on one thread; `cost.timed` times blocks
            as they are deployed.

    Raises:
        ModelError: the network does not take the rows, has no units, or cannot be cut there: what
            stands between two modules of a block is no module, they are called with different
            arguments, the network uses more of a block than its stream, or that does not have
            its rows first.
    """
    _check(by, parts)
    walk = walked(network, rows)
    runs = _grouped(walk, rows, by, parts) if isinstance(by, str) else named_runs(walk, list(by))
    for paths in runs:
        if isinstance(network, Chained) and (edge := leaving(network, paths)):
            raise ModelError(
                f"`{paths[0]}` to `{paths[-1]}` cannot be one block, as a skip connection that "
                f"cannot be carried leaves its middle:\n{edge}\n{_elsewhere(by)}"
            )
        if why := unfit(walk, paths):
            raise ModelError(
                f"`{paths[0]}` to `{paths[-1]}` cannot be one block: {why}; {_elsewhere(by)}"
            )
    found = _described(walk, rows, runs, measure=measure)
    _verify(network, found, rows, _elsewhere(by))
    return found


def _check(by: str | Sequence[str], parts: int | None) -> None:
    if isinstance(by, str) and by not in _BY:
        raise ModelError(
            f"a network is divided by {', '.join(_BY)} or at a list of module paths, but got "
            f"by={by!r}"
        )
    weighed = by in ("flops", "memory") if isinstance(by, str) else False
    if weighed != (parts is not None):
        raise ModelError(
            "`parts` says how many blocks of equal flops or memory there shall be, and goes with "
            f"these two only, but got {by=}, {parts=}"
        )


def _elsewhere(by: str | Sequence[str]) -> str:
    return "divide by block" if by != "block" else "name the first modules of the blocks instead"


def _grouped(walk: Walk, rows: Tensor, by: str, parts: int | None) -> list[list[str]]:
    units = _units(walk)
    if by == "block":
        return units
    if by == "stage":
        stages: dict[str, list[list[str]]] = {}
        for unit in units:
            stages.setdefault(parent_of(unit[0]), []).append(unit)
        joined = [_joined(walk, stage) for stage in stages.values()]
        for run, stage in zip(joined, stages.values(), strict=True):
            if run is None:
                raise ModelError(
                    f"the units from `{stage[0][0]}` to `{stage[-1][0]}` cannot be one block: "
                    "something other than a module stands between them; divide by block"
                )
        return [run for run in joined if run is not None]
    assert parts is not None
    if not 1 <= parts <= len(units):
        raise ModelError(
            f"`1 <= parts <= units` must hold, but got {parts=} and {len(units)} units "
            f"({units[0][0]} to {units[-1][0]}): choose fewer"
        )
    weights = _flops(walk, rows) if by == "flops" else _memory(walk, rows)
    costs = [sum(_inside(weights, unit)) for unit in units]
    found = balanced(costs, parts, allowed=lambda i, j: _may_join(walk, units[i:j]))
    if found is None:
        raise ModelError(_no_division(walk, units, parts))
    return [run for i, j in found if (run := _joined(walk, units[i:j])) is not None]


def _units(walk: Walk) -> list[list[str]]:
    """Modules that may not be divided further, each with what goes with it."""
    network = walk.network
    if isinstance(network, Chained):
        # Tokens are no stream, and the layer that answers is no block.
        found = [f"parts.{number}" for number in range(len(network.parts) - 1)]
        return [[path] for path in found if _floats(walk.runs[path].given)]
    try:
        chain = chain_of(network, walk.runs)
    except ModelError as error:
        raise ModelError(
            f"{error}; or divide what `understudy.blockwise.traced.as_chain(network, rows)` makes "
            "of it"
        ) from None
    return [members(network, path) for path in chain]


def _floats(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point()


def _joined(walk: Walk, units: Sequence[Sequence[str]]) -> list[str] | None:
    """The modules of neighbouring units and what lies between them; None where that is no module.

    Behind a unit's last module the stream goes on to the next unit.
    """
    found = list(units[0])
    for before, after in pairwise(units):
        way = joints(walk, before[-1], after[0])
        if way is None:
            return None
        found += [*way, *after]
    return found


def _may_join(walk: Walk, units: Sequence[Sequence[str]]) -> bool:
    run = _joined(walk, units)
    if run is None or unfit(walk, run):
        return False
    return not (isinstance(walk.network, Chained) and leaving(walk.network, run))


def _no_division(walk: Walk, units: Sequence[Sequence[str]], parts: int) -> str:
    for before, after in pairwise(units):
        if not _may_join(walk, [before, after]):
            text = f"`{before[0]}` and `{after[0]}` cannot be in one block"
            run = _joined(walk, [before, after])
            if run is not None and isinstance(walk.network, Chained):
                text += f":\n{leaving(walk.network, run)}\n"
            return (
                f"the network cannot be divided into {parts} runs of its {len(units)} units, since "
                f"{text}; choose more parts, or name the first modules of the blocks"
            )
    return f"the network cannot be divided into {parts} runs: choose more parts"


def _described(
    walk: Walk, rows: Tensor, runs: Sequence[Sequence[str]], *, measure: bool
) -> Partition:
    flops = _flops(walk, rows)
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
                flops=round(sum(_inside(flops, paths))),
                ms=None if ms is None else float(sum(_inside(ms, paths))),
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


def _inside(values: dict[str, Any], paths: Sequence[str]) -> list[Any]:
    return [
        value
        for path, value in values.items()
        if any(path == one or path.startswith(f"{one}.") for one in paths)
    ]


def _flops(walk: Walk, rows: Tensor) -> dict[str, int]:
    """Operations of every module by itself, for one row."""
    found = {path: use.flops for path, use in used(walk.network, rows[:1]).items()}
    for path, run in walk.runs.items():
        counted = module_flops(walk.network.get_submodule(path), run.given)
        if counted is not None:
            found[path] = counted
    return found


def _memory(walk: Walk, rows: Tensor) -> dict[str, int]:
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
