"""Scales and marks: what every chart is made of.

A chart is a string of SVG. Its colours and type come from the page's sheet through class names, so
that one drawing serves light, dark and paper. A model keeps its colour AND its shape everywhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

from understudy.report.wording import Number

Point = tuple[Number, Number]

# The advance of an average letter, in em; on the wide side, so that labels are kept apart.
LETTER = 0.6
_HUGE = 1e100


def finite(values: Iterable[Number | None]) -> list[Number]:
    """The values that can be drawn."""
    return [v for v in values if v is not None and math.isfinite(v) and abs(v) < _HUGE]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """From a number to a position in pixels; what lies outside is drawn at the edge.

    Attributes:
        low: the number at `start`.
        high: the number at `end`, greater than `low`.
        start: a position.
        end: a position; smaller than `start` where the axis goes up.
        log: whether equal ratios, not differences, are equally far apart.
    """

    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False

    @classmethod
    def around(
        cls,
        values: Iterable[Number | None],
        *,
        start: Number,
        end: Number,
        log: bool = False,
        pad: Number = 0.08,
        limits: tuple[Number, Number] = (-math.inf, math.inf),
    ) -> "Scale":
        """A scale that holds all the values, with some air; without any it runs from 0 to 1."""
        known = finite(values)
        if log:
            logs = [math.log10(v) for v in known if v * _HUGE > 1]
            low, high = _padded(logs, pad, flat=0.3)
            return cls(low=10**low, high=10**high, start=start, end=end, log=True)
        flat = max(abs(known[0]) * 0.05, 1e-3) if known else 0.5
        low, high = _padded(known, pad, flat=flat)
        low, high = max(low, limits[0]), min(high, limits[1])
        if not low < high:
            low, high = low - flat, low + flat
        return cls(low=low, high=high, start=start, end=end)

    def __call__(self, value: Number, *, edge: Number = 0.0) -> Number:
        """The position; `edge` lets it go so many lengths of the scale beyond its ends."""
        low, high = self._inner(self.low), self._inner(self.high)
        share = min(1.0 + edge, max(-edge, (self._inner(value) - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[Number]:
        """Round numbers inside the scale, about as many as asked, at most one and a half times."""
        if self.log:
            return self._log_ticks(count)
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / count))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _log_ticks(self, count: int) -> list[Number]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for multiples in ((1, 2, 5), (1, 3), (1,)):
            marks = [m * 10.0**p for p in range(first, last + 1) for m in multiples]
            marks = [m for m in marks if self.low * (1 - 1e-9) <= m <= self.high * (1 + 1e-9)]
            if len(marks) <= count:
                break
        if len(marks) < 2:
            # Less than a factor of two or so: nearly a straight scale, so its round numbers do.
            return Scale(low=self.low, high=self.high, start=0, end=1).ticks(count)
        return marks[:: math.ceil(len(marks) / count)]

    def _inner(self, value: Number) -> Number:
        return math.log10(max(value, 1e-300)) if self.log else value


def _padded(values: Sequence[Number], pad: Number, *, flat: Number) -> tuple[Number, Number]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    # Nearer together than a float can tell apart on the axis is one value.
    one = high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / _HUGE)
    room = flat if one else (high - low) * pad
    return low - room, high + room


def svg(width: Number, height: Number, title: str, *parts: str, css: str = "") -> str:
    """A whole drawing; the title is what a screen reader says of it."""
    kind = f' class="{css}"' if css else ""
    return (
        f'<svg role="img"{kind} viewBox="0 0 {n(width)} {n(height)}" width="{n(width)}" '
        f'height="{n(height)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def window(x: Scale, y: Scale, *parts: str) -> str:
    """Marks that are cut off at the frame of two scales."""
    left, top, width, height = x.start, y.end, x.end - x.start, y.start - y.end
    box = f"{n(left)} {n(top)} {n(width)} {n(height)}"
    return (
        f'<svg class="window" x="{n(left)}" y="{n(top)}" width="{n(width)}" height="{n(height)}" '
        f'viewBox="{box}">{"".join(parts)}</svg>'
    )


def group(css: str, *parts: str, title: str = "") -> str:
    """Marks that belong together; the title shows when one points at them."""
    return f'<g class="{css}">{_title(title)}{"".join(parts)}</g>'


def line(start: Point, end: Point, css: str) -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{css}" x1="{n(x1)}" y1="{n(y1)}" x2="{n(x2)}" y2="{n(y2)}"/>'


def rect(x: Number, y: Number, width: Number, height: Number, css: str, *, style: str = "") -> str:
    """A box; one of negative width or height is drawn with none."""
    look = f' style="{style}"' if style else ""
    box = f'x="{n(x)}" y="{n(y)}" width="{n(max(width, 0))}" height="{n(max(height, 0))}"'
    return f'<rect class="{css}" {box}{look}/>'


def text(x: Number, y: Number, content: str, css: str = "", *, anchor: str = "start") -> str:
    """Words; `anchor` says which of their ends stands at `x`."""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    kind = f' class="{css}"' if css else ""
    return f'<text x="{n(x)}" y="{n(y)}"{kind}{place}>{escape(content)}</text>'


def path(points: Sequence[Point], css: str, *, title: str = "") -> str:
    """A line through points; of one point, a dot."""
    if not points:
        return ""
    (x, y), *rest = points
    steps = "".join(f"L{n(px)} {n(py)}" for px, py in rest) or "h.01"
    return f'<path class="{css}" d="M{n(x)} {n(y)}{steps}">{_title(title)}</path>'


def dots(points: Iterable[Point], css: str) -> str:
    """Many dots as one mark, so that thousands stay small in the page."""
    return f'<path class="{css}" d="{"".join(f"M{n(x)} {n(y)}h0" for x, y in points)}"/>'


def marker(model: str, x: Number, y: Number, *, radius: Number = 6, title: str = "") -> str:
    """A model's own shape: teacher diamond, student disc, control square, int8 triangle."""
    if model == "student":
        shape = f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(radius)}"/>'
        return group(f"mark {model}", shape, title=title)
    corners = {
        "teacher": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "control": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    }.get(model, ((0, -1.1), (1.15, 0.9), (-1.15, 0.9)))
    points = " ".join(f"{n(x + radius * dx)},{n(y + radius * dy)}" for dx, dy in corners)
    shape = f'<polygon points="{points}"/>'
    return group(f"mark {model}", shape, title=title)


