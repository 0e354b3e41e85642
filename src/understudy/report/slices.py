"""Student against control in every slice of the rows: each class, or each named group."""

from collections.abc import Mapping
from typing import Any

from understudy.report import svg, wording
from understudy.report.axes import WIDTH, Axis, ruler, thin
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale

MOST = 20
_NAME = 118.0


def slice_chart(record: RunRecord) -> str:
    """Bars to the right where the student is better than its control, to the left where worse.

    Of many slices only the two ends are drawn. A bar whose interval holds 0 is pale.
    """
    rows = [(row, ends) for row, ends in _gains(record) if ends[0] is not None]
    if not rows:
        return ""
    rows.sort(key=lambda item: -(item[1][0] or 0.0))
    many = len(rows) > MOST
    shown = rows[: MOST // 2] + rows[-(MOST // 2) :] if many else rows
    every = [value for _, ends in shown for value in ends]
    scale = Scale.around([0.0, *every], start=_NAME + 10, end=WIDTH - 14, pad=0.06)
    bottom = 40.0 + 20 * len(shown) + (14 if many else 0)
    marks = scale.ticks(5)
    values = [100 * mark for mark in marks] if record.unit == "share" else marks
    axis = thin(Axis(scale=scale, ticks=marks, labels=wording.ticks(values), title=""), room=8)
    parts = [ruler(axis, top=26, bottom=bottom)]
    for index, (row, ends) in enumerate(shown):
        y = 46.0 + 20 * index + (14 if many and index >= MOST // 2 else 0)
        parts.append(_bar(record, row, ends, scale, y))
    if many:
        between = f"{len(rows) - len(shown)} more between"
        parts.append(svg.text(_NAME, 40.0 + 10 * MOST + 9, between, "tick", anchor="end"))
    parts.append(svg.text(scale.start, bottom + 20, "◀ control better", "title"))
    parts.append(svg.text(WIDTH - 14, bottom + 20, "student better ▶", "title", anchor="end"))
    return svg.svg(WIDTH, bottom + 28, "Student minus control, slice by slice", *parts)


Ends = tuple[float | None, float | None, float | None]


def _gains(record: RunRecord) -> list[tuple[Mapping[str, Any], Ends]]:
    """Each slice and what the student adds in it, with its interval; positive is better."""
    gains = []
    for row in record.items("slices"):
        if not isinstance(row, Mapping):
            continue
        known = (as_number(row.get(key)) for key in ("difference", "low", "high"))
        middle, low, high = (value if svg.finite([value]) else None for value in known)
        if _sign(record, row, middle) > 0:
            gains.append((row, (middle, low, high)))
        else:
            gains.append((row, (_minus(middle), _minus(high), _minus(low))))
    return gains


def _sign(record: RunRecord, row: Mapping[str, Any], written: float | None) -> int:
    """Whether the difference as written speaks for the student, for scores that should be low."""
    if record.higher_is_better:
        return 1
    student, control = as_number(row.get("student")), as_number(row.get("control"))
    if student is None or control is None or student == control or not written:
        return -1
    return 1 if (student < control) == (written > 0) else -1


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _bar(
    record: RunRecord, row: Mapping[str, Any], ends: Ends, scale: Scale, y: float
) -> str:
    gain, low, high = ends[0] or 0.0, ends[1], ends[2]
    name = str(row.get("name"))
    sure = low is not None and high is not None and not low <= 0 <= high
    left, right = sorted((scale(0), scale(gain)))
    bar = svg.rect(left, y - 6, max(right - left, 1), 12, "bar" if sure else "bar pale")
    if low is not None and high is not None:
        bar += svg.line((scale(low), y), (scale(high), y), "reach")
    scores = (wording.score(as_number(row.get(k)), record.unit) for k in ("student", "control"))
    told = "{}: student {}, control {}".format(name, *scores)
    told += f", {wording.count(as_number(row.get('rows')))} rows"
    words = svg.text(_NAME, y + 4, svg.short(name, 17), "tick name", anchor="end")
    return svg.group("student" if gain >= 0 else "control", words, bar, title=told)
