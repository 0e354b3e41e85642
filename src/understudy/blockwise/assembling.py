"""From a partition to a student: offer candidates, teach them, load them, put a choice together.

These functions join the pieces of this room for one network; each can be used alone. In order:
`offer`, `pairs`, `workers.distil_all`, `taught`, `scores.damages`, `menu`, `recombine.choose`,
`stitched`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from understudy.blockwise.candidates import Library, library
from understudy.blockwise.cost import measured
from understudy.blockwise.form import piece
from understudy.blockwise.learning import Learning
from understudy.blockwise.local import WEIGHTS
from understudy.blockwise.making import make
from understudy.blockwise.opening import Opening, Shelved, shelve
from understudy.blockwise.recombine import Correction, Menu
from understudy.blockwise.scores import options_of
from understudy.blockwise.sources import Source
from understudy.blockwise.stitching import KEEP, neighbour_of, stitched, working_bytes
from understudy.blockwise.words import Candidate, Damage, Number, Partition
from understudy.blockwise.workers import Pair, Summary
from understudy.contracts import Progress, Silent
from understudy.models.weights import load_into, read_weights

__all__ = [
    "KEEP",
    "Rows",
    "kept_damages",
    "load_pair",
    "menu",
    "neighbour_of",
    "offer",
    "pairs",
    "stitched",
    "taught",
    "working_bytes",
]

Spot = tuple[str, str]
Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Which rows of a source are for what.

    Attributes:
        learn: to learn from.
        validation: others, held out.
        calibration: those that candidates are planned with, two or more.
    """

    learn: Index
    validation: Index
    calibration: Index


def offer(
    network: nn.Module,
    partition: Partition,
    sources: Mapping[str, Source],
    calibration: Index,
    *,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Library]:
    """The candidates of every block, itself first.

    Args:
        network: it is left as found.
        partition: of this network; where `cost.timed` has timed it, candidates are timed alike.
        sources: by block its calls.
        calibration: the rows that candidates are planned with; `pairs` must be given the same.
        only: blocks that get candidates; all where it is None.
        progress: where it shows itself.
        settings: of `candidates.library`, such as `kinds`, `shares`, `custom`, `measure`.

    Raises:
        ModelError: as of `library`.
    """
    shown = progress or Silent()
    if "kinds" in settings:
        settings["kinds"] = (KEEP, *(kind for kind in settings["kinds"] if kind != KEEP))
    found: dict[str, Library] = {}
    blocks = [block for block in partition.blocks if only is None or block.name in only]
    measure = settings.pop("measure", measured)
    if measure is not None:
        alone = measure
        measure = lambda *given, **told: partition.inside(alone(*given, **told))  # noqa: E731
    with shown.track("candidates", len(blocks), "blocks") as tracker:
        for number, block in enumerate(blocks):
            near = neighbour_of(partition, block.name)
            found[block.name] = library(
                piece(network, block).eval(),
                sources[block.name](calibration),
                neighbour=None if near is None else (near, piece(network, partition[near]).eval()),
                measure=measure,
                **settings,
            )
            tracker(number + 1, block.name)
    return found


def pairs(
    network: nn.Module,
    partition: Partition,
    offered: Mapping[str, Sequence[Candidate]],
    sources: Mapping[str, Source],
    rows: Rows,
    *,
    folder: Path,
    learning: Learning | None = None,
    students: Mapping[str, Source] | None = None,
) -> list[Pair]:
    """What is to be taught: every candidate of every block but the blocks themselves.

    The blocks are put into files, so that a worker loads only the one that it works at.

    Args:
        network: it is left as found.
        partition: of this network.
        offered: by block its candidates.
        sources: by block its calls.
        rows: which of them are for what.
        folder: for the pairs, a folder each, and for the blocks' files.
        learning: how every candidate learns.
        students: by block the calls of the same rows in a student, for noise.

    Raises:
        RunError: the folder cannot be written.
    """
    shelved: dict[str, Shelved] = {}
    for block in partition.blocks:
        path = folder / ".blocks" / f"{block.name}.safetensors"
        shelved[block.name] = shelve(piece(network, block), path)
    found = []
    for name, several in offered.items():
        near = neighbour_of(partition, name)
        opening = Opening(
            piece=shelved[name],
            source=sources[name],
            rows=rows.learn,
            validation=rows.validation,
            calibration=rows.calibration,
            neighbour=None if near is None else shelved[near],
            student=None if students is None else students.get(name),
        )
        found += [
            Pair(
                block=name,
                candidate=one,
                open=opening,
                folder=folder,
                learning=learning or Learning(),
            )
            for one in several
            if one.kind != KEEP
        ]
    return found


