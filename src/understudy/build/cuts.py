"""A cut of the recipe, chosen as a plan and applied: where a cut's `kind` meets its functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.recipe import (
    Cut,
    DepthCut,
    LoraUpdates,
    LowRankCut,
    ScratchCut,
    SharingCut,
    WidthCut,
)
from understudy.students.blocks.branches import answers
from understudy.students.blocks.chain import resting
from understudy.students.depth import DepthPlan, cut_depth, plan_depth
from understudy.students.importance.measuring import Importance, importance
from understudy.students.importance.weighting import distance, scales
from understudy.students.lora import LoraPlan, add_lora, plan_lora
from understudy.students.low_rank.cutting import LowRankPlan, cut_low_rank, plan_low_rank
from understudy.students.scaled.family import ScaledPlan, plan_scaled
from understudy.students.sharing import SharingPlan, cut_sharing, plan_sharing
from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

Plan = DepthPlan | WidthPlan | LowRankPlan | SharingPlan | LoraPlan | ScaledPlan
# How a cut by importance measures; the others need no measurement.
MEASURED = ("importance", "cosine", "skip", "taylor")
# Rows for replaying a plan: its shapes depend on none of them.
FEW = 2
# A few rows per block are enough for its factor.
FOR_SCALES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What makes networks of the teacher's kind: the constructor and the teacher's arguments.

    Attributes:
        make: takes `arguments`.
        arguments: with everything that the data says filled in.
        latency_ms: what the teacher takes for one row; asked only where a cut has such a target.
    """

    make: Callable[..., nn.Module]
    arguments: Mapping[str, Any]
    latency_ms: Callable[[], float]


def calibration_rows(cut: Cut) -> int:
    """How many training rows a cut wants to see."""
    if isinstance(cut, DepthCut):
        return cut.importance.rows if cut.by in MEASURED else FEW
    return FEW if isinstance(cut, ScratchCut | LoraUpdates) else cut.rows


def plan_cut(
    cut: Cut,
    network: nn.Module,
    rows: Tensor,
    *,
    labels: Tensor | None,
    seed: int,
    family: Family | None,
    output: Literal["logits", "values"] = "logits",
) -> tuple[Plan, Importance | None]:
    """Choose what goes, and the importance of blocks where it was measured.

    Args:
        cut: of the recipe.
        network: what is cut; it is not changed.
        rows: calibration rows as the network takes them.
        labels: theirs, where every one has one.
        seed: of random choices.
        family: for a student from scratch.
        output: what the network answers with.

    Raises:
        ModelError: the cut cannot be made, and what can.
    """
    if isinstance(cut, DepthCut):
        return _depth(cut, network, rows, labels, seed, output)
    if isinstance(cut, WidthCut):
        return plan_width(
            network,
            rows,
            keep=cut.keep,
            parameters=cut.parameters,
            by=cut.by,
            protect=cut.protect,
            labels=labels,
            seed=seed,
            round_to=cut.round_to,
            even=cut.even,
        ), None
    if isinstance(cut, LowRankCut):
        return plan_low_rank(
            network,
            rows,
            energy=cut.energy,
            parameters=cut.parameters,
            aware=cut.aware,
            layers=cut.layers,
        ), None
    if isinstance(cut, SharingCut):
        return plan_sharing(network, rows, groups=cut.groups, by=cut.by), None
    if isinstance(cut, LoraUpdates):
        return plan_lora(network, rows, rank=cut.rank, alpha=cut.alpha, layers=cut.layers), None
    assert family is not None
    return plan_scaled(
        family.make,
        family.arguments,
        teacher=network,
        rows=rows,
        parameters=cut.parameters,
        bytes=cut.bytes,
        latency_ms=cut.latency_ms,
        teacher_latency_ms=family.latency_ms() if cut.latency_ms is not None else None,
        vary=cut.vary,
    ), None


def _depth(
    cut: DepthCut,
    network: nn.Module,
    rows: Tensor,
    labels: Tensor | None,
    seed: int,
    output: Literal["logits", "values"],
) -> tuple[DepthPlan, Importance | None]:
    if cut.by not in MEASURED or isinstance(cut.keep, tuple):
        by: Any = "evenly" if cut.by in MEASURED else cut.by
        return plan_depth(network, rows, keep=cut.keep, by=by, seed=seed), None
    found = importance(
        network,
        rows,
        by=cut.by,  # type: ignore[arg-type]  # one of MEASURED
        labels=labels,
        output=output,
        reduce=cut.importance.reduce,
        components=cut.importance.components,
        coefficients=False,
        seed=seed,
    )
    plan = plan_depth(network, rows, keep=cut.keep, by=found.ranking(), seed=seed)
    if cut.scale and cut.by == "importance":
        factors = scales(network, rows[:FOR_SCALES], plan.keep, output=output)
        weighted = plan_depth(
            network, rows, keep=cut.keep, by=found.ranking(), seed=seed, scales=factors
        )
        plan = _nearer(network, rows[:FOR_SCALES], plan, weighted, output)
    return plan, found


def _nearer(
    network: nn.Module,
    rows: Tensor,
    plain: DepthPlan,
    weighted: DepthPlan,
    output: Literal["logits", "values"],
) -> DepthPlan:
    """The plan whose student answers more as the network does, before any training."""
    if not weighted.scales:
        return weighted
    with resting(network):
        goal = answers(network, rows, batch_size=64)
    far, near = (
        distance(cut_depth(network, plan, rows[:FEW]).module, rows, goal, output)
        for plan in (plain, weighted)
    )
    return weighted if near < far else plain


def apply_cut(
    plan: Plan, network: nn.Module, rows: Tensor, *, seed: int, family: Family | None
) -> Student:
    """The network that a plan leaves of another one."""
    if isinstance(plan, DepthPlan):
        return cut_depth(network, plan, rows)
    if isinstance(plan, WidthPlan):
        return cut_width(network, plan, rows)
    if isinstance(plan, LowRankPlan):
        return cut_low_rank(network, plan, rows)
    if isinstance(plan, SharingPlan):
        return cut_sharing(network, plan, rows)
    if isinstance(plan, LoraPlan):
        return add_lora(network, plan, seed=seed)
    assert family is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(module=family.make(**plan.arguments))


def read_plan(data: Mapping[str, Any]) -> Plan:
    """A plan from plain data."""
    kinds: dict[str, Any] = {
        "depth": DepthPlan,
        "width": WidthPlan,
        "low_rank": LowRankPlan,
        "sharing": SharingPlan,
        "lora": LoraPlan,
        "scaled": ScaledPlan,
    }
    plan: Plan = kinds[data["kind"]].from_data(data)
    return plan


def traced(first: Mapping[str, str], then: Mapping[str, str]) -> dict[str, str]:
    """Where blocks came from over two cuts.

    One cut may speak of blocks and the other of the stages that hold them: a cut that leaves all
    of its own in their places has moved nothing inside them either.
    """
    if not first or not then:
        return dict(then or first)
    still = all(own == middle for own, middle in then.items())
    if still and not set(then) <= set(first):
        return dict(first)
    return {own: first.get(middle, middle) for own, middle in then.items()}
