"""Stages `blockwise/inputs` and `blockwise/candidates`: what may stand in a block's place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from understudy.blockwise import assembling
from understudy.blockwise.assembling import Rows
from understudy.blockwise.candidates import KINDS, SHARES, remembered
from understudy.blockwise.cost import measured
from understudy.blockwise.dividing import FOLDER, Divided
from understudy.blockwise.ground import Ground
from understudy.blockwise.sources import Recomputed, Source, ceiling, record
from understudy.blockwise.words import Candidate, Partition
from understudy.folders import fingerprint, read_json, write_json

_CANDIDATES = "candidates.json"
# Rows per pass where inputs are recorded.
_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Offers:
    """The blocks' inputs, and their candidates.

    Attributes:
        sources: by block its calls.
        rows: which of them are for what.
        candidates: by block, itself first.
        left: by block what was left out, and why.
        mark: fingerprint of all of this.
    """

    sources: Mapping[str, Source]
    rows: Rows
    candidates: Mapping[str, Sequence[Candidate]]
    left: Mapping[str, Mapping[str, str]]
    mark: str


def offer(ground: Ground, divided: Divided, earlier: Offers | None = None) -> Offers:
    """Do the stages `blockwise/inputs` and `blockwise/candidates`.

    Args:
        ground: of the run.
        divided: the blocks.
        earlier: what a coarser partition had; blocks that are still the same keep it.

    Raises:
        ModelError: a kind of candidate or a target of the user's is unknown.
    """
    known = {} if earlier is None else dict(earlier.sources)
    fresh = [block for block in divided.partition.blocks if block.name not in known]
    fed, rows = ground.learned()
    sources = {b.name: known[b.name] for b in divided.partition.blocks if b.name in known}
    name = f"{FOLDER}/inputs" + ("" if earlier is None else f"-{len(divided.partition.blocks)}")
    if fresh:
        sources |= _sources(ground, divided, replace(divided.partition, blocks=tuple(fresh)), fed,
                            name)  # fmt: skip
    depends = {
        "partition": divided.mark,
        "inputs": ground.marks(),
        "candidates": ground.section.candidates.model_dump(mode="json"),
        "latency": ground.latency.model_dump(mode="json"),
    }
    stage = f"{FOLDER}/candidates" + ("" if earlier is None else f"-{len(sources)}")
    ground.work.stage(
        stage, depends, lambda folder: _offered(ground, divided, sources, rows, earlier, folder)
    )
    data = read_json(ground.work.folder / stage / _CANDIDATES)
    return Offers(
        sources=sources,
        rows=rows,
        candidates={
            block: tuple(Candidate.from_data(one) for one in several["candidates"])
            for block, several in data.items()
        },
        left={block: several["left"] for block, several in data.items()},
        mark=fingerprint(depends),
    )


def _sources(
    ground: Ground, divided: Divided, part: Partition, fed: Tensor, name: str
) -> dict[str, Source]:
    local, work = ground.section.local, ground.work
    if local.inputs == "recompute":
        return {b.name: Recomputed(divided.network, part, b.name, fed) for b in part.blocks}
    found: dict[str, Source] = {}
    if work.crew.leads:
        most = ceiling(part, batch_size=_BATCH, at_once=local.at_once) / 1e6
        work.progress.say(
            f"{name}: what {len(part.blocks)} blocks are given by {len(fed)} rows, at most "
            f"{most:,.0f} MB of it in memory"
        )
        found.update(
            record(
                divided.network,
                part,
                fed,
                work.folder / name,
                batch_size=_BATCH,
                at_once=local.at_once,
                precision=local.precision,
            )
        )
    work.crew.wait()
    return found


def _offered(
    ground: Ground,
    divided: Divided,
    sources: Mapping[str, Source],
    rows: Rows,
    earlier: Offers | None,
    folder: Path,
) -> dict[str, Any]:
    section, latency = ground.section.candidates, ground.latency
    kinds = [
        kind for kind in KINDS if kind in section.kinds or (kind == "custom" and section.custom)
    ]
    custom = {
        label: {"target": own.target, "arguments": own.arguments,
                "folder": str(ground.work.place.folder)}
        for label, own in section.custom.items()
    }  # fmt: skip
    known = {} if earlier is None else dict(earlier.candidates)
    fresh = tuple(b for b in divided.partition.blocks if b.name not in known)
    found = assembling.offer(
        divided.network,
        divided.partition,
        sources,
        rows.calibration,
        only=[block.name for block in fresh],
        progress=ground.work.progress,
        kinds=kinds,
        shares={**SHARES, **section.shares},
        custom=custom,
        threads=latency.threads,
        batch=latency.batch,
        measure=remembered(lambda *a, **k: measured(*a, seconds=latency.seconds, **k)),
        seed=ground.work.recipe.data.seed,
    )
    data: dict[str, Any] = {}
    for block in divided.partition.blocks:
        if block.name in found:
            several, left = found[block.name].candidates, dict(found[block.name].left)
        else:
            assert earlier is not None
            several, left = tuple(known[block.name]), dict(earlier.left[block.name])
        data[block.name] = {"candidates": [one.to_data() for one in several], "left": left}
    write_json(folder / _CANDIDATES, data)
    return {"candidates": sum(len(several["candidates"]) for several in data.values())}


def untried(offers: Offers) -> dict[str, tuple[str, ...]]:
    """By block, shares that were not tried yet, between those that were: the largest first.

    A share lies midway between a candidate and the next larger of its kind, or the whole block.
    """
    found: dict[str, tuple[str, ...]] = {}
    for block, several in offers.candidates.items():
        fresh: list[tuple[float, str]] = []
        for kind in ("narrower", "low_rank"):
            marks = [one.label.rpartition("_")[2] for one in several if one.kind == kind]
            shares = sorted(float(mark) for mark in marks if _is_share(mark))
            for low, high in pairwise([*shares, 1.0]):
                middle = round((low + high) / 2, 4)
                fresh.append((middle, f"{kind}_{middle:g}"))
        if fresh:
            found[block] = tuple(label for _, label in sorted(fresh, reverse=True))
    return found


def more(
    ground: Ground,
    divided: Divided,
    offers: Offers,
    labels: Mapping[str, Sequence[str]],
    number: int,
) -> Offers:
    """Candidates of other shares, by block and label as `untried` names them, as a stage."""
    depends = {"before": offers.mark, "labels": {b: list(several) for b, several in labels.items()}}
    stage = f"{FOLDER}/candidates-round-{number}"
    ground.work.stage(stage, depends, lambda folder: _more(ground, divided, offers, labels, folder))
    data = read_json(ground.work.folder / stage / _CANDIDATES)
    candidates = dict(offers.candidates)
    for block, several in data.items():
        candidates[block] = (*candidates[block], *map(Candidate.from_data, several))
    return replace(offers, candidates=candidates, mark=fingerprint(depends))


def _more(
    ground: Ground,
    divided: Divided,
    offers: Offers,
    labels: Mapping[str, Sequence[str]],
    folder: Path,
) -> dict[str, Any]:
    latency, data = ground.latency, {}
    for block, several in labels.items():
        kinds = sorted({label.rpartition("_")[0] for label in several})
        shares: dict[str, tuple[float, ...]] = {
            kind: tuple(float(x.rpartition("_")[2]) for x in several if x.startswith(f"{kind}_"))
            for kind in kinds
        }
        found = assembling.offer(
            divided.network,
            divided.partition,
            offers.sources,
            offers.rows.calibration,
            only=[block],
            kinds=kinds,
            shares={**SHARES, **shares},
            threads=latency.threads,
            batch=latency.batch,
            measure=remembered(lambda *a, **k: measured(*a, seconds=latency.seconds, **k)),
            seed=ground.work.recipe.data.seed,
        )[block]
        known = {one.label for one in offers.candidates[block]}
        data[block] = [one.to_data() for one in found.candidates if one.label not in known]
    write_json(folder / _CANDIDATES, data)
    return {"candidates": sum(map(len, data.values()))}


def _is_share(mark: str) -> bool:
    try:
        return 0 < float(mark) < 1
    except ValueError:
        return False
