"""How far answers can be believed: reliability of shares, predicted against measured values."""

from collections.abc import Mapping

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, Axis, frame, thin
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Point, Scale

_MOST_DOTS = 600


def reliability_chart(record: RunRecord, model: str) -> str:
    """How often a model is right against how sure it is; a disc's area is the number of rows."""
    bins = _bins(record, model)
    if not bins:
        return ""
    total = sum(rows for _, _, rows in bins)
    error = sum(rows * abs(sure - right) for sure, right, rows in bins) / total
    x = Scale(low=0, high=1, start=40, end=226)
    y = Scale(low=0, high=1, start=206, end=38)
    marks = [0.0, 0.5, 1.0]
    labels = wording.ticks(marks, "share")
    across = Axis(scale=x, ticks=marks, labels=labels, title="how sure")
    up = Axis(scale=y, ticks=marks, labels=labels, title="how often right")
    parts = [frame(across, up, right=226), svg.line((x(0), y(0)), (x(1), y(1)), "ideal")]
    parts.append(svg.path([(x(sure), y(right)) for sure, right, _ in bins], f"curve thin {model}"))
    for sure, right, rows in bins:
        told = f"{wording.score(sure, 'share')} sure, {wording.score(right, 'share')} right"
        radius = svg.n(2 + 8 * (rows / total) ** 0.5)
        disc = f'<circle cx="{svg.n(x(sure))}" cy="{svg.n(y(right))}" r="{radius}"/>'
        parts.append(svg.group(f"mark {model}", disc, title=f"{told}, {rows:,.0f} rows"))
    off = f"off by {wording.score(error, 'share', decimals=1)}"
    parts.append(svg.text(222, 198, off, "title strong", anchor="end"))
    return svg.svg(236, 248, f"Calibration of the {DISPLAY[model]}, {off}", *parts, css="small")


def scatter_chart(record: RunRecord, model: str) -> str:
    """Predicted against measured values of one model; on the diagonal they are equal."""
    points = _pairs(record, model)
    if not points:
        return ""
    # One scale for both axes and all models, so that the panels can be compared.
    every = [
        v
        for name in ("student", "control", "teacher")
        for pair in _pairs(record, name)
        for v in pair
    ]
    x = Scale.around(every, start=50, end=340, pad=0.04)
    y = Scale(low=x.low, high=x.high, start=300, end=30)
    marks = x.ticks(5)
    across = Axis(scale=x, ticks=marks, labels=wording.ticks(marks), title="measured")
    up = Axis(scale=y, ticks=marks, labels=wording.ticks(marks), title="predicted")
    ideal = svg.line((x(x.low), y(x.low)), (x(x.high), y(x.high)), "ideal")
    drawn = [(x(a), y(b)) for a, b in points[:: -(-len(points) // _MOST_DOTS)]]
    body = frame(thin(across, room=6), up, right=340) + ideal + svg.dots(drawn, f"dots {model}")
    return svg.svg(354, 344, f"Predicted against measured, {DISPLAY[model]}", body)


def _bins(record: RunRecord, model: str) -> list[tuple[float, float, float]]:
    bins = []
    for entry in record.items("calibration", model):
        if isinstance(entry, Mapping):
            sure, right, rows = (
                as_number(entry.get(k)) for k in ("confidence", "accuracy", "rows")
            )
            if sure is not None and right is not None and rows:
                bins.append((sure, right, rows))
    return sorted(bins)


def _pairs(record: RunRecord, model: str) -> list[Point]:
    """Measured and predicted values that can be drawn."""
    points = []
    for pair in record.items("scatter", model):
        if isinstance(pair, list) and len(pair) == 2:
            measured, predicted = as_number(pair[0]), as_number(pair[1])
            if (
                measured is not None
                and predicted is not None
                and len(svg.finite([measured, predicted])) == 2
            ):
                points.append((measured, predicted))
    return points