def taught(
    network: nn.Module,
    partition: Partition,
    work: Sequence[Pair],
    summaries: Mapping[str, Summary],
) -> dict[str, dict[str, nn.Module]]:
    """The modules that learned, by block and label, with the blocks themselves as `keep`.

    Candidates that failed are left out.

    Args:
        network: it is left as found.
        partition: of this network.
        work: what `pairs` made.
        summaries: what `distil_all` said of them.

    Raises:
        ModelError: a file of weights is missing or damaged.
    """
    names = [block.name for block in partition.blocks]
    found: dict[str, dict[str, nn.Module]] = {
        name: {KEEP: piece(network, partition[name]).eval()} for name in names
    }
    opened: dict[str, Any] = {}
    for pair in work:
        if "failed" in summaries[pair.name]:
            continue
        if pair.block not in opened:
            opened = {pair.block: pair.open()}
        found[pair.block][pair.candidate.label] = load_pair(pair, opened[pair.block])
    return found


def load_pair(pair: Pair, material: Any) -> nn.Module:
    """The module of a pair with what it learned.

    Raises:
        ModelError: the file of weights is missing or damaged.
    """
    near = material.neighbour if pair.candidate.kind == "shared" else None
    module = make(pair.candidate, material.piece, material.call, pair.learning.seed, neighbour=near)
    path = pair.folder / pair.name / WEIGHTS
    load_into(module, read_weights(path), source=str(path))
    return module.eval()


def kept_damages(partition: Partition) -> tuple[Damage, ...]:
    """Keeping a block does no damage."""
    return tuple(
        Damage(block=block.name, candidate=KEEP, kl=0.0, metric_drop=0.0)
        for block in partition.blocks
    )


def menu(
    network: nn.Module,
    partition: Partition,
    offered: Mapping[str, Sequence[Candidate]],
    found: Sequence[Damage],
    *,
    corrections: Sequence[Correction] = (),
    memory: Mapping[Spot, Number] | None = None,
    by: Any = "kl",
    overhead: int = 0,
) -> Menu:
    """What `recombine.choose` chooses from.

    Candidates whose latency could not be measured are left out, and so are those that were not
    taught. A candidate that shares a neighbour's weights may be chosen where that is kept.

    Args:
        network: of which the weights outside all blocks are counted.
        partition: of this network, timed by `cost.timed`.
        offered: by block its candidates, itself among them.
        found: damages of the others.
        corrections: of pairs.
        memory: the bytes each works in, by block and label.
        by: which damage counts, `kl` or `metric_drop`.
        overhead: bytes of a file beyond its weights.
    """
    rest: dict[str, Number] = {
        "parameters": partition.rest.parameters,
        "flops": partition.rest.flops,
        "bytes": _rest_bytes(network, partition) + overhead,
    }
    timed = partition.rest.ms is not None
    if timed:
        rest["ms"] = partition.rest.ms or 0.0
    usable = {
        block: [one for one in several if one.ms is not None or not timed]
        for block, several in offered.items()
    }
    requires = {
        (block, one.label): ((str(neighbour_of(partition, block)), KEEP),)
        for block, several in usable.items()
        for one in several
        if one.kind == "shared"
    }
    known = [*kept_damages(partition), *found]
    options = options_of(usable, known, by=by, memory=memory, requires=requires)
    return Menu(options=options, pairs=tuple(corrections), rest=rest)


def _rest_bytes(network: nn.Module, partition: Partition) -> int:
    inside: set[int] = set()
    for block in partition.blocks:
        for path in block.paths:
            part = network.get_submodule(path)
            inside |= {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
    outside = {id(t): t for t in (*network.parameters(), *network.buffers())}
    return sum(t.numel() * t.element_size() for key, t in outside.items() if key not in inside)
