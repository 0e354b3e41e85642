"""The blocks that a network was divided into: how long each takes, and how large it is."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

from understudy.report import svg, wording
from understudy.report.axes import WIDTH, Axis, ruler, thin
from understudy.report.record import as_number
from understudy.report.svg import Scale
from understudy.report.wording import Number

MOST = 40
_WIDEST = 132.0  # column of names
_SIZES = 90.0  # column of parameters
_LEAST = 1.5


def partition_chart(data: Mapping[str, Any]) -> str:
    """One box per block in the order in which they run, each beginning where the last one ends.

    A box is as wide as the block's milliseconds, or its operations where nothing was measured;
    beside it stand its parameters. What lies outside all blocks is the pale box at the end. Of
    more blocks than fit, neighbours are drawn together.

    Args:
        data: a partition as plain JSON, with `blocks` and `rest`.
    """
    blocks = [block for block in data.get("blocks") or () if isinstance(block, Mapping)]
    if not blocks:
        return ""
    rest = data.get("rest")
    boxes = _together(blocks)
    if isinstance(rest, Mapping):
        boxes.append({**rest, "name": "outside", "rest": True})
    key = "ms" if all(_amount(box, "ms") is not None for box in boxes) else "flops"
    widths = [max(0.0, _amount(box, key) or 0.0) for box in boxes]
    ends = list(accumulate(widths))
    names = [wording.squeezed(str(box.get("name", "")), 18) for box in boxes]
    column = svg.widest(names, least=30, most=_WIDEST)
    scale = Scale(low=0.0, high=ends[-1] or 1.0, start=column + 10, end=WIDTH - _SIZES)
    bottom = 40.0 + 18 * len(boxes)
    marks = scale.ticks(5)
    shown = marks if key == "ms" else [mark / 1e6 for mark in marks]
    axis = thin(Axis(scale=scale, ticks=marks, labels=wording.ticks(shown), title=""), room=8)
    parts = [ruler(axis, top=26, bottom=bottom)]
    for index, (box, name, wide) in enumerate(zip(boxes, names, widths, strict=True)):
        y = 44.0 + 18 * index
        start = scale(ends[index] - wide)
        parts.append(svg.text(column, y + 4, name, "tick name", anchor="end"))
        parts.append(_box(box, start, max(scale(ends[index]) - start, _LEAST), y))
    unit = "ms per row" if key == "ms" else "MFLOPs per row"
    parts.append(svg.text(WIDTH - _SIZES, bottom + 20, unit, "title", anchor="end"))
    parts.append(svg.text(WIDTH, bottom + 20, "parameters", "title", anchor="end"))
    title = f"{len(blocks)} blocks by {'latency' if key == 'ms' else 'operations'}"
    return svg.svg(WIDTH, bottom + 28, title, *parts, css="wide")


def partition_lead(data: Mapping[str, Any]) -> str:
    """What the chart says, as a sentence of HTML; empty where there is no chart."""
    blocks = [block for block in data.get("blocks") or () if isinstance(block, Mapping)]
    if not blocks:
        return ""
    lead = f"The network as a chain of {len(blocks)} blocks. Pale: what lies outside of them."
    if len(blocks) > MOST:
        lead += f" Neighbouring blocks are drawn together, in {MOST} boxes."
    return lead


def _together(blocks: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST` boxes: the blocks, or the sums of neighbours."""
    count = min(MOST, len(blocks))
    edges = [place * len(blocks) // count for place in range(count + 1)]
    found = []
    for start, end in pairwise(edges):
        run = blocks[start:end]
        box = dict(run[0])
        if len(run) > 1:
            box |= {"name": f"{run[0].get('name')} +{len(run) - 1}", "gives": run[-1].get("gives")}
            for key in ("parameters", "flops", "ms"):
                box[key] = _sum([_amount(one, key) for one in run])
        found.append(box)
    return found


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _amount(box: Mapping[str, Any], key: str) -> float | None:
    value = as_number(box.get(key))
    return value if svg.finite([value]) else None


def _box(box: Mapping[str, Any], x: Number, width: Number, y: Number) -> str:
    size = wording.count(_amount(box, "parameters"))
    outside = bool(box.get("rest"))
    told = f"{wording.short(str(box.get('name', '')), 80)}: {size} parameters"
    if _amount(box, "ms") is not None:
        told += f", {wording.milliseconds(_amount(box, 'ms'))}"
    if box.get("takes") is not None:
        told += f", {_shape(box.get('takes'))} to {_shape(box.get('gives'))}"
    return svg.group(
        "teacher",
        svg.rect(x, y - 6, width, 12, "bar pale" if outside else "bar"),
        svg.text(WIDTH, y + 4, size, "tick", anchor="end"),
        title=told,
    )


def _shape(shape: Any) -> str:
    sizes = shape if isinstance(shape, (list, tuple)) else []
    return wording.TIMES.join(str(size) for size in sizes) or "1"
