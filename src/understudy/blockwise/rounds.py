"""The loop: a stitched student is trained and measured, and its lacks decide the next round."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.blockwise.adjust import Outlook, Plan, next_round
from understudy.blockwise.assembling import KEEP, Spot
from understudy.blockwise.choosing import Limits, Solved, solve
from understudy.blockwise.dividing import FOLDER, Divided, finer
from understudy.blockwise.ground import Ground
from understudy.blockwise.measuring import score
from understudy.blockwise.offering import Offers, more, offer, untried
from understudy.blockwise.partition import split
from understudy.blockwise.recombine import Menu
from understudy.blockwise.teaching import Taught, folder_of, menu_of, teach
from understudy.blockwise.words import Damage
from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.folders import read_json
from understudy.pipeline.distil import layers, needed, one_arm, trained_module
from understudy.pipeline.labelling import label
from understudy.pipeline.student import begin
from understudy.pipeline.work import Given
from understudy.recipe import DistilStep, Recipe, TermEntry, default_objective

# A candidate whose loss still falls learns so many times as long.
LONGER = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Where a run is.

    Attributes:
        number: of the round, from 1.
        divided: the teacher as blocks.
        offers: their candidates.
        taught: what they learned.
        menu: what there is to choose from.
        epochs: of candidates that learned longer than the recipe says.
    """

    number: int
    divided: Divided
    offers: Offers
    taught: Taught
    menu: Menu
    epochs: Mapping[Spot, int]


def go_round(
    ground: Ground, state: Round, limits: Limits
) -> tuple[Round, Solved, list[dict[str, Any]]]:
    """All rounds; the state and the student of the best one, and a record of each.

    Without a target there is one round, and its student is trained with the rest of the run.

    Raises:
        ModelError: no combination meets the limits.
    """
    section = ground.section
    solved = _solved(ground, state, limits)
    if section.target is None:
        return state, solved, []
    goal = _goal(ground, section.target)
    told: list[dict[str, Any]] = []
    kept: list[tuple[float, Round, Solved]] = []
    while True:
        after = _trained(ground, state, solved)
        kept.append((after, state, solved))
        plan = next_round(
            solved.choice.labels,
            [*state.taught.damages, *_no_damage(solved)],
            _outlook(ground, state),
            measured=after,
            target=goal,
            rounds_left=section.rounds - state.number,
            higher_is_better=_up(ground),
        )
        told.append(_told(state, solved, after, goal, plan))
        for line in plan.lines():
            ground.work.progress.say(f"round {state.number}: {line}")
        if plan.stop is not None:
            break
        state = _changed(ground, state, plan)
        solved = _solved(ground, state, limits)
    sign = 1 if _up(ground) else -1
    best = max(range(len(kept)), key=lambda n: (not kept[n][2].over, sign * kept[n][0], -n))
    for number, one in enumerate(told):
        one["kept"] = number == best
    return kept[best][1], kept[best][2], told


def as_given(state: Round, solved: Solved, summary: Mapping[str, Any]) -> Given:
    """The student of a round, for every seed and arm: all begin with what was taught locally.

    Args:
        state: the round.
        solved: its choice.
        summary: what is to be known of it.
    """
    parts = state.divided.partition
    plain = state.divided.form == "modules"

    def make() -> Student:
        network = deepcopy(solved.network).requires_grad_(True)
        provenance = {p: p for block in parts.blocks for p in block.paths[:1]} if plain else {}
        return Student(module=network, provenance=provenance)

    return Given(
        mark={
            "partition": state.divided.mark,
            "taught": state.taught.mark,
            "choice": dict(solved.choice.labels),
        },
        make=make,
        summary=summary,
    )


def with_features(recipe: Recipe, ground: Ground, divided: Divided) -> Recipe:
    """The recipe with a term on the blocks' answers in its training steps, where it is asked for.

    Raises:
        ModelError: the network's blocks are no modules of its own, so no term can read them.
    """
    weight = ground.section.features
    if not weight:
        return recipe
    if divided.form != "modules":
        raise ModelError(
            "`student.blockwise.features` compares modules of both networks, but this teacher's "
            "blocks are parts of a traced or unrolled form: set it to 0"
        )
    pairs = [
        {"student": path, "teacher": path}
        for block in divided.partition.blocks
        for path in [block.paths[-1] + (":output[0]" if block.items[-1:] > (0,) else "")]
    ]
    term = TermEntry.model_validate({"kind": "hint", "weight": weight, "layers": pairs})
    usual = default_objective(recipe.task.kind)
    steps = tuple(
        step.model_copy(update={"objective": (*(step.objective or usual), term)})
        if isinstance(step, DistilStep) and step.phases is None
        else step
        for step in recipe.steps
    )
    return recipe.model_copy(update={"steps": steps})


