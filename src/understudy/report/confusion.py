"""What was taken for what: the table of one model, and what changed from control to student."""

from typing import Any

import numpy as np

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, WIDTH, Axis, ruler
from understudy.report.record import RunRecord
from understudy.report.svg import Scale

MOST_CLASSES = 12
ARMS = ("student", "control", "teacher")
_MOST_PAIRS = 10
_TOP, _SIDE = 26.0, 350.0

Table = np.ndarray[Any, np.dtype[np.float64]]


def confusion_chart(record: RunRecord, model: str) -> str:
    """Rows of each class by the class they were taken for; of many classes, the most confused."""
    table, chosen = confusion_table(record, model), shown_classes(record)
    if table is None or not chosen or max(chosen) >= len(table):
        return ""
    names = class_names(record, len(table))
    part = table[np.ix_(chosen, chosen)]
    worst = _worst(record)
    left = 8 + svg.widest((wording.squeezed(names[i], 11) for i in chosen), least=38, most=86)
    box = (_SIDE - left) / len(chosen)
    parts = [
        svg.text(left - 8, 14, "true ▼", "title", anchor="end"),
        svg.text(left, 14, "taken for ▶", "title"),
    ]
    for i, actual in enumerate(chosen):
        y, label = _TOP + i * box, wording.squeezed(names[actual], 11)
        parts.append(svg.text(left - 8, y + box / 2 + 4, label, "tick name", anchor="end"))
        parts.append(
            _foot(left + (i + 0.5) * box, _TOP + len(chosen) * box + 15, names[actual], box)
        )
        for j, taken in enumerate(chosen):
            told = f"{names[actual]} taken for {names[taken]}: {part[i, j]:,.0f}"
            share = None if i == j else float(part[i, j]) / worst
            parts.append(_cell(left + j * box, y, box, float(part[i, j]), share, told))
    room = 22 if all(_fits(names[i], box) for i in chosen) else 62
    title = f"Confusions of the {DISPLAY[model]}"
    height = _TOP + len(chosen) * box + room
    return svg.svg(_SIDE, height, title, *parts, css=f"confusion {model}")


def confusion_changes(record: RunRecord) -> str:
    """The confusions that changed most from control to student: square, disc, and the way."""
    student, control = (confusion_table(record, name) for name in ("student", "control"))
    if student is None or control is None or student.shape != control.shape:
        return ""
    change = np.abs(student - control)
    np.fill_diagonal(change, 0)
    order = np.argsort(-change, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(flat), len(change)) for flat in order if change.flat[flat] > 0]
    if not pairs:
        return ""
    names = class_names(record, len(change))
    labels = [
        f"{wording.squeezed(names[a], 9)} → {wording.squeezed(names[b], 9)}" for a, b in pairs
    ]
    column = svg.widest(labels, least=30, most=150)
    counts = [float(table[pair]) for pair in pairs for table in (student, control)]
    scale = Scale.around(
        [0.0, *counts], start=column + 16, end=WIDTH - 20, pad=0.04, limits=(0, 1e99)
    )
    marks = [mark for mark in scale.ticks(6) if mark == round(mark)]
    bottom = 40.0 + 24 * len(pairs)
    axis = Axis(scale=scale, ticks=marks, labels=wording.ticks(marks), title="")
    parts = [ruler(axis, top=26, bottom=bottom)]
    for index, (pair, label) in enumerate(zip(pairs, labels, strict=True)):
        y = 50.0 + 24 * index
        told = f"{names[pair[0]]} taken for {names[pair[1]]}"
        parts.append(svg.text(column, y + 4, label, "tick name", anchor="end"))
        parts.append(_change(told, float(control[pair]), float(student[pair]), scale, y))
    parts.append(svg.text(scale.start, bottom + 20, "◀ fewer mistakes", "title"))
    parts.append(svg.text(WIDTH - 14, bottom + 20, "rows", "title", anchor="end"))
    title = "The confusions that changed most"
    return svg.svg(WIDTH, bottom + 28, title, *parts, css="wide")


def confusion_table(record: RunRecord, model: str) -> Table | None:
    """A model's square table of counts, `[true, taken for]`; None where there is none."""
    rows = record.items("confusion", model)
    if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
        return None
    return np.nan_to_num(np.array(rows, dtype=np.float64))


def shown_classes(record: RunRecord) -> list[int]:
    """The classes that are drawn: all of a few, else those in the biggest confusions."""
    tables = _mistakes(record)
    if not tables:
        return []
    wrong = np.sum([table for table in tables if table.shape == tables[0].shape], axis=0)
    if len(wrong) <= MOST_CLASSES:
        return list(range(len(wrong)))
    chosen: list[int] = []
    for flat in np.argsort(-wrong, axis=None, kind="stable"):
        pair = divmod(int(flat), len(wrong))
        chosen += [index for index in dict.fromkeys(pair) if index not in chosen]
        if len(chosen) >= MOST_CLASSES:
            break
    return sorted(chosen[:MOST_CLASSES])


def class_names(record: RunRecord, count: int) -> list[str]:
    """The names of the classes, or their numbers where they have none."""
    names = [wording.squeezed(str(name), 60) for name in record.items("task", "classes")]
    return names if len(names) == count else [str(index) for index in range(count)]


def _mistakes(record: RunRecord) -> list[Table]:
    """The tables of all models, without what was right."""
    known = [confusion_table(record, name) for name in ARMS]
    return [table - np.diag(np.diag(table)) for table in known if table is not None]


def _worst(record: RunRecord) -> float:
    """The biggest confusion of any model: one shade means the same number in every panel."""
    return max([1.0, *(float(table.max()) for table in _mistakes(record))])


def _cell(x: float, y: float, box: float, value: float, share: float | None, told: str) -> str:
    """One count; `share` is how dark a mistake is, None where the row was right."""
    place = (x + 1, y + 1, box - 2, box - 2)
    if share is None:
        mark = svg.rect(*place, "right")
    else:
        strength = 0.14 + 0.86 * share if value else 0.0
        mark = svg.rect(*place, "wrong", style=f"fill-opacity:{strength:.2f}")
    words = f"{value:.0f}" if value and len(f"{value:.0f}") * 6.6 <= box else ""
    css = "tick strong" if share is not None and share > 0.55 else "tick cell"
    label = svg.text(x + box / 2, y + box / 2 + 4, words, css, anchor="middle") if words else ""
    return svg.group("", mark, label, title=told)


def _fits(name: str, box: float) -> bool:
    return svg.text_width(name, 11) <= box


def _foot(x: float, y: float, name: str, box: float) -> str:
    if _fits(name, box):
        return svg.text(x, y, name, "tick name", anchor="middle")
    words = svg.text(0, 0, wording.squeezed(name, 10), "tick name", anchor="end")
    return f'<g transform="translate({svg.n(x + 4)} {svg.n(y - 6)}) rotate(-45)">{words}</g>'


def _change(told: str, before: float, now: float, scale: Scale, y: float) -> str:
    better = "student" if now < before else "control"
    return svg.group(
        "",
        svg.line((scale(before), y), (scale(now), y), f"way {better}"),
        svg.marker("control", scale(before), y, radius=5),
        svg.marker("student", scale(now), y, radius=5),
        title=f"{told}: control {before:,.0f}, student {now:,.0f}",
    )
