"""A student with fewer blocks than its teacher, with the weights of those that it keeps."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.students.blocks.chain import Run, answer_of, chain_of, look
from understudy.students.blocks.choice import By, chosen
from understudy.students.blocks.removal import remove
from understudy.students.blocks.scaling import scale_branches
from understudy.students.blocks.surgery import copied, same, skipped, units


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthPlan:
    """Which blocks of a network stay.

    Attributes:
        keep: paths in the network, in the order in which they run.
        drop: likewise.
        scales: what the residual branches of kept blocks are multiplied by at the start.
        unscaled: kept blocks for which a factor was asked for that their weights cannot carry.
    """

    keep: tuple[str, ...]
    drop: tuple[str, ...]
    scales: Mapping[str, float] = field(default_factory=dict)
    unscaled: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        return {
            "kind": "depth",
            "keep": list(self.keep),
            "drop": list(self.drop),
            "scales": dict(self.scales),
            "unscaled": list(self.unscaled),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "DepthPlan":
        """The plan that `to_data` wrote.

        Raises:
            ModelError: it is none.
        """
        try:
            if data["kind"] != "depth":
                raise KeyError("kind")
            scales = {str(path): float(value) for path, value in data["scales"].items()}
            lists = {name: tuple(map(str, data[name])) for name in ("keep", "drop", "unscaled")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"this is no plan of a depth cut ({error!r} is missing or wrong): plan it again"
            ) from error
        return cls(
            keep=lists["keep"], drop=lists["drop"], scales=scales, unscaled=lists["unscaled"]
        )

    def lines(self) -> list[str]:
        """What is kept, dropped and scaled, for people."""
        total = len(self.keep) + len(self.drop)
        lines = [f"keeps {len(self.keep)} of {total} blocks: {', '.join(self.keep)}"]
        if self.drop:
            lines.append(f"drops {', '.join(self.drop)}")
        if self.scales:
            factors = (f"{path} by {value:.3g}" for path, value in self.scales.items())
            lines.append(f"scales the branches of {', '.join(factors)}")
        if self.unscaled:
            lines.append(
                f"cannot scale {', '.join(self.unscaled)}: no weights end their branches alone"
            )
        return lines


def plan_depth(
    network: nn.Module,
    rows: Tensor,
    *,
    keep: int | float | Sequence[int],
    by: By | Mapping[str, float] = "evenly",
    seed: int = 0,
    scales: Mapping[str, float] | None = None,
) -> DepthPlan:
    """Choose which blocks of a network stay.

    Blocks that change the shape of what goes through them, or without which the network does not
    run, always stay, and count as kept.

    `evenly` keeps blocks of every stage in proportion, at even distances, the first and the last
    of a stage among them (for 12 layers and 6: 0, 2, 4, 7, 9, 11, as DistilBERT was cut).

    Args:
        network: it is not changed.
        rows: two rows or more that it takes, for dry runs.
        keep: how many blocks; or which share of all, above 0 to 1; or their positions, from 0.
        by: which of them, over all stages; or how important each block is, by path: the most
            important stay.
        seed: what `random` draws from.
        scales: what the branches of blocks are to be multiplied by; dropped blocks may be among
            them. Blocks whose weights cannot carry their factor are listed in the plan.

    Raises:
        ModelError: no such cut can be made; what can is said.

    Paper:
        Sanh et al. 2019, "DistilBERT", section 3 (every other layer); Men et al. 2024,
        "ShortGPT", section 3 (by importance).

    Example:
        >>> from understudy.models import CifarResNet
        >>> network = CifarResNet(channels=1, width=2, depth=14, base=2)
        >>> plan = plan_depth(network, torch.zeros(2, 1, 8, 8), keep=0.5)
        >>> plan.keep
        ('stages.0.0', 'stages.1.0', 'stages.2.0')
    """
    chain = units(network, rows)
    kept = chosen(chain, keep, by=by, seed=seed)
    paths = [unit.path for unit in chain]
    plan = DepthPlan(
        keep=tuple(path for path in paths if path in kept),
        drop=tuple(path for path in paths if path not in kept),
    )
    wanted = _checked_scales(scales or {}, paths)
    wanted = {path: value for path, value in wanted.items() if path in kept and value != 1}
    if not wanted:
        # Blocks that can go one by one may still not go together.
        cut_depth(network, plan, rows)
        return plan
    student = cut_depth(network, plan, rows)
    now = {old: new for new, old in student.provenance.items()}
    done = {
        path: value
        for path, value in wanted.items()
        if scale_branches(student.module, now[path], rows, scale=value)
    }
    return DepthPlan(
        keep=plan.keep,
        drop=plan.drop,
        scales=done,
        unscaled=tuple(path for path in wanted if path not in done),
    )


def cut_depth(network: nn.Module, plan: DepthPlan, rows: Tensor) -> Student:
    """A copy of the network without the blocks that the plan drops.

    Lists and sequences of modules become shorter and are numbered from 0; a block that is an
    attribute is replaced by a module that passes its input on, or gives zeros where the code
    around adds what it gives to its input. The configuration of a Hugging Face
    model and the places that its layers know for the cache are brought into line. Weights that
    were tied stay tied. Without scales the student gives what the network gives with these blocks
    skipped; that is checked.

    `provenance` maps the kept blocks' new paths to their old ones.

    Args:
        network: it is not changed.
        plan: of `plan_depth` for this network or one of the same architecture.
        rows: two rows or more that it takes, for a dry run.

    Raises:
        ModelError: the plan is for another network, or the network does not run without the
            blocks.
    """
    runs = look(network, rows)
    chain = chain_of(network, runs)
    if set(chain) != {*plan.keep, *plan.drop} or not plan.keep:
        raise ModelError(
            f"the plan must name each block of {type(network).__name__} once, {', '.join(chain)}, "
            f"but names {', '.join((*plan.keep, *plan.drop))}: plan the cut for this network"
        )
    module = copied(network)
    provenance = _removed(module, plan, chain, runs)
    _check(network, module, plan, rows, runs)
    for new, old in provenance.items():
        scale = plan.scales.get(old, 1.0)
        if scale != 1 and not scale_branches(module, new, rows, scale=scale):
            raise ModelError(
                f"the branches of `{old}` cannot be scaled by {scale:.3g} in its weights: leave "
                "the block out of the scales"
            )
    return Student(module=module, provenance=provenance)


def _removed(
    module: nn.Module, plan: DepthPlan, chain: Sequence[str], runs: Mapping[str, Run]
) -> dict[str, str]:
    items = {path: runs[path].items for path in plan.drop}
    outer = {path for path in plan.drop if runs[path].outer}
    return remove(module, plan.drop, chain=chain, items=items, outer=outer)


def _check(
    network: nn.Module, module: nn.Module, plan: DepthPlan, rows: Tensor, runs: Mapping[str, Run]
) -> None:
    with ExitStack() as stack:
        for path in plan.drop:
            stack.enter_context(skipped(network, path, outer=runs[path].outer))
        goal = answer_of(network, rows[:2])
    dropped = ", ".join(plan.drop)
    try:
        found = answer_of(module, rows[:2])
    except ModelError as error:
        raise ModelError(
            f"{type(network).__name__} does not run without {dropped} ({error}): keep some of them"
        ) from error
    if not same(found, goal):
        raise ModelError(
            f"{type(network).__name__} without {dropped} must give what it gives with them "
            "skipped, but gives something else, so other parts hang on them: keep some of them"
        )
    if bool(torch.isfinite(answer_of(network, rows[:2])).all() > torch.isfinite(found).all()):
        raise ModelError(
            f"{type(network).__name__} without {dropped} gives numbers that are not finite: keep "
            "some of them"
        )


def _checked_scales(scales: Mapping[str, float], paths: Sequence[str]) -> dict[str, float]:
    if unknown := [path for path in scales if path not in paths]:
        raise ModelError(
            f"scales must be for blocks of the network, but {', '.join(unknown)} is none: "
            f"there are {', '.join(paths)}"
        )
    if odd := [f"{path}: {value}" for path, value in scales.items() if not math.isfinite(value)]:
        raise ModelError(f"scales must be finite numbers, but got {', '.join(odd)}")
    return dict(scales)
