"""What was taken for what: the table of one model, and what changed from control to student."""

from typing import Any

import numpy as np

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, WIDTH, Axis, ruler
from understudy.report.record import RunRecord
from understudy.report.svg import Scale

MOST_CLASSES = 12
_MOST_PAIRS = 10
_NAME = 118.0

Table = np.ndarray[Any, np.dtype[np.float64]]


def confusion_chart(record: RunRecord, model: str) -> str:
    """Rows of each class by the class they were taken for; of many classes, the most confused."""
    table, chosen = confusion_table(record, model), shown_classes(record)
    if table is None or not chosen or max(chosen) >= len(table):
        return ""
    names = class_names(record, len(table))
    part = table[np.ix_(chosen, chosen)]
    worst = max(float((part - np.diag(np.diag(part))).max()), 1.0)
    left, top, box = 92.0, 24.0, 252.0 / len(chosen)
    parts = [svg.text(left, 14, "taken for ▶", "title"), svg.text(left - 8, 14, "true ▼", "title", anchor="end")]
    for i, actual in enumerate(chosen):
        y, middle = top + i * box, left + (i + 0.5) * box
        label = svg.short(names[actual], 13)
        parts.append(svg.text(left - 8, y + box / 2 + 4, label, "tick name", anchor="end"))
        parts.append(_foot(middle, top + 252 + 14, names[actual], box))
        for j, taken in enumerate(chosen):
            told = f"{names[actual]} taken for {names[taken]}: {part[i, j]:,.0f}"
            share = float(part[i, j]) / worst
            parts.append(_cell(left + j * box, y, box, float(part[i, j]), share, i == j, told))
    title = f"Confusions of the {DISPLAY[model]}"
    return svg.svg(350, top + 252 + _foot_room(names, chosen, box), title, *parts, css=f"confusion {model}")


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
    counts = [float(table[pair]) for pair in pairs for table in (student, control)]
    scale = Scale.around([0.0, *counts], start=_NAME + 16, end=WIDTH - 20, pad=0.04, limits=(0, 1e99))
    marks = [mark for mark in scale.ticks(6) if mark == round(mark)]
    height = 40.0 + 24 * len(pairs)
    axis = Axis(scale=scale, ticks=marks, labels=wording.ticks(marks), title="")
    parts = [ruler(axis, top=26, bottom=height)]
    for index, pair in enumerate(pairs):
        parts.append(_change(names, pair, float(control[pair]), float(student[pair]), scale, 50.0 + 24 * index))
    parts.append(svg.text(WIDTH - 14, height + 20, "rows", "title", anchor="end"))
    return svg.svg(WIDTH, height + 28, "The confusions that changed most", *parts)


def confusion_table(record: RunRecord, model: str) -> Table | None:
    """A model's square table of counts, `[true, taken for]`; None where there is none."""
    rows = record.items("confusion", model)
    if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
        return None
    return np.nan_to_num(np.array(rows, dtype=np.float64))


def shown_classes(record: RunRecord) -> list[int]:
    """The classes that are drawn: all of a few, else those in the biggest confusions."""
    tables = [confusion_table(record, name) for name in ("student", "control", "teacher")]
    known = [table for table in tables if table is not None]
    if not known:
        return []
    wrong = sum((t for t in known if t.shape == known[0].shape), np.zeros_like(known[0]))
    if len(wrong) <= MOST_CLASSES:
        return list(range(len(wrong)))
    np.fill_diagonal(wrong, 0)
    chosen: list[int] = []
    for flat in np.argsort(-wrong, axis=None, kind="stable"):
        for index in divmod(int(flat), len(wrong)):
            if index not in chosen and len(chosen) < MOST_CLASSES:
                chosen.append(index)
        if len(chosen) == MOST_CLASSES:
            break
    return sorted(chosen)


def class_names(record: RunRecord, count: int) -> list[str]:
    """The names of the classes, or their numbers where they have none."""
    names = [str(name) for name in record.items("task", "classes")]
    return names if len(names) == count else [str(index) for index in range(count)]


def _cell(
    x: float, y: float, box: float, value: float, share: float, right: bool, told: str
) -> str:
    if right:
        mark = svg.rect(x + 1, y + 1, box - 2, box - 2, "right")
    else:
        strength = 0 if value == 0 else 0.12 + 0.88 * share
        mark = svg.rect(x + 1, y + 1, box - 2, box - 2, "wrong", style=f"fill-opacity:{strength:.2f}")
    words = "" if value == 0 else f"{value:.0f}"
    css = "tick strong" if share > 0.55 and not right else "tick cell"
    fits = svg.text_width(words, 11) <= box
    label = svg.text(x + box / 2, y + box / 2 + 4, words, css, anchor="middle") if fits else ""
    return svg.group("", mark, label, title=told)


def _foot(x: float, y: float, name: str, box: float) -> str:
    if svg.text_width(name, 11) <= box:
        return svg.text(x, y, name, "tick name", anchor="middle")
    at = f"{svg.n(x + 4)} {svg.n(y - 6)}"
    words = svg.text(0, 0, svg.short(name, 9), "tick name", anchor="end")
    return f'<g transform="translate({at}) rotate(-45)">{words}</g>'


def _foot_room(names: list[str], chosen: list[int], box: float) -> float:
    return 20 if all(svg.text_width(names[i], 11) <= box for i in chosen) else 56


def _change(
    names: list[str], pair: tuple[int, int], before: float, now: float, scale: Scale, y: float
) -> str:
    actual, taken = (names[index] for index in pair)
    told = f"{actual} taken for {taken}: control {before:,.0f}, student {now:,.0f}"
    label = svg.text(_NAME, y + 4, f"{svg.short(actual, 8)} → {svg.short(taken, 8)}", "tick name", anchor="end")
    way = svg.line((scale(before), y), (scale(now), y), f"way {'student' if now < before else 'control'}")
    ends = svg.marker("control", scale(before), y, radius=5) + svg.marker("student", scale(now), y, radius=5)
    return svg.group("", label, way, ends, title=told)
