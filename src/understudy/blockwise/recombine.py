"""Which candidate each block gets: the least damage that a budget allows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import fsum, inf, isfinite, nan
from typing import Any

from understudy.blockwise.budget import Costs, costs_of, least, lines_of, unreachable
from understudy.blockwise.program import Number, Program, Spot
from understudy.errors import ModelError, did_you_mean

SECONDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One candidate of a block, as the program sees it.

    Attributes:
        label: of the candidate; each block's are different.
        damage: what replacing this block alone does to the network; an option whose damage is not
            finite is never chosen.
        costs: what it costs by name, such as `parameters`, `bytes`, `flops`, `ms`, and `memory`:
            the bytes that it works in while it runs, its weights aside.
        requires: other blocks' options, as (block, label), without which it may not be chosen: it
            shares their weights.
    """

    label: str
    damage: Number
    costs: Mapping[str, Number]
    requires: tuple[Spot, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """What two blocks' candidates do together beyond what each does alone.

    Attributes:
        one: block and label.
        other: those of another block.
        value: added to the sum of both damages where both are chosen; where it is not finite they
            are never chosen together.
    """

    one: Spot
    other: Spot
    value: Number


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One candidate per block.

    Attributes:
        labels: the chosen candidate of each block.
        damage: the sum of their damages and of the corrections of their pairs.
        costs: of the whole network, by name; `memory` is its weights and the largest working
            memory of any block.
        gap: how much less damage another choice within the budget could at most do; 0 where it is
            proven that none does less.
    """

    labels: Mapping[str, str]
    damage: float
    costs: Mapping[str, float]
    gap: float = 0.0

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Choice":
        """What `to_data` wrote."""
        return cls(
            labels=dict(data["labels"]),
            damage=float(data["damage"]),
            costs={name: float(cost) for name, cost in data["costs"].items()},
            gap=float(data["gap"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Menu:
    """What there is to choose from.

    Attributes:
        options: of each block, the blocks in running order.
        pairs: corrections of pairs of options; what is not named is 0.
        rest: what the network costs outside all blocks, by name; what is not named is 0.
    """

    options: Mapping[str, Sequence[Option]]
    pairs: Sequence[Correction] = ()
    rest: Mapping[str, Number] = field(default_factory=dict)


def choose(
    menu: Menu, budget: Mapping[str, Number] | None = None, *, seconds: Number = SECONDS
) -> Choice:
    """The candidates of least predicted damage within a budget: a mixed-integer program.

    Scores and a program in place of a search, as in Puzzle (Bercovich et al. 2025, section 4).
    It is solved to proven optimality by SciPy's HiGHS unless the time is over before.

    Args:
        menu: what there is to choose from; nothing of it is trained or measured here, so another
            budget is answered at once.
        budget: the largest value of each cost of the whole network; `memory` bounds its `bytes`
            and the largest working memory together.
        seconds: after so long the best choice found is given, with its gap.

    Raises:
        ModelError: the options are not usable, the budget names a cost that they do not have, or no
            combination meets it: then what is closest, and which limits cannot hold together.

    Example:
        >>> costly = Option(label="keep", damage=0.0, costs={"ms": 2.0})
        >>> cheap = Option(label="narrow", damage=0.1, costs={"ms": 1.0})
        >>> menu = Menu(options={"one": [costly, cheap], "two": [costly, cheap]})
        >>> choose(menu, {"ms": 3.5}).damage
        0.1
    """
    task = _Task.of(menu, dict(budget or {}))
    lines = [
        line
        for name, limit in task.limits.items()
        for line in lines_of(task.costs, menu.rest, name, limit)
    ]
    damages = {(b, o.label): o.damage for b, several in task.options.items() for o in several}
    solved = task.program.least(damages, lines, seconds=seconds)
    if solved is None:
        raise ModelError(
            unreachable(task.program, task.costs, menu.rest, task.limits, seconds=seconds)
        )
    return predicted(menu, solved.labels, gap=solved.gap)


def smallest(
    menu: Menu, name: str, budget: Mapping[str, Number] | None = None, *, seconds: Number = SECONDS
) -> float:
    """The smallest value of one cost that any combination within the budget has.

    Raises:
        ModelError: as of `choose`.
    """
    task = _Task.of(menu, {name: inf, **(budget or {})})
    found = least(task.program, task.costs, menu.rest, name, task.limits, seconds=seconds)
    if found is None:
        raise ModelError(
            unreachable(task.program, task.costs, menu.rest, task.limits, seconds=seconds)
        )
    return found


def predicted(menu: Menu, labels: Mapping[str, str], *, gap: float = 0.0) -> Choice:
    """Damage and costs that are predicted of a choice, chosen by whoever.

    Raises:
        ModelError: it does not choose one option of each block.
    """
    chosen = {block: _named(menu, block, labels.get(block)) for block in menu.options}
    both = [
        float(pair.value)
        for pair in menu.pairs
        if labels.get(pair.one[0]) == pair.one[1] and labels.get(pair.other[0]) == pair.other[1]
    ]
    return Choice(
        labels=dict(labels),
        damage=fsum([*(float(option.damage) for option in chosen.values()), *both]),
        costs=costs_of([option.costs for option in chosen.values()], menu.rest),
        gap=gap,
    )


def usable(menu: Menu) -> dict[str, list[Option]]:
    """The options of finite damage whose requirements are there too.

    Raises:
        ModelError: a block has none.
    """
    left = {b: [o for o in several if isfinite(o.damage)] for b, several in menu.options.items()}
    while True:
        there = {(block, option.label) for block, several in left.items() for option in several}
        kept = {
            b: [o for o in several if there.issuperset(o.requires)] for b, several in left.items()
        }
        if kept == left:
            break
        left = kept
    for block, several in left.items():
        if not several:
            raise ModelError(
                f"block `{block}` has no candidate of finite damage: add `keep`, or train "
                f"{', '.join(o.label for o in menu.options[block]) or 'one'} again"
            )
    return left


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """A menu in the solver's form, with the limits that bind at all."""

    options: Mapping[str, Sequence[Option]]
    costs: Costs
    limits: Mapping[str, Number]
    program: Program

    @classmethod
    def of(cls, menu: Menu, budget: Mapping[str, Number]) -> "_Task":
        _check(menu, budget)
        options = usable(menu)
        return cls(
            options=options,
            costs={b: {o.label: o.costs for o in several} for b, several in options.items()},
            limits={name: limit for name, limit in budget.items() if limit != inf},
            program=_program(menu, options),
        )


def _program(menu: Menu, options: Mapping[str, Sequence[Option]]) -> Program:
    there = {(block, option.label) for block, several in options.items() for option in several}
    order = {block: place for place, block in enumerate(options)}
    pairs: dict[tuple[Spot, Spot], Number] = {}
    for pair in menu.pairs:
        one, other = sorted((pair.one, pair.other), key=lambda spot: order[spot[0]])
        if one in there and other in there:
            pairs[one, other] = pairs.get((one, other), 0.0) + pair.value
    return Program(
        {block: [option.label for option in several] for block, several in options.items()},
        requires=[
            ((block, option.label), needed)
            for block, several in options.items()
            for option in several
            for needed in option.requires
        ],
        pairs=pairs,
    )


def _check(menu: Menu, budget: Mapping[str, Number]) -> None:
    if not menu.options:
        raise ModelError("there are no blocks to choose for: partition the network first")
    labels = {block: [o.label for o in several] for block, several in menu.options.items()}
    for block, names in labels.items():
        if len(set(names)) < len(names):
            raise ModelError(f"the labels of block `{block}` must differ, but got {names}")
    named = [n for several in menu.options.values() for o in several for n in o.requires]
    for block, label in [*named, *(spot for pair in menu.pairs for spot in (pair.one, pair.other))]:
        if label not in labels.get(block, ()):
            raise ModelError(
                f"`{label}` of block `{block}` is named by a requirement or a correction, but is "
                f"no option: {did_you_mean(label, labels.get(block, ()))}"
            )
    for pair in menu.pairs:
        if pair.one[0] == pair.other[0]:
            raise ModelError(f"a correction needs two blocks, but got `{pair.one[0]}` twice")
    for name, limit in budget.items():
        _check_limit(menu, name, limit)


def _check_limit(menu: Menu, name: str, limit: Number) -> None:
    if not limit >= 0:
        raise ModelError(f"`{name} >= 0` must hold for a limit, but got {limit}: leave it out")
    for needed in (name, "bytes") if name == "memory" else (name,):
        for block, several in menu.options.items():
            for option in several:
                if not isfinite(option.costs.get(needed, nan)):
                    raise ModelError(
                        f"the budget of `{name}` needs `{needed}` of every candidate, but "
                        f"`{option.label}` of block `{block}` has none: "
                        f"{did_you_mean(needed, option.costs)}"
                    )


def _named(menu: Menu, block: str, label: str | None) -> Option:
    for option in menu.options[block]:
        if option.label == label:
            return option
    known = [option.label for option in menu.options[block]]
    raise ModelError(
        f"block `{block}` needs one of its candidates, but got {label}: "
        f"{did_you_mean(str(label), known)}"
    )
