"""How a student was put together from parts of its teacher: blocks, choice, front, rounds."""

from collections.abc import Mapping
from html import escape
from typing import Any

from understudy.report import wording
from understudy.report.front import front_chart, front_lead
from understudy.report.partition import partition_chart, partition_lead
from understudy.report.record import RunRecord, as_number
from understudy.report.sections import section

_MOST = 80


def blockwise(record: RunRecord) -> str:
    """The sections of a blockwise run; nothing for others."""
    told = record.get("blockwise")
    if not isinstance(told, Mapping):
        return ""
    partition, front = _mapping(told.get("partition")), _mapping(told.get("front"))
    return "".join(
        [
            section("The teacher, block by block", partition_lead(partition), _figure(
                partition_chart(partition))),
            section("The student, block by block", _lead(told), _choice(told)),
            section("Damage against cost", front_lead(front), _figure(front_chart(front))),
            section(
                "Rounds",
                "Scores on validation rows, of the first seed. After each round: what the next one "
                "does, and why.",
                _rounds(told),
            ),
        ]
    )  # fmt: skip


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Mapping[str, Any]]:
    found = value if isinstance(value, list) else []
    return [one for one in found[:_MOST] if isinstance(one, Mapping)]


def _figure(drawn: str) -> str:
    return f'<div class="panels"><figure class="panel">{drawn}</figure></div>' if drawn else ""


def _lead(told: Mapping[str, Any]) -> str:
    local, stitched = _mapping(told.get("local")), _mapping(told.get("stitched"))
    count = as_number(local.get("pairs"))
    failed = len(_mapping(local.get("failed")))
    lead = f"{wording.count(count)} candidates learned their block alone. "
    if failed:
        lead += f"{failed} failed and were left out. "
    found = as_number(stitched.get("damage"))
    if found is not None:
        predicted = as_number(_mapping(stitched.get("choice")).get("damage"))
        lead += (
            f"Damage before any training of the whole: predicted {wording.score(predicted)}, "
            f"measured {wording.score(found)}."
        )
    return escape(lead)


def _choice(told: Mapping[str, Any]) -> str:
    rows = _items(told.get("blocks"))
    if not rows:
        return ""
    heads = ("block", "candidate", "of", "damage", "parameters before", "after", "latency before",
             "after")  # fmt: skip
    return _table(heads, [_row(row) for row in rows])


def _row(row: Mapping[str, Any]) -> list[str]:
    sizes, times = _two(row.get("parameters")), _two(row.get("ms"))
    return [
        wording.short(str(row.get("block", "")), 40),
        wording.short(str(row.get("label", "")), 40),
        wording.count(as_number(row.get("candidates"))),
        wording.score(as_number(row.get("damage"))),
        *(wording.count(size) for size in sizes),
        *(wording.milliseconds(time) for time in times),
    ]


def _two(value: Any) -> list[Any]:
    found = value if isinstance(value, list) and len(value) == 2 else [None, None]
    return [as_number(one) for one in found]


def _rounds(told: Mapping[str, Any]) -> str:
    rows = _items(told.get("rounds"))
    if not rows:
        return ""
    heads = ("round", "blocks", "damage", "stitched", "trained", "target", "next")
    cells = []
    for row in rows:
        after = [str(line) for line in row.get("next") or [] if isinstance(line, str)]
        cells.append(
            [
                wording.count(as_number(row.get("round"))) + (" (kept)" if row.get("kept") else ""),
                wording.count(as_number(row.get("blocks"))),
                *(
                    wording.score(as_number(row.get(key)))
                    for key in ("damage", "before", "after", "target")
                ),
                wording.short("; ".join(after), 400),
            ]
        )
    return _table(heads, cells)


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
