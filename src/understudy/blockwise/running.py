"""A blockwise run: divide, teach each part alone, recombine under a budget, train, adjust."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from understudy.blockwise.choosing import Solved, damages_of, front_of, limits_of, mark_of, solve
from understudy.blockwise.dividing import FOLDER, Divided, divide
from understudy.blockwise.ground import Ground
from understudy.blockwise.offering import Offers, offer
from understudy.blockwise.recombine import Menu
from understudy.blockwise.rounds import Round, as_given, go_round, with_features
from understudy.blockwise.teaching import Taught, menu_of, teach
from understudy.contracts import Progress
from understudy.folders import write_json
from understudy.pipeline.other_task import other_rows
from understudy.pipeline.prepare import prepare
from understudy.pipeline.running import complete, opened, write_recipe
from understudy.pipeline.student import begin
from understudy.pipeline.teach import teach as teacher_of
from understudy.recipe import Recipe, Source
from understudy.report.record import RunRecord

Until = Literal["partition", "candidates", "choice", "report"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a blockwise run came to.

    Attributes:
        record: of the finished run; empty where it ended before.
        lines: for people: blocks, candidates, the choice.
        data: the same as plain data.
    """

    record: RunRecord
    lines: list[str]
    data: dict[str, Any]


def run(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
    until: Until = "report",
    budget: Mapping[str, str] | None = None,
    place: Source | None = None,
) -> Outcome:
    """Run a recipe whose student is `blockwise`, or go on with a run that stopped.

    Every part is a stage in the run's folder, and every candidate one of its own: what is done
    already for the same inputs is not done again.

    Args:
        recipe: a file, or a recipe that was built in Python.
        out: the run's folder; `runs/NAME` beside the current folder by default.
        settings: changes of the recipe, `section.field=value`.
        progress: where long stages show themselves.
        until: the last part that is wanted; `choice` is a stitched student without training.
        budget: another budget, by cost a number or a share of the teacher's such as `50%`: the
            choice is made again for it from what was taught, exported and measured; nothing is
            trained, and the run keeps its own student.
        place: where a recipe built in Python came from.

    Raises:
        RecipeError: every mistake of the recipe, before anything runs.
        ModelError: a network that cannot be divided so, or a budget that no combination meets.
        UnderstudyError: whatever else the user can fix; finished stages stay.
    """
    with opened(recipe, out=out, settings=settings, progress=progress, place=place) as work:
        if work.crew.leads:
            write_recipe(work)
        prepare(work)
        other_rows(work)
        ground = Ground.of(work, teacher_of(work))
        divided = divide(ground)
        if until == "partition":
            return _ended(divided.partition.lines(), {"partition": divided.partition.to_data()})
        offers = offer(ground, divided)
        if until == "candidates":
            return _ended(*_offered(divided, offers))
        taught = teach(ground, divided, offers, {}, 1)
        menu = menu_of(ground, divided, offers, taught)
        if budget or until == "choice":
            return _resolved(ground, divided, offers, taught, menu, budget)
        return _whole(ground, divided, offers, taught, menu)


def _ended(lines: list[str], data: dict[str, Any]) -> Outcome:
    return Outcome(record=RunRecord({"format": 1}), lines=lines, data=data)


def _offered(divided: Divided, offers: Offers) -> tuple[list[str], dict[str, Any]]:
    lines = divided.partition.lines()
    for block, several in offers.candidates.items():
        lines.append(f"{block}: {', '.join(one.label for one in several)}")
    data = {b: [one.to_data() for one in several] for b, several in offers.candidates.items()}
    return lines, {"partition": divided.partition.to_data(), "candidates": data}


def _resolved(
    ground: Ground,
    divided: Divided,
    offers: Offers,
    taught: Taught,
    menu: Menu,
    budget: Mapping[str, str] | None,
) -> Outcome:
    limits = limits_of(ground, menu, budget)
    folder = ground.work.folder / FOLDER / "choices" / mark_of(taught, limits)
    found = solve(ground, divided, menu, taught, limits, folder / "student.onnx")
    data = found.to_data() | {"onnx": str(folder / "student.onnx")}
    write_json(folder / "choice.json", data)
    lines = [*found.lines(offers, menu), *ground.work.notes, str(folder / "student.onnx")]
    return _ended(lines, data)


def _whole(ground: Ground, divided: Divided, offers: Offers, taught: Taught, menu: Menu) -> Outcome:
    """Choose, train and measure, round after round, and then the evidence once."""
    work = ground.work
    limits = limits_of(ground, menu)
    front = front_of(ground, divided, menu, taught)
    state = Round(number=1, divided=divided, offers=offers, taught=taught, menu=menu, epochs={})
    original = work.recipe
    state, solved, told = go_round(ground, state, limits)
    for line in solved.lines(state.offers, state.menu):
        work.progress.say(line)
    summary = _summary(state, solved, front, told)
    work.given = as_given(state, solved, summary)
    work.recipe = with_features(original, ground, state.divided)
    loaded = begin(work)
    record = complete(work, loaded)
    return Outcome(record=record, lines=solved.lines(state.offers, state.menu), data=summary)


def _summary(
    state: Round, solved: Solved, front: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What goes into `run.json`, all plain."""
    known = damages_of(state.menu)
    blocks = [
        {
            "block": block,
            "label": label,
            "candidates": len(state.offers.candidates[block]),
            "damage": known[block, label],
        }
        | _costs(state.offers, block, label)
        for block, label in solved.choice.labels.items()
    ]
    summaries = state.taught.summaries
    failed = {f"{b} {c}": s["failed"] for (b, c), s in summaries.items() if "failed" in s}
    seconds = sum(float(s.get("seconds", 0)) for s in summaries.values())
    made = {
        "partition": state.divided.partition.to_data(),
        "teacher": dict(state.divided.teacher),
        "local": {"pairs": len(summaries), "failed": failed, "seconds": round(seconds, 1)},
        "blocks": blocks,
        "stitched": solved.to_data(),
        "front": dict(front),
        "rounds": list(rounds),
    }
    found: dict[str, Any] = {"blockwise": json.loads(json.dumps(made))}
    return found


def _costs(offers: Offers, block: str, label: str) -> dict[str, Any]:
    whole = offers.candidates[block][0]
    own = next(one for one in offers.candidates[block] if one.label == label)
    return {
        "parameters": [whole.parameters, own.parameters],
        "ms": [whole.ms, own.ms],
        "flops": [whole.flops, own.flops],
    }
