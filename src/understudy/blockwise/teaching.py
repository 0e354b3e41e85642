"""Stage `blockwise/scores`: every candidate taught alone, and what it does to the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.blockwise import assembling
from understudy.blockwise.assembling import KEEP, Spot
from understudy.blockwise.dividing import FOLDER, Divided
from understudy.blockwise.form import passing
from understudy.blockwise.ground import Ground
from understudy.blockwise.learning import Learning
from understudy.blockwise.offering import Offers
from understudy.blockwise.recombine import Correction, Menu
from understudy.blockwise.scores import damages, pair_corrections
from understudy.blockwise.words import Damage
from understudy.blockwise.workers import Pair, Summary, distil_all, pair_name
from understudy.folders import fingerprint, read_json, write_json

_SCORES = "scores.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Taught:
    """Candidates that learned.

    Attributes:
        modules: by block and label, the blocks themselves as `keep`.
        summaries: by block and label.
        damages: of all that did not fail.
        corrections: of pairs, where they were asked for.
        mark: fingerprint of all of this.
    """

    modules: Mapping[str, Mapping[str, nn.Module]]
    summaries: Mapping[Spot, Summary]
    damages: Sequence[Damage]
    corrections: Sequence[Correction] = field(default=())
    mark: str


def teach(
    ground: Ground, divided: Divided, offers: Offers, epochs: Mapping[Spot, int], number: int
) -> Taught:
    """Teach every candidate, and do the stage `blockwise/scores`.

    Args:
        ground: of the run.
        divided: the blocks.
        offers: their candidates.
        epochs: of candidates that learn longer than the recipe says.
        number: of the round, from 1.

    Raises:
        UnderstudyError: what would fail all candidates.
    """
    work, local = ground.work, ground.section.local
    pairs = _pairs(ground, divided, offers, epochs)
    summaries: dict[str, Summary] = {}
    if work.crew.leads:
        summaries = distil_all(
            pairs,
            workers=local.workers,
            threads=local.threads or torch.get_num_threads(),
            engine=local.engine,
            progress=work.progress,
        )
        for left in (p for p in pairs if "failed" in summaries[p.name]):
            why = summaries[left.name]["failed"]
            work.notes.append(f"`{left.candidate.label}` of block `{left.block}` failed: {why}")
    work.crew.wait()
    told: dict[Spot, dict[str, Any]] = {
        (pair.block, pair.candidate.label): read_json(pair.folder / pair.name / "stage.json")
        if (pair.folder / pair.name / "stage.json").is_file()
        else {"fingerprint": "", "summary": summaries.get(pair.name, {"failed": "unknown"})}
        for pair in pairs
    }
    by_name = {pair.name: told[pair.block, pair.candidate.label]["summary"] for pair in pairs}
    modules = assembling.taught(divided.network, divided.partition, pairs, by_name)
    depends = {
        "partition": divided.mark,
        "pairs": sorted(
            [*spot, one["fingerprint"], "failed" in one["summary"]] for spot, one in told.items()
        ),
        "scores": ground.section.scores.model_dump(mode="json"),
        "validation": work.data_mark,
    }
    name = f"{FOLDER}/scores" + ("" if number == 1 else f"-{number}")
    work.stage(name, depends, lambda folder: _score(ground, divided, modules, folder))
    data = read_json(work.folder / name / _SCORES)
    return Taught(
        modules=modules,
        summaries={spot: one["summary"] for spot, one in told.items()},
        damages=tuple(Damage.from_data(_numbers(one)) for one in data["damages"]),
        corrections=tuple(
            Correction(one=tuple(c["one"]), other=tuple(c["other"]), value=_number(c["value"]))
            for c in data["corrections"]
        ),
        mark=fingerprint(depends),
    )


def _pairs(
    ground: Ground, divided: Divided, offers: Offers, epochs: Mapping[Spot, int]
) -> list[Pair]:
    local, usual = ground.section.local, ground.section.local.epochs
    pairs = assembling.pairs(
        divided.network,
        divided.partition,
        offers.candidates,
        offers.sources,
        offers.rows,
        folder=ground.work.folder / FOLDER / "local",
    )
    found = []
    for pair in pairs:
        count = epochs.get((pair.block, pair.candidate.label), usual)
        learning = Learning(
            epochs=count,
            batch_size=local.batch_size,
            learning_rate=local.learning_rate,
            weight_decay=local.weight_decay,
            clip=local.clip,
            noise=local.noise,
            seed=ground.work.recipe.data.seed,
        )
        folder = _apart(pair.folder, count, usual)
        found.append(replace(pair, learning=learning, folder=folder))
    return found


def _apart(folder: Path, count: int, usual: int) -> Path:
    return folder if count == usual else folder / f"epochs-{count}"


def folder_of(ground: Ground, spot: Spot, count: int, usual: int) -> Path:
    """Where a candidate's training of so many epochs lies."""
    folder = _apart(ground.work.folder / FOLDER / "local", count, usual)
    return folder / pair_name(*spot)


def _score(
    ground: Ground, divided: Divided, modules: Mapping[str, Mapping[str, nn.Module]], folder: Path
) -> dict[str, Any]:
    _, rows, labels = ground.judged()
    work, output = ground.work, ground.output
    work.progress.say(f"scores: what each candidate does to {len(rows)} validation rows")
    tried = {
        block: {label: module for label, module in several.items() if label != KEEP}
        for block, several in modules.items()
    }
    network, parts = divided.network, divided.partition
    found = damages(network, parts, tried, rows, labels, output=output)
    corrections: Sequence[Correction] = ()
    most = ground.section.scores.pairs
    if most:
        best = {
            block: sorted(
                (one for one in found if one.block == block), key=lambda one: float(one.kl)
            )[:most]
            for block in tried
        }
        few = {b: {one.candidate: tried[b][one.candidate] for one in best[b]} for b in tried}
        corrections = pair_corrections(network, parts, few, rows, found, output=output)
    write_json(
        folder / _SCORES,
        {
            "damages": [_plain(one.to_data()) for one in found],
            "corrections": [
                _plain({"one": list(c.one), "other": list(c.other), "value": c.value})
                for c in corrections
            ],
        },
    )
    return {"damages": len(found), "corrections": len(corrections)}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Infinity as text, which JSON has no number for."""
    return {
        key: "inf" if isinstance(value, float) and value == float("inf") else value
        for key, value in data.items()
    }


def _numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float("inf") if value == "inf" else value for key, value in data.items()}


def _number(value: Any) -> float:
    return float(value)


def menu_of(ground: Ground, divided: Divided, offers: Offers, taught: Taught) -> Menu:
    """What there is to choose from."""
    calls = passing(divided.network, divided.partition, ground.few())
    batch = ground.latency.batch
    memory: dict[Spot, float | int] = {
        (block, label): assembling.working_bytes(module, calls[block], batch=batch)
        for block, several in taught.modules.items()
        for label, module in several.items()
    }
    return assembling.menu(
        divided.network,
        divided.partition,
        offers.candidates,
        taught.damages,
        corrections=taught.corrections,
        memory=memory,
        by=ground.section.scores.by,
        overhead=divided.overhead,
    )
