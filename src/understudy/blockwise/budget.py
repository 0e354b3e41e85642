"""Limits on what a whole network costs, and what can be reached where they cannot hold."""

from collections.abc import Iterator, Mapping, Sequence
from math import fsum, isfinite

from understudy.blockwise.program import Line, Number, Program, Spot

# By block and label: what an option costs, by name.
Costs = Mapping[str, Mapping[str, Mapping[str, Number]]]

_MEMORY, _WEIGHTS = "memory", "bytes"


def costs_of(
    chosen: Sequence[Mapping[str, Number]], rest: Mapping[str, Number]
) -> dict[str, float]:
    """What a network of these blocks costs: the names that all of them have.

    All are sums but `memory`: the weights and the largest working memory of any block.
    """
    names = set(chosen[0]).intersection(*chosen[1:]) if chosen else set(rest)
    # In the order in which the first has them, so that equal inputs give equal data.
    ordered = [name for name in (chosen[0] if chosen else rest) if name in names]
    found = {n: fsum([float(rest.get(n, 0)), *(float(c[n]) for c in chosen)]) for n in ordered}
    if _MEMORY in found:
        most = max([float(rest.get(_MEMORY, 0)), *(float(costs[_MEMORY]) for costs in chosen)])
        found[_MEMORY] = most + found.get(_WEIGHTS, 0.0)
    return found


def lines_of(
    costs: Costs, rest: Mapping[str, Number], name: str, limit: Number, *, stretch: Number = 0
) -> list[Line]:
    """A limit of one cost as linear ones.

    The largest of several is at most a limit where each of them is, so that a limit of `memory`
    is one line per block and one for what lies outside the blocks.
    """
    if not isfinite(limit):
        return []
    if name != _MEMORY:
        left = limit - rest.get(name, 0)
        return [Line(weights=dict(_each(costs, name)), limit=left, stretch=stretch)]
    weights = dict(_each(costs, _WEIGHTS))
    left = limit - rest.get(_WEIGHTS, 0)
    lines = [Line(weights=weights, limit=left - rest.get(_MEMORY, 0), stretch=stretch)]
    for block, several in costs.items():
        own = {(block, label): cost[_MEMORY] for label, cost in several.items()}
        both = {spot: weight + own.get(spot, 0) for spot, weight in weights.items()}
        lines.append(Line(weights=both, limit=left, stretch=stretch))
    return lines


def least(
    program: Program,
    costs: Costs,
    rest: Mapping[str, Number],
    name: str,
    limits: Mapping[str, Number],
    *,
    seconds: Number,
) -> float | None:
    """The smallest value of one cost within the limits; None where nothing keeps them."""
    # In units of the largest, since the solver drops very small weights.
    unit = max((abs(float(value)) for _, value in _each(costs, name)), default=0.0) or 1.0
    lines = [*_lines(costs, rest, limits), *lines_of(costs, rest, name, 0, stretch=unit)]
    solved = program.least_stretch(lines, seconds=seconds)
    return None if solved is None else _cost(costs, rest, solved.labels)[name]


def unreachable(
    program: Program,
    costs: Costs,
    rest: Mapping[str, Number],
    limits: Mapping[str, Number],
    *,
    seconds: Number,
) -> str:
    """Why no combination meets the limits, for people.

    It names the limits that are out of reach whatever the others are, or else some that cannot hold
    together while all but any one of them can; the smallest value of each cost by itself and within
    the other limits; and the combination that goes beyond the limits by the smallest share.
    """
    if program.least({}, [], seconds=seconds) is None:
        return (
            "no combination of candidates is allowed, whatever the budget: what they require of "
            "each other and the corrections that forbid pairs contradict; add `keep` to every block"
        )
    alone = {name: least(program, costs, rest, name, {}, seconds=seconds) for name in limits}
    # As the solver sees it, a limit that is missed by its tolerance holds.
    beyond = [
        name
        for name, limit in limits.items()
        if program.least({}, lines_of(costs, rest, name, limit), seconds=seconds) is None
    ]
    binding = beyond or _binding(program, costs, rest, limits, seconds)
    words = (
        ("is out of reach" if len(beyond) == 1 else "are each out of reach")
        if beyond
        else "cannot hold together"
    )
    said = [f"no combination of candidates meets the budget: {_listed(binding)} {words}"]
    for name, limit in limits.items():
        others = {other: top for other, top in limits.items() if other != name}
        beside = least(program, costs, rest, name, others, seconds=seconds) if others else None
        line = f"  {name}: limit {_written(limit)}, the smallest there is {_written(alone[name])}"
        told = beside is not None and beside != alone[name]
        said.append(line + (f", within the other limits {_written(beside)}" if told else ""))
    closest, share = _closest(program, costs, rest, limits, seconds)
    reached = ", ".join(f"{name} {_written(closest[name])}" for name in limits)
    said.append(f"  closest: {reached}, up to {100 * share:.3g}% beyond a limit")
    said.append(f"  raise {_listed(binding)}, or add smaller candidates")
    return "\n".join(said)


def _binding(
    program: Program,
    costs: Costs,
    rest: Mapping[str, Number],
    limits: Mapping[str, Number],
    seconds: Number,
) -> list[str]:
    """Limits that contradict, and no longer do without any one of them."""
    names = list(limits)
    for name in limits:
        others = {other: limits[other] for other in names if other != name}
        if program.least({}, _lines(costs, rest, others), seconds=seconds) is None:
            names.remove(name)
    return names


def _closest(
    program: Program,
    costs: Costs,
    rest: Mapping[str, Number],
    limits: Mapping[str, Number],
    seconds: Number,
) -> tuple[dict[str, float], float]:
    """The costs that go beyond the limits by the smallest share, and that share."""
    lines = [
        line
        for name, limit in limits.items()
        for line in lines_of(costs, rest, name, limit, stretch=abs(limit) or 1)
    ]
    solved = program.least_stretch(lines, seconds=seconds)
    assert solved is not None  # a large enough slack allows every choice
    found = _cost(costs, rest, solved.labels)
    return found, max((found[n] - top) / (abs(top) or 1) for n, top in limits.items())


def _cost(costs: Costs, rest: Mapping[str, Number], labels: Mapping[str, str]) -> dict[str, float]:
    return costs_of([costs[block][label] for block, label in labels.items()], rest)


def _lines(costs: Costs, rest: Mapping[str, Number], limits: Mapping[str, Number]) -> list[Line]:
    return [line for name, top in limits.items() for line in lines_of(costs, rest, name, top)]


def _each(costs: Costs, name: str) -> Iterator[tuple[Spot, Number]]:
    for block, several in costs.items():
        for label, cost in several.items():
            yield (block, label), cost[name]


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) < 2 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _written(value: Number | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
