"""The frame of a chart: axes with their ticks, and labels that keep out of each other's way."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from understudy.report import svg
from understudy.report.record import RunRecord
from understudy.report.svg import Point, Scale
from understudy.report.wording import Number, short

WIDTH, HEIGHT = 440.0, 280.0
LEFT, TOP, RIGHT, BOTTOM = 50.0, 30.0, 426.0, 238.0

DISPLAY = {"teacher": "teacher", "student": "student", "control": "control", "student_int8": "int8"}


def shown(record: RunRecord, name: str) -> str:
    """What a model of this run is called: the small file by the form it has."""
    form = record.get("quantized")
    if name == "student_int8" and isinstance(form, str):
        return short(form.replace("_", " "), 20)
    return DISPLAY[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis: its scale, the labels of its ticks, and what it shows.

    Attributes:
        scale: from numbers to positions.
        ticks: the numbers with a tick.
        labels: their words, one per tick.
        title: what is shown, with its unit.
    """

    scale: Scale
    ticks: Sequence[Number]
    labels: Sequence[str]
    title: str


def frame(x: Axis, y: Axis, *, right: Number = RIGHT) -> str:
    """Quiet grid lines, tick labels, and both titles set level so that nobody tilts a head."""
    parts = []
    bottom, left = y.scale.start, x.scale.start
    for value, label in zip(y.ticks, y.labels, strict=True):
        at = y.scale(value)
        parts.append(svg.line((left, at), (right, at), "grid"))
        parts.append(svg.text(left - 7, at + 4, label, "tick", anchor="end"))
    parts.append(svg.line((left, bottom), (right, bottom), "axis"))
    for value, label in zip(x.ticks, x.labels, strict=True):
        at = x.scale(value)
        parts.append(svg.line((at, bottom), (at, bottom + 4), "axis"))
        parts.append(svg.text(at, bottom + 18, label, "tick", anchor="middle"))
    parts.append(svg.text(2, y.scale.end - 16, y.title, "title"))
    parts.append(svg.text(right, bottom + 37, x.title, "title", anchor="end"))
    return "".join(parts)


def thin(x: Axis, *, room: Number) -> Axis:
    """The axis with every second (third, ...) label, so that they stand `room` pixels apart."""
    spots = [x.scale(v) for v in x.ticks]
    widths = [svg.text_width(label) for label in x.labels]
    for step in range(1, len(spots) + 1):
        kept = list(range(0, len(spots), step))
        apart = all(
            abs(spots[b] - spots[a]) >= (widths[a] + widths[b]) / 2 + room
            for a, b in pairwise(kept)
        )
        if apart:
            return Axis(
                scale=x.scale,
                ticks=[x.ticks[i] for i in kept],
                labels=[x.labels[i] for i in kept],
                title=x.title,
            )
    return x


def ruler(x: Axis, *, top: Number, bottom: Number) -> str:
    """Level lines of a chart whose rows are words: tick labels on top, a strong line at zero."""
    parts = []
    for value, label in zip(x.ticks, x.labels, strict=True):
        at = x.scale(value)
        parts.append(svg.line((at, top), (at, bottom), "zero" if value == 0 else "grid"))
        parts.append(svg.text(at, top - 6, label, "tick", anchor="middle"))
    return "".join(parts)


Box = tuple[Number, Number, Number, Number]


def place(
    points: Sequence[tuple[Point, str]], walls: Sequence[Box], *, left: Number, right: Number
) -> list[tuple[Point, str]]:
    """Where each point's words go: their start (or end) and its anchor, clear of all else.

    Beside the point where there is room, else above or below; the first that is free, or the one
    that overlaps least.
    """
    taken = [*walls, *((x - 8, y - 8, x + 8, y + 8) for (x, y), _ in points)]
    placed = []
    for (x, y), words in points:
        wide = svg.text_width(words)
        choices = [
            ((x + 11, y + 4), "start"), ((x - 11, y + 4), "end"),
            ((x, y - 13), "middle"), ((x, y + 22), "middle"),
            ((x + 9, y - 11), "start"), ((x + 9, y + 19), "start"),
            ((x - 9, y - 11), "end"), ((x - 9, y + 19), "end"),
            ((x + 9, y - 26), "start"), ((x + 9, y + 34), "start"),
        ]  # fmt: skip
        best = min(choices, key=lambda c: _clash(_box(c[0], c[1], wide), taken, left, right))
        taken.append(_box(*best, wide))
        placed.append(best)
    return placed


def _box(at: Point, anchor: str, wide: Number) -> Box:
    x = at[0] - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
    return x, at[1] - 11, x + wide, at[1] + 3


def _clash(box: Box, taken: Sequence[Box], left: Number, right: Number) -> Number:
    """The area that the box shares with others, and (worse) what sticks out of the frame."""
    area = 10.0 * (max(0.0, left - box[0]) + max(0.0, box[2] - right)) * (box[3] - box[1])
    for other in taken:
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        area += max(0.0, across) * max(0.0, down)
    return area
