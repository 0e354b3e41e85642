"""Score against cost, and the learning curves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from understudy.report import axes, svg, wording
from understudy.report.axes import BOTTOM, LEFT, RIGHT, TOP, Axis, shown
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Point, Scale
from understudy.report.wording import Number

# A page of a hundred seeds must stay small: the more lines, the fewer points in each.
_LINE_POINTS, _MEAN_POINTS, _ALL_POINTS, _MOST_LINES = 120, 50, 6000, 40

_COSTS: Mapping[str, tuple[str, Callable[[Number | None], str]]] = {
    "bytes": ("size of the file", wording.size),
    "parameters": ("parameters", wording.count),
    "latency_ms": ("latency of one row", wording.milliseconds),
}


def trade_off(record: RunRecord, cost: str) -> str:
    """The primary score against one cost of each model: `bytes`, `parameters` or `latency_ms`."""
    points = _spent(record, cost)
    if not points:
        return ""
    title, write = _COSTS[cost]
    limit = _limit(record, cost)
    x = Scale.around([*points.values(), limit], start=LEFT, end=RIGHT, log=True, pad=0.22)
    y = _score_scale(record, list(points))
    marks = x.ticks(6)
    across = Axis(scale=x, ticks=marks, labels=[write(m) for m in marks], title=title)
    measure = wording.short(record.primary.replace("_", " "), 30)
    up = _up(y, measure if record.higher_is_better else f"{measure} (lower is better)", record.unit)
    parts = [_budget(x, y, limit, write), axes.frame(axes.thin(across, room=10), up)]
    spots: list[tuple[Point, str]] = []
    walls = [(x(limit) - 1, y.end, x(limit) + 1, y.start)] if limit else []
    for name, spent in points.items():
        value, low, high = record.score(name)
        at = (x(spent), y(value or 0))
        if low is not None and high is not None:
            parts.append(svg.line((at[0], y(low)), (at[0], y(high)), f"whisker {name}"))
            walls.append((at[0] - 2, y(high), at[0] + 2, y(low)))
        spots.append((at, shown(record, name)))
    where = axes.place(spots, walls, left=LEFT, right=axes.WIDTH)
    for name, (at, label), (spot, anchor) in zip(points, spots, where, strict=True):
        score = wording.score(record.score(name)[0], record.unit)
        parts.append(svg.marker(name, *at, title=f"{label}: {score}, {write(points[name])}"))
        parts.append(svg.text(*spot, label, f"label {name}", anchor=anchor))
    told = f"{measure} against {title}"
    return svg.svg(axes.WIDTH, axes.HEIGHT, told, *parts, css="wide")


def learning(record: RunRecord, key: str, title: str) -> str:
    """One value of the learning curves by epoch: every seed thin, the mean of the seeds thick.

    Where the first epochs would flatten all the others the frame cuts them off.
    """
    arms = {arm: _lines(record, arm, key) for arm in ("control", "student")}
    everything = [point for lines in arms.values() for line in lines for point in line]
    if not everything:
        return ""
    x = Scale.around([p[0] for p in everything], start=LEFT, end=RIGHT, pad=0)
    y = Scale.around(_telling(everything), start=BOTTOM, end=TOP, pad=0.06)
    marks = [mark for mark in x.ticks(6) if mark == round(mark)] or [everything[0][0]]
    across = Axis(scale=x, ticks=marks, labels=wording.ticks(marks), title="epoch")
    up = _up(y, title, record.unit if key == "validation" else "")
    limit = max(8, min(_LINE_POINTS, _ALL_POINTS // max(len(lines) for lines in arms.values())))
    curves, ends = [], []
    for arm, lines in arms.items():
        shown = [svg.downsample(points, limit) for points in lines[:_MOST_LINES]]
        curves += [svg.path(_drawn(points, x, y), f"curve thin {arm}") for points in shown]
    for arm, lines in arms.items():
        # Neighbouring epochs are averaged too, so that a long mean stays a line.
        drawn = _drawn(svg.averaged(mean_line(lines), _MEAN_POINTS), x, y)
        curves.append(svg.path(drawn, f"curve mean {arm}", title=f"{arm}, mean of {len(lines)}"))
        ends += [svg.marker(arm, *point, radius=5) for point in drawn[-1:]]
    body = axes.frame(across, up) + svg.window(x, y, *curves) + "".join(ends)
    return svg.svg(axes.WIDTH, axes.HEIGHT, f"{title} by epoch", body, css="wide")


def mean_line(lines: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean over lines at the places that all of them have."""
    if not lines:
        return []
    tables = [dict(line) for line in lines]
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    return [(x, sum(table[x] for table in tables) / len(tables)) for x in shared]


