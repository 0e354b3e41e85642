"""What recombined students were predicted to be worth at each cost, and what was measured."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.report import axes, svg, wording
from understudy.report.axes import BOTTOM, LEFT, RIGHT, TOP, Axis
from understudy.report.record import as_number
from understudy.report.svg import Point, Scale
from understudy.report.wording import Number

_COSTS: Mapping[str, tuple[str, Callable[[Number | None], str]]] = {
    "ms": ("latency of one row", wording.milliseconds),
    "bytes": ("size of the weights", wording.size),
    "memory": ("memory", wording.size),
    "parameters": ("parameters", wording.count),
    "flops": ("operations for one row", wording.count),
}
# What kind of model a point is, and whose colour and shape it has.
_ROLES = {"teacher": "teacher", "before": "student", "after": "student", "baseline": "control"}
_WORDS = {"teacher": "teacher", "before": "stitched", "after": "finetuned"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    name: str
    role: str
    cost: float
    value: float
    low: float | None
    high: float | None

    @property
    def series(self) -> str:
        """The words for all points of its kind: those of a baseline have one name."""
        return _WORDS.get(self.role, self.name)


def front_chart(front: Mapping[str, Any], *, log_across: bool = True, log_up: bool = False) -> str:
    """The predicted curve of best choices, and the measured models around it.

    The teacher is a diamond; a student is a ring as it was stitched and a disc after finetuning,
    with a line between the two; the models of a baseline are squares along a dashed line, empty
    ones for every baseline but the first. What is missing or not finite is left out, and of
    nothing there is no drawing.

    Args:
        front: plain data. `along`: the cost (`ms`, `bytes`, `memory`, `parameters`, `flops` or
            another name); `measure`, `unit` and `higher_is_better` of what goes up; `predicted`:
            objects with `cost` and `value`; `measured`: objects with `name`, `role` (`teacher`,
            `before`, `after` or `baseline`), `cost`, `value` and perhaps `low` and `high`. A
            student has one name before and after; all models of a baseline have one.
        log_across: whether equal ratios of costs are equally far apart; only where all are above 0.
        log_up: likewise of the values.

    Returns:
        A whole SVG, or an empty string.
    """
    curve = sorted(_curve(front))
    points = _points(front)
    if not curve and not points:
        return ""
    costs = [cost for cost, _ in curve] + [point.cost for point in points]
    ends = [end for p in points for end in (p.value, p.low, p.high)]
    values = svg.finite([*(value for _, value in curve), *ends])
    x = Scale.around(costs, start=LEFT, end=RIGHT, log=log_across and min(costs) > 0, pad=0.1)
    y = Scale.around(values, start=BOTTOM, end=TOP, log=log_up and min(values) > 0, pad=0.1)
    known = str(front.get("along") or "cost")
    title, write = _COSTS.get(known, (known.replace("_", " "), wording.score))
    drawn = [(x(cost), y(value)) for cost, value in curve]
    hollow = _baseline_names(points)[1:]
    body = [
        axes.frame(_across(x, title, write), _up(y, front)),
        svg.path(drawn, "curve mean student", title="predicted") if len(drawn) > 1 else "",
        *_baselines(points, x, y),
        *_finetuning(points, x, y),
        *(_mark(point, x, y, _told(point, front, write), hollow) for point in points),
        *_labels(points, drawn, x, y, hollow),
    ]
    told = f"{_measure(front)} against {title}: predicted and measured"
    return svg.svg(axes.WIDTH, axes.HEIGHT, told, *body, css="wide")


def front_lead(front: Mapping[str, Any]) -> str:
    """What the marks of the drawing mean, in words; empty where there is none."""
    points = _points(front)
    roles = {point.role for point in points}
    said = ["The line is the best predicted choice at each cost."] if len(_curve(front)) > 1 else []
    if "before" in roles:
        said.append("Rings: measured as stitched.")
    if "after" in roles:
        said.append("Discs: measured after finetuning.")
    names = [wording.cut(name, 40) for name in _baseline_names(points)]
    said += [f"Squares: {name}." for name in names[:1]]
    said += [f"Empty squares: {', '.join(names[1:])}."] if names[1:] else []
    return " ".join(said)


def _curve(front: Mapping[str, Any]) -> list[Point]:
    pairs = [
        (as_number(p.get("cost")), as_number(p.get("value"))) for p in _items(front, "predicted")
    ]
    return [(cost, value) for cost, value in pairs if cost is not None and value is not None]


def _points(front: Mapping[str, Any]) -> list[_Measured]:
    found = []
    for item in _items(front, "measured"):
        cost, value = as_number(item.get("cost")), as_number(item.get("value"))
        role = str(item.get("role"))
        if role in _ROLES and cost is not None and value is not None:
            name = str(item.get("name") or role)
            low, high = as_number(item.get("low")), as_number(item.get("high"))
            found.append(
                _Measured(name=name, role=role, cost=cost, value=value, low=low, high=high)
            )
    return found


def _items(front: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = front.get(key)
    several = found if isinstance(found, Sequence) and not isinstance(found, str) else ()
    return [item for item in several if isinstance(item, Mapping)]


def _measure(front: Mapping[str, Any]) -> str:
    return wording.short(str(front.get("measure") or "score").replace("_", " "), 30)


def _across(x: Scale, title: str, write: Callable[[Number | None], str]) -> Axis:
    marks = x.ticks(6)
    axis = Axis(scale=x, ticks=marks, labels=[write(mark) for mark in marks], title=title)
    return axes.thin(axis, room=10)


def _up(y: Scale, front: Mapping[str, Any]) -> Axis:
    marks = y.ticks(5)
    unit = str(front.get("unit") or "")
    better = "" if front.get("higher_is_better", True) else " (lower is better)"
    title = f"{_measure(front)}{better}"
    labels = (
        [wording.score(mark, unit, decimals=1) for mark in marks]
        if y.log
        else wording.ticks(marks, unit)
    )
    return Axis(scale=y, ticks=marks, labels=labels, title=title)


def _series(points: Iterable[_Measured]) -> dict[str, list[_Measured]]:
    """The points of each kind or baseline, by cost."""
    found: dict[str, list[_Measured]] = {}
    for point in sorted(points, key=lambda one: one.cost):
        found.setdefault(point.series, []).append(point)
    return found


def _baselines(points: Sequence[_Measured], x: Scale, y: Scale) -> list[str]:
    several = _series(point for point in points if point.role == "baseline")
    return [
        svg.path([(x(p.cost), y(p.value)) for p in line], "curve mean control", title=name)
        for name, line in several.items()
        if len(line) > 1
    ]


def _finetuning(points: Sequence[_Measured], x: Scale, y: Scale) -> list[str]:
    """A line from each student as it was stitched to what finetuning made of it."""
    after = {point.name: point for point in points if point.role == "after"}
    return [
        svg.line((x(p.cost), y(p.value)), (x(end.cost), y(end.value)), "whisker student")
        for p in points
        if p.role == "before" and (end := after.get(p.name)) is not None
    ]


def _baseline_names(points: Iterable[_Measured]) -> list[str]:
    return list(dict.fromkeys(point.name for point in points if point.role == "baseline"))


def _told(point: _Measured, front: Mapping[str, Any], write: Callable[[Number | None], str]) -> str:
    score = wording.score(point.value, str(front.get("unit") or ""))
    kind = "" if point.series == point.name else f"{point.series} "
    return f"{kind}{wording.short(point.name, 60)}: {score}, {write(point.cost)}"


def _mark(point: _Measured, x: Scale, y: Scale, told: str, hollow: Sequence[str]) -> str:
    at, model = (x(point.cost), y(point.value)), _ROLES[point.role]
    reach = ""
    if point.low is not None and point.high is not None:
        reach = svg.line((at[0], y(point.low)), (at[0], y(point.high)), f"whisker {model}")
    empty = 'style="fill: var(--card); stroke: var(--c)"'
    left, top = svg.n(at[0]), svg.n(at[1])
    if point.role == "before":
        ring = f'<circle cx="{left}" cy="{top}" r="5" {empty}/>'
        return reach + svg.group("mark student", ring, title=told)
    if point.role == "baseline" and point.name in hollow:
        left, top = svg.n(at[0] - 5), svg.n(at[1] - 5)
        square = f'<rect x="{left}" y="{top}" width="10" height="10" {empty}/>'
        return reach + svg.group("mark control", square, title=told)
    return reach + svg.marker(model, *at, title=told)


def _labels(
    points: Sequence[_Measured],
    curve: Sequence[Point],
    x: Scale,
    y: Scale,
    hollow: Sequence[str],
) -> list[str]:
    """One label for each kind of mark and one for the curve.

    It stands at the dearest point, of empty squares at the cheapest, since lines lie close there.
    """
    ends = [line[0 if name in hollow else -1] for name, line in _series(points).items()]
    spots = [((x(p.cost), y(p.value)), wording.short(p.series, 24)) for p in ends]
    kinds = [_ROLES[point.role] for point in ends]
    if len(curve) > 1:
        spots.append((curve[len(curve) // 2], "predicted"))
        kinds.append("student")
    walls = [(x(p.cost) - 6, y(p.value) - 6, x(p.cost) + 6, y(p.value) + 6) for p in points]
    walls += [(cx - 3, cy - 3, cx + 3, cy + 3) for cx, cy in curve]
    where = axes.place(spots, walls, left=LEFT, right=axes.WIDTH)
    return [
        svg.text(*spot, words, f"label {kind}", anchor=anchor)
        for kind, (_, words), (spot, anchor) in zip(kinds, spots, where, strict=True)
    ]
