"""What every step made of the student: score, size and speed, a row after each."""

from collections.abc import Mapping
from html import escape
from typing import Any

from understudy.report import wording
from understudy.report.record import RunRecord, as_number

_MOST_STEPS = 40
_MOST_BLOCKS = 80


def step_table(record: RunRecord) -> str:
    """A row for the teacher, for the student at its start, after each step, and for the file."""
    rows = [row for row in record.items("steps")[:_MOST_STEPS] if isinstance(row, Mapping)]
    if not rows:
        return ""
    primary = record.primary
    write = wording.aligned([_score(row, primary, "value") for row in rows], record.unit)
    first = rows[0]
    body = "".join(_row(row, first, primary, write) for row in rows)
    heads = ("after", primary.replace("_", " "), "parameters", "zero weights", "size", "1 row",
             "32 rows")  # fmt: skip
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in heads)
    return f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def plan_table(record: RunRecord) -> str:
    """What the cut left of every block, as it was planned before any training."""
    rows = [row for row in record.items("plan", "rows")[:_MOST_BLOCKS] if isinstance(row, Mapping)]
    if not rows:
        return ""
    cells = "".join(_block(row) for row in rows)
    heads = ("block", "", "parameters before", "after", "operations before", "after",
             "predicted before", "after")  # fmt: skip
    head = "".join(f'<th scope="col">{word}</th>' for word in heads)
    return f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>'


def _row(row: Mapping[str, Any], first: Mapping[str, Any], primary: str, write: Any) -> str:
    low, high = (_score(row, primary, key) for key in ("low", "high"))
    reach = "" if low is None or high is None else f" [{write(low)}, {write(high)}]"
    zeros = as_number(row.get("zeros"))
    cells = [
        write(_score(row, primary, "value")) + reach.replace("%", ""),
        wording.count(as_number(row.get("parameters"))),
        wording.MISSING if zeros is None else f"{100 * zeros:.0f}%",
        _against(first, row, ("bytes",), wording.size),
        _against(first, row, ("latency_ms", "batch1"), wording.milliseconds),
        _against(first, row, ("latency_ms", "batch32"), wording.milliseconds),
    ]
    name = wording.cut(str(row.get("name", "")), 40)
    data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{name}</th>{data}</tr>'


def _against(first: Mapping[str, Any], row: Mapping[str, Any], keys: Any, write: Any) -> str:
    """A cost, and how many times less it is than the teacher's."""
    value, base = _at(row, keys), _at(first, keys)
    told: str = write(value)
    if row is first or value is None or base is None or value <= 0:
        return told
    return f"{told} ({base / value:.1f}×)"


def _at(row: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    found: Any = row
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return as_number(found)


def _score(row: Mapping[str, Any], primary: str, key: str) -> float | None:
    return _at(row, ("scores", primary, key))


def _block(row: Mapping[str, Any]) -> str:
    cells = [escape(wording.short(str(row.get("status", "")), 20))]
    for name, write in (("parameters", wording.count), ("flops", wording.count),
                        ("ms", wording.milliseconds)):  # fmt: skip
        both = row.get(name)
        pair = list(both)[:2] if isinstance(both, list) else [None, None]
        cells += [write(as_number(value)) for value in pair]
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{wording.cut(str(row.get("path", "")), 60)}</th>{data}</tr>'