def _spent(record: RunRecord, cost: str) -> dict[str, Number]:
    """What each model costs, of those whose score is known too."""
    keys = (cost, "batch1") if cost == "latency_ms" else (cost,)
    spent = {name: record.number("models", name, *keys) for name in record.models}
    return {
        name: value
        for name, value in spent.items()
        if value is not None and value > 0 and record.score(name)[0] is not None
    }


def _score_scale(record: RunRecord, names: Sequence[str]) -> Scale:
    values = [value for name in names for value in record.score(name)]
    limits = (0.0, 1.0) if record.unit == "share" else (-1e99, 1e99)
    return Scale.around(values, start=BOTTOM, end=TOP, pad=0.12, limits=limits)


def _limit(record: RunRecord, cost: str) -> Number | None:
    """The budget of this cost, where it is about what the axis shows."""
    batch = record.number("recipe", "budget", "latency_ms", "batch")
    if cost == "latency_ms" and batch not in (None, 1.0):
        return None
    for check in record.items("budget", "checks"):
        if isinstance(check, Mapping) and str(check.get("name", "")).startswith(cost):
            limit = as_number(check.get("limit"))
            return limit if limit and limit > 0 else None
    return None


def _budget(x: Scale, y: Scale, limit: Number | None, write: Callable[[Number], str]) -> str:
    if limit is None:
        return ""
    at, words = x(limit), f"budget {write(limit)}"
    outside = svg.rect(at, y.end, x.end - at, y.start - y.end, "outside")
    edge = svg.line((at, y.end - 8), (at, y.start), "budget")
    wide = svg.text_width(words)
    spot = at + 5 if at + 5 + wide < x.end else at - 5 - wide
    return outside + edge + svg.text(spot, y.end - 2, words, "tick")


def _lines(record: RunRecord, arm: str, key: str) -> list[list[Point]]:
    lines = []
    for curve in record.items("curves"):
        if isinstance(curve, Mapping) and curve.get("arm") == arm:
            pairs = [_pair(point, key) for point in curve.get("points") or []]
            lines.append([(pair[0], pair[1]) for pair in pairs if len(pair) == 2])
    return [line for line in lines if line]


def _pair(point: Any, key: str) -> list[Number]:
    """Epoch and value; shorter where one was not taken, so that the line goes across."""
    if not isinstance(point, Mapping):
        return []
    return svg.finite(as_number(point.get(name)) for name in ("epoch", key))


def _telling(points: Sequence[Point]) -> list[Number]:
    """The values that the upright scale is made for: all, or those after the first fifth."""
    values = [value for _, value in points]
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    later = [value for epoch, value in points if epoch >= first + 0.2 * (last - first)]
    spread, rest = max(values) - min(values), max(later) - min(later)
    return later if last - first >= 9 and 0 < 3 * rest < spread else values


def _up(y: Scale, title: str, unit: str) -> Axis:
    levels = y.ticks(5)
    return Axis(scale=y, ticks=levels, labels=wording.ticks(levels, unit), title=title)


def _drawn(points: Sequence[Point], x: Scale, y: Scale) -> list[Point]:
    # Beyond the frame a line keeps its slope for a while: the window cuts it off.
    return [(x(a), y(b, edge=20)) for a, b in points]
