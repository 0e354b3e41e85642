"""How much each block of the teacher matters, and which of them the student keeps."""

from collections.abc import Mapping
from typing import Any

from understudy.report import svg, wording
from understudy.report.axes import WIDTH, Axis, ruler, thin
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale

MOST = 40
_WIDEST = 132.0  # column of names

_MEASURES: Mapping[str, str] = {
    "importance": "explained variance lost without the block",
    "cosine": "1 − cosine of input and output",
    "skip": "rise of the loss without the block",
    "taylor": "first-order change of the loss",
}


def importance_chart(record: RunRecord) -> str:
    """One bar per block in the order in which they run, with its interval.

    What the student keeps is filled; what it leaves out is pale. A block that cannot go has a name
    and no bar. Of more blocks than fit, evenly spaced ones are drawn.
    """
    blocks = [block for block in record.items("importance", "blocks") if _named(block)]
    if not any(_ends(block)[0] is not None for block in blocks):
        return ""
    shown = [blocks[i * len(blocks) // MOST] for i in range(MOST)] if len(blocks) > MOST else blocks
    names = [wording.squeezed(str(block["path"]), 18) for block in shown]
    column = svg.widest(names, least=30, most=_WIDEST)
    every = [value for block in shown for value in _ends(block)]
    scale = Scale.around([0.0, *every], start=column + 10, end=WIDTH - 14, pad=0.05)
    bottom = 40.0 + 18 * len(shown)
    marks = scale.ticks(5)
    axis = thin(Axis(scale=scale, ticks=marks, labels=wording.ticks(marks), title=""), room=8)
    parts = [ruler(axis, top=26, bottom=bottom)]
    for index, (block, name) in enumerate(zip(shown, names, strict=True)):
        y = 44.0 + 18 * index
        parts.append(svg.text(column, y + 4, name, "tick name", anchor="end"))
        parts.append(_bar(block, scale, y))
    parts.append(svg.text(WIDTH - 14, bottom + 20, _measure(record), "title", anchor="end"))
    kept = sum(block.get("kept") is True for block in blocks)
    title = f"Importance of {len(blocks)} blocks, of which {kept} are kept"
    return svg.svg(WIDTH, bottom + 28, title, *parts, css="wide")


def importance_lead(record: RunRecord) -> str:
    """What the chart says, as a sentence of HTML; empty where there is no chart."""
    blocks = [block for block in record.items("importance", "blocks") if _named(block)]
    if not blocks:
        return ""
    lead = "Filled: kept in the student. Pale: left out. A stroke is an interval over rows."
    if len(blocks) > MOST:
        lead += f" {MOST} of {len(blocks)} blocks are drawn."
    return lead


def _measure(record: RunRecord) -> str:
    return _MEASURES.get(str(record.get("importance", "by")), "importance")


def _named(block: Any) -> bool:
    return isinstance(block, Mapping) and isinstance(block.get("path"), str)


def _ends(block: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """A block's score and its interval."""
    known = (as_number(block.get(key)) for key in ("score", "low", "high"))
    middle, low, high = (value if svg.finite([value]) else None for value in known)
    return middle, low, high


def _bar(block: Mapping[str, Any], scale: Scale, y: float) -> str:
    middle, low, high = _ends(block)
    kept = block.get("kept") is True
    words = wording.short(str(block["path"]), 80)
    if middle is None:
        told = f"{words}: must stay"
        always = svg.text(scale(0) + 5, y + 4, "must stay", "tick")
        return svg.group("teacher", always, title=told)
    left, right = sorted((scale(0), scale(middle)))
    css = "bar" if kept else "bar pale"
    parts = [svg.rect(left, y - 5, max(right - left, 1), 10, css)]
    told = f"{words}: {wording.significant(middle)}"
    if low is not None and high is not None:
        parts.append(svg.line((scale(low), y), (scale(high), y), "reach"))
        told += f" {wording.interval(low, high)}"
    told += ", kept" if kept else ", left out"
    return svg.group("student" if kept else "teacher", *parts, title=told)
