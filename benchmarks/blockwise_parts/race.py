"""Blockwise students against two baselines, at equal latency and equal total training time.

The time is that of the processor. Blockwise is charged with the whole local pass (recording,
teaching all candidates, scoring them) for every one of its students, though all share it, and with
its own global distillation. The baselines train with the same teacher's answers for as many epochs
as fill that time, rounded up. Latency is equal in that each baseline is the network with most
operations among its kind that is no more than `SLACK` slower than the blockwise student.
"""

import copy
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Progress
from torch import nn

from blockwise_parts.clock import latencies
from blockwise_parts.local_pass import Ground, Local
from understudy.blockwise import assembling
from understudy.blockwise.cost import flops_of
from understudy.blockwise.front import pareto
from understudy.blockwise.recombine import Choice, choose, predicted
from understudy.blockwise.words import Call

# Of the test rows, for networks that are not compared with each other by name.
SOME = 0.5
SLACK, ENOUGH, TIMED, POINTS = 1.03, 0.95, 8, 20
WAYS = ("blockwise", "scaled", "pruned")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A student before its global distillation.

    Attributes:
        name: of its structure.
        network: with the weights it starts from.
        ms: measured.
    """

    name: str
    network: nn.Module
    ms: float


class Race:
    """All trainings of one network; what is finished is kept."""

    def __init__(self, ground: Ground, local: Local, kept: Progress, out: Path) -> None:
        """Hold what the local pass left, and where to put the rest."""
        self.ground, self.local, self.kept, self.out = ground, local, kept, out
        self.picks = {
            share: choose(local.menu, {"ms": share * local.whole}) for share in ground.budgets
        }
        # Same structures for every budget, so each is made and timed once.
        self.kinds = {"scaled": ground.scaled(), "pruned": ground.pruned()}
        self.ms = self._timed()

    def stitched(self, labels: Mapping[str, str]) -> nn.Module:
        """The teacher with these candidates."""
        local = self.local
        return assembling.stitched(self.ground.network, local.partition, local.modules, labels)

    def _timed(self) -> dict[str, float]:
        found = self.kept.get("latencies")
        if found is None:
            networks = {"teacher": self.ground.network}
            networks |= {f"blockwise-{s}": self.stitched(p.labels) for s, p in self.picks.items()}
            # What is pruned to a share and what is scaled to it differ in their weights alone.
            for several in self.kinds.values():
                networks |= several
            found = self.kept.keep(
                "latencies", latencies(networks, self.ground.example, self.out / "onnx")
            )
        return dict(found)

    def entry(self, way: str, budget: float, seed: int) -> Entry:
        """The student of a way and a budget.

        Raises:
            RuntimeError: none of its kind is fast enough.
        """
        goal = self.ms[f"blockwise-{budget}"]
        if way == "blockwise":
            labels = self.picks[budget].labels
            return Entry(name=_shown(labels), network=self.stitched(labels), ms=goal)
        several = self.kinds[way]
        fast = [name for name in several if self.ms[name] <= SLACK * goal]
        if not fast:
            raise RuntimeError(f"no {way} student runs in {goal:.3f} ms: offer smaller ones")
        rows = self.ground.example
        name = max(fast, key=lambda n: flops_of(several[n], Call(stream=rows, gives=rows)))
        fresh = way == "scaled"
        start = self.ground.fresh(several[name], seed) if fresh else copy.deepcopy(several[name])
        return Entry(name=name, network=start, ms=self.ms[name])

    def trained(self, way: str, budget: float, seed: int, rate: float) -> dict[str, Any]:
        """One training from its start to its scores."""
        part = f"{way}-{budget}-{seed}-{rate}"
        found = self.kept.get(part)
        if found is not None:
            return dict(found)
        entry, folder = self.entry(way, budget, seed), self.out / "fits" / part
        if way == "blockwise":
            epochs, goal = self.ground.epochs, 0.0
            before = self.ground.validate(entry.network)
        else:
            one = self.ground.epoch_seconds(copy.deepcopy(entry.network), self.out / "probe")
            shutil.rmtree(self.out / "probe")
            goal, before = self.allowed(budget, seed), None
            epochs = max(1, math.ceil(goal / one))
        while True:
            seconds = self._fitted(entry, epochs=epochs, rate=rate, seed=seed, folder=folder)
            if seconds >= ENOUGH * goal:
                break
            # The forecast was too high: once more from the start, with as many as fill the time.
            epochs = max(epochs + 1, math.ceil(epochs * goal / seconds))
            entry = self.entry(way, budget, seed)
        told = {
            "student": entry.name, "ms": entry.ms, "epochs": epochs, "rate": rate, "seed": seed,
            "seconds": seconds, "before": before,
            "parameters": sum(p.numel() for p in entry.network.parameters()),
            "validation": self.ground.validate(entry.network),
            "test": self.ground.test(entry.network),
        }  # fmt: skip
        print(f"{self.ground.name} {part}: {json.dumps(told)}", file=sys.stderr, flush=True)
        return dict(self.kept.keep(part, told))

    def _fitted(self, entry: Entry, *, epochs: int, rate: float, seed: int, folder: Path) -> float:
        """Train a student, and say how many seconds of the processor it took."""
        # A training that was stopped would go on, and its first seconds would not be counted.
        shutil.rmtree(folder, ignore_errors=True)
        began = time.process_time()
        self.ground.train(entry.network, epochs=epochs, rate=rate, seed=seed, folder=folder)
        seconds = time.process_time() - began
        shutil.rmtree(folder, ignore_errors=True)
        return seconds

    def allowed(self, budget: float, seed: int) -> float:
        """Seconds that a baseline may train: all of the local pass, and the global distillation."""
        own = self.trained("blockwise", budget, seed, self.rate("blockwise"))
        return sum(self.local.seconds.values()) + float(own["seconds"])

    def rate(self, way: str) -> float:
        """The learning rate that validation likes best in whole trainings at the largest budget."""
        budget, seed = self.ground.budgets[0], self.ground.seeds[0]
        rates = self.ground.rates[way]
        tried = {rate: self.trained(way, budget, seed, rate)["validation"] for rate in rates}
        return max(tried, key=lambda rate: tried[rate])

    def run(self) -> dict[str, Any]:
        """Every training, and the losses in points at each budget."""
        teacher = self.kept.get("teacher") or self.kept.keep(
            "teacher",
            {
                "test": self.ground.test(self.ground.network),
                "validation": self.ground.validate(self.ground.network),
                "parameters": sum(p.numel() for p in self.ground.network.parameters()),
            },
        )
        first = self.ground.seeds[0]
        arms = {
            budget: {
                way: [self.trained(way, budget, first, self.rate(way))]
                for way in WAYS
            }
            for budget in self.ground.budgets
        }  # fmt: skip
        decisive = next(
            (b for b in arms if teacher["test"] - arms[b]["scaled"][0]["test"] >= 2), None
        )
        for seed in self.ground.seeds[1:] if decisive is not None else ():
            for way in ("blockwise", "scaled"):
                arms[decisive][way].append(self.trained(way, decisive, seed, self.rate(way)))
        return {"teacher": teacher, "arms": arms, "decisive": decisive}


def recombinations(race: Race) -> dict[str, Any]:
    """Random choices that nothing was fitted to: predicted and measured damage and latency.

    Each replaces some blocks, from one to all but one, drawn evenly, by candidates drawn evenly.
    None is trained after stitching; accuracy is that on test rows.
    """
    found = race.kept.get("recombinations")
    if found is not None:
        return dict(found)
    ground, menu = race.ground, race.local.menu
    draw, whole = np.random.default_rng(0), ground.test(ground.network, share=SOME)
    drawn: dict[str, Choice] = {}
    blocks = list(menu.options)
    for _ in range(100 * ground.draws):
        if len(drawn) == ground.draws:
            break
        labels = dict.fromkeys(blocks, assembling.KEEP)
        count = int(draw.integers(1, len(blocks)))
        for block in draw.choice(blocks, size=count, replace=False):
            others = [o.label for o in menu.options[block] if o.label != assembling.KEEP]
            if others:
                labels[str(block)] = str(draw.choice(others))
        if len(set(labels.values())) > 1:
            drawn[_shown(labels)] = predicted(menu, labels)
    rows = [
        {
            "student": name,
            "damage": choice.damage,
            "ms_predicted": choice.costs["ms"],
            "loss": whole - ground.test(race.stitched(choice.labels), share=SOME),
        }
        for name, choice in drawn.items()
    ]
    some = list(drawn.values())[:TIMED]
    ms = latencies(
        {str(n): race.stitched(one.labels) for n, one in enumerate(some)},
        ground.example, race.out / "onnx",
    )  # fmt: skip
    for number, value in ms.items():
        rows[int(number)]["ms"] = value
    return dict(race.kept.keep("recombinations", {"rows": rows}))


def front(race: Race) -> list[dict[str, float]]:
    """The predicted front along milliseconds."""
    found = pareto(race.local.menu, along="ms", points=POINTS)
    return [{"ms": one.costs["ms"], "damage": one.damage} for one in found]


def _shown(labels: Mapping[str, str]) -> str:
    """Which blocks are replaced, shortly."""
    return " ".join(f"{block}={label}" for block, label in labels.items() if label != "keep")
