"""One large model into several students of different sizes, from one library of taught candidates.

Every candidate was taught and scored once. A member is then a choice under a budget of its own,
stitched from copies, so that a further member costs a solution of the program and its fine-tuning.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from understudy.blockwise.assembling import KEEP, Spot, stitched
from understudy.blockwise.lessons import Index, Lesson, learn, narrowed
from understudy.blockwise.program import Number
from understudy.blockwise.recombine import SECONDS, Choice, Menu, choose
from understudy.blockwise.words import Partition
from understudy.contracts import Progress, Silent
from understudy.engine import Fitted
from understudy.errors import DataError, ModelError

Modules = Mapping[str, Mapping[str, nn.Module]]
Budget = Mapping[str, Number]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One student of a family.

    Attributes:
        name: of the member; also good as the name of a folder.
        budget: that it was chosen under.
        choice: its candidates, with the damage and the costs that are predicted.
        network: stitched; it shares no weights with other members.
        group: the classes that it tells apart, in the order of its answers; None: all.
        fitted: how it was fine-tuned; None where it was not.
    """

    name: str
    budget: Budget
    choice: Choice
    network: nn.Module
    group: tuple[int, ...] | None = None
    fitted: Fitted | None = None


def family(
    network: nn.Module,
    partition: Partition,
    modules: Modules,
    menu: Menu,
    budgets: Mapping[str, Budget],
    *,
    seconds: Number = SECONDS,
) -> tuple[Member, ...]:
    """A student for each budget; nothing is trained.

    Args:
        network: it is not changed.
        partition: of this network.
        modules: the taught candidates by block and label.
        menu: what there is to choose from.
        budgets: by the member's name, the largest value of each cost.
        seconds: of the solver for each member.

    Raises:
        ModelError: there is no budget, or one that no combination meets; the member is named.

    Example:
        ```python
        members = family(teacher, parts, modules, menu, {
            "small": {"ms": 1.0}, "large": {"ms": 4.0},
        })
        ```
    """
    if not budgets:
        raise ModelError("a family needs a budget for each member, but got none")
    found = []
    for name, budget in budgets.items():
        try:
            choice = choose(menu, budget, seconds=seconds)
        except ModelError as error:
            raise ModelError(f"member `{name}`: {error}") from error
        made = stitched(network, partition, modules, choice.labels)
        found.append(Member(name=name, budget=dict(budget), choice=choice, network=made))
    return tuple(found)


def tuned(
    members: Sequence[Member],
    lesson: Lesson,
    *,
    told: Index | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Member, ...]:
    """Copies of all members, each fine-tuned on the same stored answers.

    Specialists learn from the rows of their group alone, and what the teacher said of its classes.

    Args:
        members: they are not changed.
        lesson: of all classes.
        told: the class of every row by its position: its label, or the teacher's first choice;
            needed where a member is a specialist.
        seed: of every member's fine-tuning.
        folder: for checkpoints, a folder for each member and seed; what is found there of an
            earlier call is gone on from.
        progress: where it shows itself.

    Raises:
        DataError: a specialist without `told`, or with fewer than two rows.
        StoreError: a row was never labelled.
        TrainingError: as of `engine.fit`.
    """
    shown = progress or Silent()
    found = []
    with shown.track("fine-tuning", len(members), "members") as tracker:
        for number, member in enumerate(members):
            own = lesson
            if member.group is not None:
                if told is None:
                    raise DataError(
                        f"`{member.name}` learns from the rows of its classes only: give `told`, "
                        "the class of every row"
                    )
                own = narrowed(lesson, member.group, told)
            made = deepcopy(member.network)
            place = None if folder is None else folder / f"{member.name}_{seed}"
            fitted = learn(made, own, seed=seed, folder=place, name=member.name)
            found.append(replace(member, network=made, fitted=fitted))
            tracker(number + 1, member.name)
    return tuple(found)


def used(members: Sequence[Member]) -> dict[Spot, tuple[str, ...]]:
    """By block and label of a taught candidate, the members that it is in; kept blocks aside."""
    found: dict[Spot, tuple[str, ...]] = {}
    for member in members:
        for spot in member.choice.labels.items():
            if spot[1] != KEEP:
                found[spot] = (*found.get(spot, ()), member.name)
    return found


def lines(members: Sequence[Member]) -> list[str]:
    """A table for a terminal: predicted damage and costs of every member."""
    names = list(dict.fromkeys(name for member in members for name in member.choice.costs))
    cells = [["member", "damage", *names]]
    cells += [
        [
            member.name,
            f"{member.choice.damage:.4g}",
            *(f"{member.choice.costs[name]:.6g}" for name in names),
        ]
        for member in members
    ]
    wide = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(size) for cell, size in zip(line, wide, strict=True)).rstrip()
        for line in cells
    ]
