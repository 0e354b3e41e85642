"""A budget, the choice that meets it as measured, and the whole front."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from understudy.blockwise.assembling import KEEP, stitched
from understudy.blockwise.dividing import FOLDER, Divided
from understudy.blockwise.front import pareto
from understudy.blockwise.ground import Ground
from understudy.blockwise.measuring import away, costs, score, within
from understudy.blockwise.offering import Offers
from understudy.blockwise.recombine import Choice, Menu, choose, predicted
from understudy.blockwise.teaching import Taught
from understudy.blockwise.words import Candidate
from understudy.errors import ModelError
from understudy.folders import fingerprint, read_json, write_json

Limits = Mapping[str, float | int]
COSTS = ("parameters", "bytes", "flops", "ms", "memory")
# A choice that takes more than was predicted is made anew under limits that are so much tighter.
_TRIES, _SLACK = 5, 0.98
_FRONT = "front.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """A student put together under a budget, before any training of the whole.

    Attributes:
        choice: one candidate per block, with predicted damage and costs.
        limits: the budget.
        network: stitched.
        measured: what it costs where it is deployed.
        score: the task's score on validation rows.
        damage: what was measured of what the choice predicts: the distance of its answers from the
            teacher's, or how much worse the metric is.
        over: limits that the measured costs pass, and by how many times.
    """

    choice: Choice
    limits: Limits
    network: nn.Module
    measured: Mapping[str, float | int | None]
    score: float
    damage: float
    over: Mapping[str, float]

    def to_data(self) -> dict[str, Any]:
        """As plain JSON, without the network."""
        return {
            "choice": self.choice.to_data(),
            "limits": dict(self.limits),
            "measured": dict(self.measured),
            "score": self.score,
            "damage": self.damage,
            "over": dict(self.over),
        }

    def lines(self, offers: Offers, menu: Menu) -> list[str]:
        """For people: a line per block, then what was predicted and what was measured."""
        known = damages_of(menu)
        cells = [("block", "candidate", "damage", "parameters", "ms")]
        for block, label in self.choice.labels.items():
            own = _named(offers.candidates[block], label)
            ms = "" if own.ms is None else f"{own.ms:.4g}"
            cells.append((block, label, f"{known[block, label]:.4g}", f"{own.parameters:,}", ms))
        wide = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip()
            for row in cells
        ]
        for name, value in self.choice.costs.items():
            found = self.measured.get(name)
            told = "" if found is None else f", measured {found:,.4g}"
            limit = "" if name not in self.limits else f" (at most {self.limits[name]:,.4g})"
            lines.append(f"{name}: predicted {value:,.4g}{told}{limit}")
        lines.append(
            f"damage: predicted {self.choice.damage:.4g}, measured {self.damage:.4g}; score on "
            f"validation rows {self.score:.4f} before any training of the whole"
        )
        return lines


def damages_of(menu: Menu) -> dict[tuple[str, str], float]:
    """What each option is counted with, by block and label."""
    several = menu.options.items()
    return {(block, one.label): float(one.damage) for block, own in several for one in own}


def _named(several: Sequence[Candidate], label: str) -> Candidate:
    return next(one for one in several if one.label == label)


def limits_of(
    ground: Ground, menu: Menu, changed: Mapping[str, str] | None = None
) -> dict[str, float | int]:
    """The largest value of each cost: of the recipe, or in its place what was asked for.

    Args:
        ground: of the run.
        menu: from which the teacher's own costs are known.
        changed: by cost a number, or a share of the teacher's such as `50%`.

    Raises:
        ModelError: a cost or a number that makes no sense, or no limit at all.
    """
    own = _own(menu)
    if changed:
        return {name: _limit(name, text, own) for name, text in changed.items()}
    budget = ground.work.recipe.budget
    latency = None if budget.latency_ms is None else budget.latency_ms.value
    told = {
        "parameters": budget.parameters, "bytes": budget.bytes, "flops": budget.flops,
        "ms": latency,
    }  # fmt: skip
    found: dict[str, float | int] = {k: v for k, v in told.items() if v is not None}
    for name, share in ground.section.keep.limits().items():
        found[name] = min(found.get(name, own[name]), share * own[name])
    if not found:
        raise ModelError(
            "a student needs a budget to be chosen for: give `budget`, or `student.blockwise.keep` "
            "such as `{ms: 0.5}`"
        )
    return found


def _own(menu: Menu) -> dict[str, float]:
    return dict(predicted(menu, dict.fromkeys(menu.options, KEEP)).costs)


def _limit(name: str, text: str, own: Mapping[str, float]) -> float:
    if name not in COSTS:
        raise ModelError(f"a budget is of {', '.join(COSTS)}, but got `{name}`")
    share = text.strip().endswith("%")
    try:
        value = float(text.strip().rstrip("%").replace(",", "").replace("_", ""))
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ModelError(
            f"a limit is a positive number or a share such as `50%`, but got {name}={text!r}"
        )
    if share and name not in own:
        raise ModelError(f"the teacher's own {name} is not known here: give a number")
    return value / 100 * own[name] if share else value


def solve(
    ground: Ground, divided: Divided, menu: Menu, taught: Taught, limits: Limits, path: Path
) -> Solved:
    """The choice of least predicted damage whose measured costs are within the limits.

    Where a limit is passed as measured, it is tightened and the program solved again.

    Args:
        ground: of the run.
        divided: the teacher as blocks.
        menu: what there is to choose from.
        taught: the modules.
        limits: by cost.
        path: where the stitched student is exported.

    Raises:
        ModelError: no combination meets the limits, with the closest.
    """
    tight, found = dict(limits), None
    for _ in range(_TRIES):
        try:
            choice = choose(menu, tight)
        except ModelError:
            if found is None:
                raise
            break
        found = measure(ground, divided, taught, choice, limits, path)
        if not found.over:
            break
        for name, times in found.over.items():
            tight[name] = tight[name] / times * _SLACK
    assert found is not None
    if found.over:
        told = ", ".join(f"{name} {times:.3g} times" for name, times in found.over.items())
        ground.work.notes.append(
            f"the closest student that was found passes its limits as measured: {told}"
        )
    return found


def measure(
    ground: Ground,
    divided: Divided,
    taught: Taught,
    choice: Choice,
    limits: Limits,
    path: Path,
) -> Solved:
    """Put a choice together and measure it."""
    network = stitched(divided.network, divided.partition, taught.modules, choice.labels).eval()
    _, rows, labels = ground.judged()
    far, drop = away(divided.network, network, rows, labels, output=ground.output)
    module = ground.work.material.deployable(deepcopy(network))
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = costs(ground, module, path)
    return Solved(
        choice=choice,
        limits=limits,
        network=network,
        measured=measured,
        score=score(ground, module),
        damage=far if ground.section.scores.by == "kl" else drop,
        over=within(measured, limits),
    )


def front_of(ground: Ground, divided: Divided, menu: Menu, taught: Taught) -> dict[str, Any]:
    """Do the stage `blockwise/front`: the best choice at each limit, predicted and measured."""
    section = ground.section
    if not section.front:
        return {}
    depends = {"taught": taught.mark, "points": section.front, "along": section.along}
    name = f"{FOLDER}/front"
    ground.work.stage(name, depends, lambda folder: _front(ground, divided, menu, taught, folder))
    found: dict[str, Any] = read_json(ground.work.folder / name / _FRONT)
    return found


def _front(
    ground: Ground, divided: Divided, menu: Menu, taught: Taught, folder: Path
) -> dict[str, Any]:
    along = ground.section.along
    choices = pareto(menu, along=along, points=max(2, ground.section.front))
    own = _own(menu)
    points: list[dict[str, Any]] = [
        {"name": "teacher", "role": "teacher", "cost": own[along], "value": 0.0}
    ]
    students = []
    with ground.work.progress.track("front", len(choices), "students") as tracker:
        for number, choice in enumerate(choices):
            one = measure(ground, divided, taught, choice, {}, folder / "point.onnx")
            cost = one.measured.get(along)
            points.append(
                {"name": f"point {number + 1}", "role": "before", "cost": cost, "value": one.damage}
            )
            students.append(one.to_data())
            tracker(number + 1)
    (folder / "point.onnx").unlink(missing_ok=True)
    far = "KL to the teacher" if ground.output == "logits" else "squared error to the teacher"
    measure_name = far if ground.section.scores.by == "kl" else "drop of the metric"
    data = {
        "along": along,
        "measure": measure_name,
        "unit": "",
        "higher_is_better": False,
        "predicted": [{"cost": c.costs[along], "value": c.damage} for c in choices],
        "measured": points,
        "students": students,
    }
    write_json(folder / _FRONT, data)
    return {"points": len(choices)}


def mark_of(taught: Taught, limits: Limits) -> str:
    """What a solved budget is a function of."""
    return fingerprint([taught.mark, dict(limits)])
