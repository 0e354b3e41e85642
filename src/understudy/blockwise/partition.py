"""Dividing a network into a chain of blocks."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from understudy.blockwise.balancing import balanced
from understudy.blockwise.describing import divided, flops_of, inside, memory_of
from understudy.blockwise.form import Partition
from understudy.blockwise.links import Walk, joints, unfit, walked
from understudy.blockwise.named import named_runs
from understudy.blockwise.traced import Chained, leaving
from understudy.errors import ModelError
from understudy.students.blocks.chain import chain_of
from understudy.students.blocks.removal import members, parent_of

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
    return divided(walk, rows, runs, measure=measure, elsewhere=_elsewhere(by))


def split(network: nn.Module, found: Partition, names: Sequence[str], rows: Tensor) -> Partition:
    """A finer partition: some blocks are cut in two where half of their modules have run.

    Args:
        network: it is left as found.
        found: of this network.
        names: of blocks with two modules or more.
        rows: two or more, as the network takes them.

    Raises:
        ModelError: a block is unknown, has one module, or cannot be cut there.
    """
    runs: list[list[str]] = []
    for block in found.blocks:
        paths = list(block.paths)
        half = len(paths) // 2 if block.name in names else 0
        if block.name in names and not half:
            raise ModelError(f"block `{block.name}` is one module: it cannot be cut finer")
        runs += [paths[:half], paths[half:]] if half else [paths]
    for name in names:
        _ = found[name]
    elsewhere = "leave it whole"
    return divided(walked(network, rows), rows, runs, measure=False, elsewhere=elsewhere)


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
    weights = flops_of(walk, rows) if by == "flops" else memory_of(walk, rows)
    costs = [sum(inside(weights, unit)) for unit in units]
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
