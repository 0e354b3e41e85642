"""The models side by side: every score and every cost in one table, held against the teacher."""

from collections.abc import Callable, Mapping
from html import escape

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, shown
from understudy.report.record import RunRecord, as_number

_MOST_SCORES = 24
# Scores that are shares of rows whatever the primary one is.
_SHARES = (
    "accuracy",
    "agreement",
    "calibration_error",
    "precision",
    "recall",
    "f1",
    "top_",
    "top1",
    "top5",
)

Cell = tuple[str, str]


def side_by_side(record: RunRecord) -> str:
    """Scores with their intervals, size, speed and cost; one column per model."""
    models = record.models
    if not models:
        return ""
    heads = "".join(
        f'<th role="columnheader" scope="col" class="{name}">{_sign(name)} '
        f"{shown(record, name)}</th>"
        for name in models
    )
    rows = [*_scores(record), *_costs(record)]
    body = "".join(_row(record, name, cells) for name, cells in rows)
    return (
        f'<table role="table" style="--models:{len(models)}"><thead role="rowgroup">'
        f'<tr role="row"><td role="cell"></td>{heads}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )


def timings(record: RunRecord) -> str:
    """Every latency that was measured, by model, batch size and threads."""
    rows = []
    for name in record.models:
        for entry in record.items("models", name, "latency_ms", "detail")[:40]:
            if isinstance(entry, Mapping):
                values = (as_number(entry.get(k)) for k in ("batch", "threads"))
                times = (as_number(entry.get(k)) for k in ("median_ms", "p95_ms"))
                cells = [wording.count(v) for v in values] + [
                    wording.milliseconds(v) for v in times
                ]
                data = "".join(f"<td>{cell}</td>" for cell in cells)
                rows.append(f'<tr><th scope="row">{shown(record, name)}</th>{data}</tr>')
    if not rows:
        return ""
    heads = ("model", "batch", "threads", "median", "95th percentile")
    head = "".join(f'<th scope="col">{word}</th>' for word in heads)
    return (
        f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def legend(*models: str) -> str:
    """Each model's mark and name, in its colour."""
    return "".join(
        f'<span class="key {name}">{_sign(name)} {DISPLAY[name]}</span>' for name in models
    )


def _sign(name: str) -> str:
    mark = svg.marker(name, 8, 8, radius=5.5)
    box = 'viewBox="0 0 16 16" width="16" height="16"'
    return f'<svg aria-hidden="true" class="sign" {box}>{mark}</svg>'


def _row(record: RunRecord, name: str, cells: Mapping[str, Cell]) -> str:
    data = ""
    for model in record.models:
        value, small = cells.get(model, (wording.MISSING, ""))
        shown = f'<span class="number">{escape(value)}</span>' if value else ""
        shown += f"<small>{escape(small)}</small>" if small else ""
        data += f'<td role="cell" class="{model}">{shown}</td>'
    head = f'<th role="rowheader" scope="row">{wording.cut(name, 40)}</th>'
    return f'<tr role="row">{head}{data}</tr>'


def _scores(record: RunRecord) -> list[tuple[str, dict[str, Cell]]]:
    """The primary score first, then every other that any model has."""
    names = [record.primary]
    for model in record.models:
        scores = record.get("models", model, "scores")
        names += [str(name) for name in scores] if isinstance(scores, Mapping) else []
    return [_score(record, name) for name in list(dict.fromkeys(names))[:_MOST_SCORES]]


def _score(record: RunRecord, name: str) -> tuple[str, dict[str, Cell]]:
    known = {
        model: [
            record.number("models", model, "scores", name, key) for key in ("value", "low", "high")
        ]
        for model in record.models
    }
    write = wording.aligned([v for ends in known.values() for v in ends], _unit(record, name))
    cells = {}
    for model, (value, low, high) in known.items():
        reach = "" if low is None or high is None else f"[{write(low)}, {write(high)}]"
        cells[model] = (write(value), reach.replace("%", ""))
    directions = [
        record.get("models", m, "scores", name, "higher_is_better") for m in record.models
    ]
    arrow = " ↑" if True in directions else " ↓" if False in directions else ""
    return name.replace("_", " ") + arrow, cells


def _unit(record: RunRecord, name: str) -> str:
    if name == record.primary:
        return record.unit
    return "share" if record.unit == "share" and any(word in name for word in _SHARES) else ""


def _costs(record: RunRecord) -> list[tuple[str, dict[str, Cell]]]:
    Write = Callable[[float | None], str]  # noqa: N806
    costs: tuple[tuple[str, tuple[str, ...], Write, tuple[str, str]], ...] = (
        ("parameters", ("parameters",), wording.count, ("fewer", "more")),
        ("operations per row", ("flops",), wording.count, ("fewer", "more")),
        ("size of the file", ("bytes",), wording.size, ("smaller", "larger")),
        ("latency, 1 row", ("latency_ms", "batch1"), wording.milliseconds, ("faster", "slower")),
        ("latency, 32 rows", ("latency_ms", "batch32"), wording.milliseconds, ("faster", "slower")),
        ("peak memory", ("peak_memory_mb",), wording.megabytes, ("less", "more")),
        ("training", ("seconds", "training"), wording.seconds, ("", "")),
        ("teacher's pass", ("seconds", "teacher_pass"), wording.seconds, ("", "")),
    )
    rows = []
    for name, keys, write, (less, more) in costs:
        values = {model: record.number("models", model, *keys) for model in record.models}
        if all(value is None for value in values.values()):
            continue
        base = values.get("teacher")
        cells = {
            model: (
                write(value),
                wording.ratio(base, value, less, more) if less and model != "teacher" else "",
            )
            for model, value in values.items()
        }
        rows.append((name, cells))
    runtimes = {m: record.get("models", m, "runtime") for m in record.models}
    if any(runtimes.values()):
        told = {m: ("", wording.short(str(r), 20)) for m, r in runtimes.items() if r}
        rows.append(("measured in", told))
    return rows
