"""The one pass of local distillation that all students of a network share, from cut to menu."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol

from harness import Progress
from torch import Tensor, nn

from understudy.blockwise import assembling
from understudy.blockwise.candidates import Share, remembered
from understudy.blockwise.cost import timed
from understudy.blockwise.learning import Learning
from understudy.blockwise.partition import partition
from understudy.blockwise.recombine import Menu
from understudy.blockwise.scores import damages
from understudy.blockwise.sources import record
from understudy.blockwise.words import Candidate, Damage, Partition
from understudy.blockwise.workers import distil_all

# What is hardly faster than its block is not taught.
FASTER = 0.9


class Ground(Protocol):
    """A teacher, its data, and how its students are trained and judged; scores are in points."""

    name: str
    network: nn.Module
    output: Literal["logits", "embedding"]
    kinds: Sequence[str]
    shares: Mapping[str, Sequence[Share]]
    local: Learning
    rows: Tensor  # those of the local pass, as the network takes them
    split: assembling.Rows
    held: Tensor  # on which damage is scored
    example: Tensor  # timed with
    budgets: Sequence[float]
    rates: Mapping[str, Sequence[float]]
    epochs: int  # of global distillation after the local one
    seeds: Sequence[int]
    draws: int  # random recombinations

    def train(
        self, network: nn.Module, *, epochs: int, rate: float, seed: int, folder: Path
    ) -> None:
        """Global distillation on the teacher's stored answers."""

    def epoch_seconds(self, network: nn.Module, folder: Path) -> float:
        """Of processor time that one epoch of this student takes."""

    def validate(self, network: nn.Module) -> float:
        """The score on rows that choose learning rates."""

    def test(self, network: nn.Module, *, share: float = 1.0) -> float:
        """The score that is reported, or that on a share of its rows."""

    def scaled(self) -> dict[str, nn.Module]:
        """The uniformly scaled students by name, without weights worth keeping."""

    def fresh(self, network: nn.Module, seed: int) -> nn.Module:
        """A copy with weights drawn anew."""

    def pruned(self) -> dict[str, nn.Module]:
        """The teacher with a share of all its channels, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """What the pass left.

    Attributes:
        partition: with measured latencies.
        offered: candidates by block.
        modules: those that learned, by block and label.
        menu: to choose from.
        whole: the teacher's latency in milliseconds.
        seconds: of processor time, by what it went to.
        losses: local losses on held-out rows by pair, before and after.
    """

    partition: Partition
    offered: Mapping[str, Sequence[Candidate]]
    modules: Mapping[str, Mapping[str, nn.Module]]
    menu: Menu
    whole: float
    seconds: Mapping[str, float]
    losses: Mapping[str, tuple[float, float]]


def local_pass(ground: Ground, kept: Progress, out: Path) -> Local:
    """Cut, record, plan, teach and score; finished steps are read."""
    network = ground.network
    plan = kept.get("plan")
    began = time.process_time()
    parts = partition(network, ground.rows[:2], by="block", measure=False)
    sources = record(network, parts, ground.rows, out / "recorded")
    spent = time.process_time() - began
    if plan is None:
        parts = timed(network, parts, ground.example)
        libraries = assembling.offer(
            network, parts, sources, ground.split.calibration, kinds=ground.kinds,
            shares=ground.shares, measure=remembered(),
        )  # fmt: skip
        offered = {block: worthwhile(one.candidates) for block, one in libraries.items()}
        plan = kept.keep("plan", {
            "partition": parts.to_data(),
            "offered": {b: [one.to_data() for one in several] for b, several in offered.items()},
            "seconds": spent,
        })  # fmt: skip
    parts = Partition.from_data(plan["partition"])
    offered = {b: [Candidate.from_data(one) for one in v] for b, v in plan["offered"].items()}
    work = assembling.pairs(
        network, parts, offered, sources, ground.split, folder=out / "local", learning=ground.local
    )
    told = {pair.name: taught(pair, kept) for pair in work}
    summaries = {name: one["summary"] for name, one in told.items()}
    modules = assembling.taught(network, parts, work, summaries)
    scored = kept.get("damages") or kept.keep("damages", damage(ground, parts, modules))
    found = [Damage.from_data(one) for one in scored["damages"]]
    menu = assembling.menu(network, parts, offered, found)
    return Local(
        partition=parts,
        offered=offered,
        modules=modules,
        menu=menu,
        whole=sum(block.ms or 0.0 for block in parts.blocks) + (parts.rest.ms or 0.0),
        seconds={
            "recording": plan["seconds"],
            "teaching": sum(one["seconds"] for one in told.values()),
            "scoring": scored["seconds"],
        },
        losses={
            name: (one["start"], one["loss"]) for name, one in summaries.items() if "loss" in one
        },
    )


def worthwhile(several: Sequence[Candidate]) -> list[Candidate]:
    """The block, and what is clearly faster."""
    keep = next(one for one in several if one.kind == "keep")
    assert keep.ms is not None
    return [
        one for one in several if one is keep or (one.ms is not None and one.ms <= FASTER * keep.ms)
    ]


def taught(pair: Any, kept: Progress) -> dict[str, Any]:
    """A pair's summary and its processor time."""
    part = f"local-{pair.name}"
    found = kept.get(part)
    if found is None:
        began = time.process_time()
        summary = distil_all([pair])[pair.name]
        found = kept.keep(part, {"summary": summary, "seconds": time.process_time() - began})
    return dict(found)


def damage(ground: Ground, parts: Partition, modules: Mapping[str, Any]) -> dict[str, Any]:
    """What each candidate does to the network's answers, and the processor time to find it."""
    began = time.process_time()
    others = {
        block: {label: one for label, one in several.items() if label != assembling.KEEP}
        for block, several in modules.items()
    }
    found = damages(ground.network, parts, others, ground.held, output=ground.output)
    return {
        "damages": [one.to_data() for one in found if isfinite(one.kl)],
        "seconds": time.process_time() - began,
    }
