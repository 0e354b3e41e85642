"""The two figures of the verdict: the effect against zero and the margin, and the gap closed."""

from collections.abc import Sequence

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, WIDTH, Axis, thin
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale
from understudy.report.wording import Number

_EDGE = 18.0
_MOST_SEEDS = 40


def effect_chart(record: RunRecord) -> str:
    """How much better the student is than its control: interval, seeds, zero and the margin.

    Like the verdict's numbers, what is right of zero speaks for the student, whichever way the
    score itself counts.
    """
    effect = record.number("verdict", "effect")
    if effect is None:
        return ""
    low, high = record.number("verdict", "low"), record.number("verdict", "high")
    margin = record.number("verdict", "margin") or 0.0
    seeds = _seed_effects(record)
    scale = _across([effect, low, high, 0.0, margin, -margin, *seeds], rising=True, pad=0.08)
    words = wording.difference(effect, record.unit)
    half = svg.text_width(words, 18) / 2
    middle = min(max(scale(effect), half), WIDTH - half)
    parts = [
        _bar(scale, -margin, margin, 30, 92, "band"),
        svg.line((scale(0), 26), (scale(0), 122), "zero"),
        _bar(scale, low, high, 50, 20, "interval"),
        svg.line((scale(effect), 44), (scale(effect), 76), "estimate"),
        svg.text(middle, 18, words, "value", anchor="middle"),
        _rings([scale(seed) for seed in seeds]),
        _ruler(scale, record.unit),
        svg.text(_EDGE, 166, "◀ control better", "title"),
        svg.text(WIDTH - _EDGE, 166, "student better ▶", "title", anchor="end"),
    ]
    title = f"Student against control: {words} {wording.interval(low, high, record.unit)}"
    return svg.svg(WIDTH, 174, title, *parts, css="wide effect")


def gap_chart(record: RunRecord) -> str:
    """Where the student stands on the way from its control to its teacher; right is better."""
    scores = {name: record.score(name) for name in ("control", "teacher", "student")}
    known = {name: ends for name, ends in scores.items() if ends[0] is not None}
    if len(known) < 2:
        return ""
    values = [value for ends in known.values() for value in ends]
    scale, y = _across(values, rising=record.higher_is_better, pad=0.2), 46.0
    parts = [svg.line((_EDGE, y), (WIDTH - _EDGE, y), "axis")]
    parts.append(_bar(scale, scores["control"][0], scores["student"][0], y - 4, 8, "way"))
    below = sorted(scale(ends[0] or 0) for name, ends in known.items() if name != "student")
    close = len(below) == 2 and below[1] - below[0] < 190
    for name, (value, low, high) in known.items():
        at = scale(value or 0)
        label = f"{DISPLAY[name]} {wording.score(value, record.unit)}"
        if low is not None and high is not None:
            parts.append(svg.line((scale(low), y), (scale(high), y), f"whisker {name}"))
        parts.append(svg.marker(name, at, y, radius=7, title=label))
        beside = (
            "middle" if name == "student" or not close else "end" if at == below[0] else "start"
        )
        spot = _kept_inside(at, svg.text_width(label), beside)
        y_text = 22.0 if name == "student" else 80.0
        parts.append(svg.text(spot, y_text, label, f"label {name}", anchor="middle"))
    title = f"On one line: {', '.join(DISPLAY[name] for name in known)}"
    return svg.svg(WIDTH, 92, title, *parts, css="wide gap")


def _across(values: Sequence[Number | None], *, rising: bool, pad: Number) -> Scale:
    """A scale over the whole width."""
    start, end = (_EDGE, WIDTH - _EDGE) if rising else (WIDTH - _EDGE, _EDGE)
    return Scale.around(values, start=start, end=end, pad=pad)


def _bar(
    scale: Scale, low: Number | None, high: Number | None, y: Number, height: Number, css: str
) -> str:
    if low is None or high is None:
        return ""
    left, right = sorted((scale(low), scale(high)))
    return svg.rect(left, y, right - left, height, css)


def _rings(spots: Sequence[Number]) -> str:
    """A ring for every seed, in three rows, so that near ones can be told apart."""
    last, rings = [-1e9, -1e9, -1e9], []
    for x in sorted(spots):
        row = next((i for i, before in enumerate(last) if x - before >= 10), last.index(min(last)))
        last[row] = x
        rings.append(f'<circle cx="{svg.n(x)}" cy="{90 + 11 * row}" r="4"/>')
    return svg.group("seeds", *rings)


def _ruler(scale: Scale, unit: str) -> str:
    marks = scale.ticks(5)
    points = [100 * mark for mark in marks] if unit == "share" else marks
    axis = thin(Axis(scale=scale, ticks=marks, labels=wording.ticks(points), title=""), room=8)
    parts = [svg.line((_EDGE, 122), (WIDTH - _EDGE, 122), "axis")]
    for mark, label in zip(axis.ticks, axis.labels, strict=True):
        parts.append(svg.text(scale(mark), 140, label, "tick", anchor="middle"))
    return "".join(parts)


def _kept_inside(at: Number, wide: Number, beside: str) -> Number:
    """The middle of words that end, begin or are centred at a point, moved into the figure."""
    middle = at + {"start": wide / 2 + 3, "middle": 0.0, "end": -wide / 2 - 3}[beside]
    return min(max(middle, wide / 2), WIDTH - wide / 2)


def _seed_effects(record: RunRecord) -> list[Number]:
    """How much better the student is than its control, seed by seed."""
    known = svg.finite(as_number(value) for value in record.items("verdict", "per_seed"))
    if known:
        return known[:_MOST_SEEDS]
    arms = [
        [as_number(value) for value in record.items("models", name, "per_seed", record.primary)]
        for name in ("student", "control")
    ]
    sign = 1 if record.higher_is_better else -1
    pairs = [(s, c) for s, c in zip(*arms, strict=False) if s is not None and c is not None]
    return [sign * (student - control) for student, control in pairs[:_MOST_SEEDS]]
