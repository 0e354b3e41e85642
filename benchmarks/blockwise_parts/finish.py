"""From a finished race to figures, a table and facts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Progress

from blockwise_parts.local_pass import Ground, Local, local_pass
from blockwise_parts.race import WAYS, Race, front, recombinations
from understudy.blockwise.assembling import KEEP
from understudy.blockwise.front import latency_error, rank_correlation

NAMES = {
    "blockwise": "blockwise",
    "scaled": "(a) uniformly scaled, fresh",
    "pruned": "(b) pruned uniformly",
}


def finished(ground: Ground, out: Path, words: str) -> dict[str, Any]:
    """Run what is not finished of a network's whole race, and put it into words."""
    kept = Progress(ground.name, results=out)
    local = local_pass(ground, kept, out)
    race = Race(ground, local, kept, out)
    result = race.run()
    drawn = recombinations(race)["rows"]
    timed = [(p.costs["ms"], race.ms[f"blockwise-{share}"]) for share, p in race.picks.items()]
    timed += [(one["ms_predicted"], one["ms"]) for one in drawn if "ms" in one]
    name = ground.name
    figures = {
        f"{name}_rank_correlation": rank_correlation(
            [one["damage"] for one in drawn], [one["loss"] for one in drawn]
        ),
        f"{name}_latency_error": latency_error([a for a, _ in timed], [b for _, b in timed]),
        f"{name}_teacher": result["teacher"]["test"],
        f"{name}_teacher_ms": race.ms["teacher"],
        f"{name}_local_seconds": sum(local.seconds.values()),
    }
    told = ratios(result)
    figures |= {f"{name}_{key}": value for key, value in told.items()}
    facts = {
        "timed": timed,
        "recombinations": drawn,
        "front": front(race),
        "local_seconds": dict(local.seconds),
        "local_losses": {key: list(value) for key, value in local.losses.items()},
        "partition": local.partition.to_data(),
        "offered": {
            block: [[one.label, one.ms, one.parameters] for one in several]
            for block, several in local.offered.items()
        },
        "picks": {str(share): dict(pick.labels) for share, pick in race.picks.items()},
        "decisive": result["decisive"],
        "latencies": race.ms,
    }
    return {"figures": figures, "lines": lines(result, race, local, words), "facts": facts}


def passes(count: int) -> str:
    """Epochs in words."""
    return "1 epoch" if count == 1 else f"{count} epochs"


def losses(teacher: float, parts: Sequence[Mapping[str, Any]]) -> list[float]:
    """Points below the teacher on test rows, by seed."""
    return [teacher - float(part["test"]) for part in parts]


def ratios(result: Mapping[str, Any]) -> dict[str, float]:
    """Blockwise's loss over the baselines', at the largest latency where (a) loses two points."""
    if result["decisive"] is None:
        return {}
    teacher, arms = result["teacher"]["test"], result["arms"][result["decisive"]]
    own = losses(teacher, arms["blockwise"])
    other = losses(teacher, arms["scaled"])
    each = [one / two for one, two in zip(own, other, strict=True)]
    pruned = losses(teacher, arms["pruned"])
    found = {
        "accuracy_loss_ratio": float(np.mean(own) / np.mean(other)),
        "accuracy_loss_ratio_low": min(each),
        "accuracy_loss_ratio_high": max(each),
        "loss": float(np.mean(own)),
        "loss_scaled": float(np.mean(other)),
        "loss_pruned": float(np.mean(pruned)),
        "decisive_budget": float(result["decisive"]),
    }
    if pruned[0] > 0:
        # Of the one seed that both have.
        found["accuracy_loss_ratio_pruned"] = own[0] / pruned[0]
    return found


def lines(result: Mapping[str, Any], race: Race, local: Local, words: str) -> list[str]:
    """The table of all trainings, and what stands beneath it."""
    teacher, whole = result["teacher"], race.ms["teacher"]
    found = [
        f"{words}. The teacher scores {teacher['test']:.2f} in {whole:.3f} ms.",
        "",
        "| budget | student | ms | parameters | epochs | training, s | points lost | seeds |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    once = sum(local.seconds.values())
    for budget, arms in result["arms"].items():
        for way in WAYS:
            parts = arms[way]
            lost = losses(teacher["test"], parts)
            wide = f" ({min(lost):.2f} to {max(lost):.2f})" if len(lost) > 1 else ""
            seconds = float(np.mean([p["seconds"] for p in parts]))
            seconds += once if way == "blockwise" else 0.0
            one = parts[0]
            kind = f", {one['student']}"
            if way == "blockwise":
                labels = race.picks[budget].labels.values()
                changed = sum(label != KEEP for label in labels)
                kind = f", {changed} of {len(labels)} blocks replaced"
            found.append(
                f"| {100 * budget:.0f} % | {NAMES[way]}{kind} | {one['ms']:.3f} "
                f"| {one['parameters']:,} | {one['epochs']} | {seconds:.0f} "
                f"| {np.mean(lost):.2f}{wide} | {len(parts)} |"
            )
    spent = ", ".join(f"{what} {value:.0f} s" for what, value in local.seconds.items())
    start = " and ".join(
        f"{arms['blockwise'][0]['before']:.1f}" for arms in result["arms"].values()
    )
    rates = "; ".join(f"{NAMES[w]} {race.rate(w):g}" for w in WAYS)
    return [
        *found,
        "",
        f"The local pass ({spent}) is charged to each blockwise student in full; shared by the "
        f"{len(result['arms'])} budgets it is {once / len(result['arms']):.0f} s each. Before "
        f"global distillation they score {start} on held-out rows. Learning rates: {rates}.",
    ]
