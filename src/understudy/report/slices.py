"""Student against control in every slice of the rows: each class, or each named group.

As in the verdict, a positive difference speaks for the student, whichever way the score counts.
"""

from collections.abc import Mapping
from typing import Any

from understudy.report import svg, wording
from understudy.report.axes import WIDTH, Axis, ruler, thin
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale

MOST = 20
_WIDEST = 124.0  # column of names


def slice_chart(record: RunRecord) -> str:
    """Bars to the right where the student is better than its control, to the left where worse.

    Of many slices only the two ends are drawn. A bar whose interval holds 0 is pale.
    """
    rows = [row for row in record.items("slices") if _ends(row)[0] is not None]
    if not rows:
        return ""
    rows.sort(key=lambda row: -(_ends(row)[0] or 0.0))
    many = len(rows) > MOST
    shown = rows[: MOST // 2] + rows[-(MOST // 2) :] if many else rows
    names = [wording.squeezed(str(row.get("name")), 15) for row in shown]
    column = svg.widest(names, least=30, most=_WIDEST)
    every = [value for row in shown for value in _ends(row)]
    scale = Scale.around([0.0, *every], start=column + 10, end=WIDTH - 14, pad=0.06)
    bottom = 40.0 + 20 * len(shown) + (14 if many else 0)
    marks = scale.ticks(5)
    values = [100 * mark for mark in marks] if record.unit == "share" else marks
    axis = thin(Axis(scale=scale, ticks=marks, labels=wording.ticks(values), title=""), room=8)
    parts = [ruler(axis, top=26, bottom=bottom)]
    for index, row in enumerate(shown):
        y = 46.0 + 20 * index + (14 if many and index >= MOST // 2 else 0)
        parts.append(svg.text(column, y + 4, names[index], "tick name", anchor="end"))
        parts.append(_bar(record, row, scale, y))
    if many:
        between = f"{len(rows) - len(shown)} more between"
        parts.append(svg.text(column, 40.0 + 10 * MOST + 9, between, "tick", anchor="end"))
    parts.append(svg.text(scale.start, bottom + 20, "◀ control better", "title"))
    parts.append(svg.text(WIDTH - 14, bottom + 20, "student better ▶", "title", anchor="end"))
    title = "Student against control, slice by slice"
    return svg.svg(WIDTH, bottom + 28, title, *parts, css="wide")


def _ends(row: Any) -> tuple[float | None, float | None, float | None]:
    """A slice's difference and its interval."""
    if not isinstance(row, Mapping):
        return None, None, None
    known = (as_number(row.get(key)) for key in ("difference", "low", "high"))
    middle, low, high = (value if svg.finite([value]) else None for value in known)
    return middle, low, high


def _bar(record: RunRecord, row: Mapping[str, Any], scale: Scale, y: float) -> str:
    middle, low, high = _ends(row)
    gain = middle or 0.0
    sure = low is not None and high is not None and not low <= 0 <= high
    left, right = sorted((scale(0), scale(gain)))
    bar = svg.rect(left, y - 6, max(right - left, 1), 12, "bar" if sure else "bar pale")
    if low is not None and high is not None:
        bar += svg.line((scale(low), y), (scale(high), y), "reach")
    student, control = (
        wording.score(as_number(row.get(key)), record.unit) for key in ("student", "control")
    )
    told = f"{wording.short(str(row.get('name')), 80)}: student {student}, control {control}"
    told += f", {wording.count(as_number(row.get('rows')))} rows"
    return svg.group("student" if gain >= 0 else "control", bar, title=told)