def text_width(content: str, size: Number = 13) -> Number:
    """About how many pixels wide the words are, at the size that narrow screens get."""
    return len(content) * size * LETTER


def widest(names: Iterable[str], *, least: Number, most: Number) -> Number:
    """How wide a column is for these names, within bounds."""
    return min(max([least, *(text_width(name) for name in names)]), most)


def downsample(points: Sequence[Point], limit: int) -> list[Point]:
    """At most `limit` points of a line (at least 4): its ends, and the extremes in between."""
    if len(points) <= limit:
        return list(points)
    values = np.array([y for _, y in points])
    edges = np.linspace(0, len(points), max(limit - 2, 2) // 2 + 1).astype(int)
    keep = {0, len(points) - 1}
    for first, last in pairwise(edges):
        if first < last:
            part = values[first:last]
            keep |= {int(first + part.argmin()), int(first + part.argmax())}
    return [points[i] for i in sorted(keep)]


def averaged(points: Sequence[Point], limit: int) -> list[Point]:
    """At most `limit` points of a line (at least 3): its ends, and means of neighbours between."""
    if len(points) <= limit:
        return list(points)
    inner = np.array_split(np.array(points[1:-1], dtype=np.float64), max(limit - 2, 1))
    means = [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in inner]
    return [points[0], *means, points[-1]]


def n(value: Number) -> str:
    """A coordinate with one decimal, and no more letters than it needs."""
    rounded = f"{value:.1f}"
    return rounded[:-2] if rounded.endswith(".0") else rounded


def _title(content: str) -> str:
    return f"<title>{escape(content)}</title>" if content else ""
