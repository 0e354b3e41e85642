"""The two figures of the verdict: the effect against zero and the margin, and the gap closed."""

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, WIDTH, Axis, thin
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale

_EDGE = 18.0
_MOST_SEEDS = 40


def effect_sign(record: RunRecord) -> int:
    """1 where a positive effect speaks for the student, -1 where a negative one does.

    The effect on a score that should be low may be written either way, so it is held against the
    two scores that it is the difference of, or else against the verdict's own word.
    """
    effect = record.number("verdict", "effect")
    if record.higher_is_better or not effect:
        return 1
    student, control = record.score("student")[0], record.score("control")[0]
    if student is not None and control is not None and student != control:
        return 1 if (student < control) == (effect > 0) else -1
    helped = {"HELPED": 1, "HURT": -1}.get(str(record.get("verdict", "word")))
    return -1 if helped is None else helped * (1 if effect > 0 else -1)


def effect_chart(record: RunRecord) -> str:
    """The difference to the control with its interval, every seed, zero and the margin.

    What speaks for the student is on the right, whichever way the score counts.
    """
    effect = record.number("verdict", "effect")
    if effect is None:
        return ""
    low, high = record.number("verdict", "low"), record.number("verdict", "high")
    margin = record.number("verdict", "margin") or 0.0
    seeds = _seed_differences(record)
    scale = _across(
        [effect, low, high, 0.0, margin, -margin, *seeds], effect_sign(record) > 0, 0.08
    )
    words = wording.difference(effect, record.unit)
    half = svg.text_width(words, 17) / 2
    middle = min(max(scale(effect), half), WIDTH - half)
    parts = [
        _bar(scale, -margin, margin, 30, 92, "band"),
        svg.line((scale(0), 26), (scale(0), 122), "zero"),
        _bar(scale, low, high, 52, 20, "interval"),
        svg.line((scale(effect), 46), (scale(effect), 78), "estimate"),
        svg.text(middle, 18, words, "value", anchor="middle"),
        svg.group("seeds", *(_seed(scale(d), i) for i, d in enumerate(seeds))),
        _ruler(scale, record.unit),
        svg.text(_EDGE, 166, "◀ control better", "title"),
        svg.text(WIDTH - _EDGE, 166, "student better ▶", "title", anchor="end"),
    ]
    title = f"Student minus control: {words} {wording.interval(low, high, record.unit)}"
    return svg.svg(WIDTH, 174, title, *parts, css="effect")


def gap_chart(record: RunRecord) -> str:
    """Where the student stands on the way from its control to its teacher."""
    scores = {name: record.score(name) for name in ("control", "teacher", "student")}
    known = {name: ends for name, ends in scores.items() if ends[0] is not None}
    if len(known) < 2:
        return ""
    values = [value for ends in known.values() for value in ends]
    scale, y = _across(values, record.higher_is_better, 0.2), 46.0
    parts = [svg.line((_EDGE, y), (WIDTH - _EDGE, y), "axis")]
    parts.append(_bar(scale, scores["control"][0], scores["student"][0], y - 4, 8, "way"))
    below = sorted(scale(ends[0] or 0) for name, ends in known.items() if name != "student")
    close = below[-1] - below[0] < 170
    for name, (value, low, high) in known.items():
        at = scale(value or 0)
        label = f"{DISPLAY[name]} {wording.score(value, record.unit)}"
        if low is not None and high is not None:
            parts.append(svg.line((scale(low), y), (scale(high), y), f"whisker {name}"))
        parts.append(svg.marker(name, at, y, radius=7, title=label))
        anchor = (
            "middle" if name == "student" or not close else "end" if at == below[0] else "start"
        )
        start = _start(at, svg.text_width(label), anchor)
        parts.append(svg.text(start, 22 if name == "student" else 80, label, f"label {name}"))
    return svg.svg(WIDTH, 92, "Control, student and teacher on one line", *parts, css="gap")


def _across(values: list[float | None] | list[float], rising: bool, pad: float) -> Scale:
    """A scale over the whole width on which better is further right."""
    start, end = (_EDGE, WIDTH - _EDGE) if rising else (WIDTH - _EDGE, _EDGE)
    return Scale.around(values, start=start, end=end, pad=pad)


def _bar(
    scale: Scale, low: float | None, high: float | None, y: float, height: float, css: str
) -> str:
    if low is None or high is None:
        return ""
    left, right = sorted((scale(low), scale(high)))
    return svg.rect(left, y, right - left, height, css)


def _seed(x: float, index: int) -> str:
    # Two rows, so that seeds of nearly the same difference can be told apart.
    return f'<circle cx="{svg.n(x)}" cy="{94 + 11 * (index % 2)}" r="4"/>'


def _ruler(scale: Scale, unit: str) -> str:
    marks = scale.ticks(5)
    points = [100 * mark for mark in marks] if unit == "share" else marks
    axis = thin(Axis(scale=scale, ticks=marks, labels=wording.ticks(points), title=""), room=8)
    parts = [svg.line((_EDGE, 122), (WIDTH - _EDGE, 122), "axis")]
    for mark, label in zip(axis.ticks, axis.labels, strict=True):
        parts.append(svg.text(scale(mark), 140, label, "tick", anchor="middle"))
    return "".join(parts)


def _start(at: float, wide: float, anchor: str) -> float:
    """Where words begin that stand at a point, moved so that they stay in the figure."""
    x = at - {"start": -4.0, "middle": wide / 2, "end": wide + 4}[anchor]
    return min(max(x, 0), WIDTH - wide)


def _seed_differences(record: RunRecord) -> list[float]:
    """Student minus control of each seed, turned the way the effect is written."""
    arms = [
        [as_number(value) for value in record.items("models", name, "per_seed", record.primary)]
        for name in ("student", "control")
    ]
    raw = [s - c for s, c in zip(*arms, strict=False) if s is not None and c is not None]
    turned = not record.higher_is_better and effect_sign(record) > 0
    return [-d if turned else d for d in raw[:_MOST_SEEDS]]