def _solved(ground: Ground, state: Round, limits: Limits) -> Solved:
    path = ground.work.folder / FOLDER / f"round-{state.number}.onnx"
    return solve(ground, state.divided, state.menu, state.taught, limits, path)


def _goal(ground: Ground, share: float) -> float:
    """The score to reach: a share of the teacher's on the validation rows."""
    own = score(ground, ground.whole)
    return own * share if _up(ground) else own / share


def _up(ground: Ground) -> bool:
    return ground.work.material.task.scores[0].higher_is_better


def _no_damage(solved: Solved) -> list[Damage]:
    return [
        Damage(block=block, candidate=KEEP, kl=0.0, metric_drop=0.0)
        for block, label in solved.choice.labels.items()
        if label == KEEP
    ]


def _trained(ground: Ground, state: Round, solved: Solved) -> float:
    """The validation score of the first seed's student after the recipe's steps."""
    work, original = ground.work, ground.work.recipe
    name = f"{FOLDER}/round-{state.number}"
    given = as_given(state, solved, {})
    depends = {
        "given": dict(given.mark),
        "steps": [step.model_dump(mode="json") for step in original.steps],
        "data": work.data_mark,
        "features": ground.section.features,
    }
    if not work.done(name, depends):
        work.given = given
        work.recipe = with_features(original, ground, state.divided)
        try:
            loaded = begin(work)
            found = layers(work, loaded)
            labelled = label(work, loaded, needed(work, loaded, found))
            arm = one_arm(work, "student", work.recipe.seed_list[0], labelled, loaded, found)
            reached = score(ground, trained_module(work, arm))
        finally:
            work.given, work.recipe = None, original
        work.stage(name, depends, lambda _folder: {"score": reached})
    summary: dict[str, Any] = work.stage(name, depends, _nothing)
    return float(summary["score"])


def _nothing(_folder: Path) -> dict[str, Any]:
    raise AssertionError("the stage is done")


def _outlook(ground: Ground, state: Round) -> Outlook:
    usual = ground.section.local.epochs
    losses: dict[Spot, list[float]] = {}
    for spot, summary in state.taught.summaries.items():
        if "failed" in summary:
            continue
        own = [float(summary["loss"])]
        count = state.epochs.get(spot, usual)
        while count > usual:
            count //= LONGER
            own.insert(0, _earlier(ground, spot, count, usual))
        losses[spot] = own
    return Outlook(
        losses=losses,
        divisible=frozenset(b.name for b in state.divided.partition.blocks if len(b.paths) > 1),
        untried=untried(state.offers),
    )


def _earlier(ground: Ground, spot: Spot, count: int, usual: int) -> float:
    """The loss that a candidate had after a shorter training."""
    path = folder_of(ground, spot, count, usual) / "stage.json"
    summary = read_json(path)["summary"] if path.is_file() else {}
    return float(summary.get("loss", float("inf")))


def _changed(ground: Ground, state: Round, plan: Plan) -> Round:
    """What the plan asks for, done up to the new scores."""
    number, divided, offers = state.number + 1, state.divided, state.offers
    epochs = dict(state.epochs)
    usual = max(1, ground.section.local.epochs)
    for spot in plan.more_training:
        epochs[spot] = LONGER * epochs.get(spot, usual)
    if plan.split:
        found = _split(ground, divided, plan.split)
        if found is not None:
            divided = found
            offers = offer(ground, divided, offers)
    if plan.add_candidates:
        offers = more(ground, divided, offers, plan.add_candidates, number)
    taught = teach(ground, divided, offers, epochs, number)
    return Round(
        number=number,
        divided=divided,
        offers=offers,
        taught=taught,
        menu=menu_of(ground, divided, offers, taught),
        epochs=epochs,
    )


def _split(ground: Ground, divided: Divided, names: Sequence[str]) -> Divided | None:
    try:
        found = split(divided.network, divided.partition, names, ground.few())
    except ModelError as error:
        ground.work.progress.say(f"the blocks stay whole: {error}")
        return None
    return finer(ground, divided, found, len(found.blocks))


def _told(state: Round, solved: Solved, after: float, goal: float, plan: Plan) -> dict[str, Any]:
    return {
        "round": state.number,
        "blocks": len(state.divided.partition.blocks),
        "labels": dict(solved.choice.labels),
        "predicted": solved.choice.damage,
        "damage": solved.damage,
        "before": solved.score,
        "after": after,
        "target": goal,
        "measured": dict(solved.measured),
        "next": plan.lines(),
    }
