"""What to deploy and whether it fits: the exported files and the checks of the budget."""

from collections.abc import Callable, Mapping

from understudy.report import wording
from understudy.report.record import RunRecord, as_number

_MOST_CHECKS = 12


def delivery(record: RunRecord) -> str:
    """The files with what the deployed seed scores, beside the budget's checks."""
    boxes = [part for part in (_files(record), _budget(record)) if part]
    shown = "".join(f'<section class="box">{part}</section>' for part in boxes)
    return f'<div class="pair">{shown}</div>' if shown else ""


def _files(record: RunRecord) -> str:
    form = str(record.get("quantized") or "int8").replace("_", " ")
    rows = [
        _file(record, "onnx", "student", record.primary, "student"),
        _file(record, "onnx_int8", f"student, {form}", f"{record.primary}_int8", "student_int8"),
    ]
    if not any(rows):
        return ""
    seed = record.get("deployed", "seed")
    which = "" if seed is None else f" from seed {wording.cut(seed, 20)}"
    head = f'<h2>Files to deploy <span class="quiet">{which}</span></h2>'
    return f'{head}<ul class="files">{"".join(rows)}</ul>{_speed(record)}'


def _speed(record: RunRecord) -> str:
    """Whether the quantised file is faster here: smaller does not mean faster."""
    ratio = record.number("deployed", "speedup_quantized")
    if ratio is None:
        return ""
    word = f"{ratio:.1f} times as fast as" if ratio >= 1.05 else "not faster than"
    return f'<p class="quiet">For one row the quantised file is {word} the float one here.</p>'


def _file(record: RunRecord, key: str, name: str, score: str, model: str) -> str:
    file = record.get("files", key)
    if not file:
        return ""
    known = [
        wording.score(record.number("deployed", score), record.unit),
        wording.size(record.number("models", model, "bytes")),
    ]
    facts = " · ".join(fact for fact in known if fact != wording.MISSING)
    return (
        f'<li><p><b>{name}</b> <span class="at quiet">{facts}</span></p>'
        f"<code>{wording.cut(file, 400)}</code></li>"
    )


def _budget(record: RunRecord) -> str:
    checks = [check for check in record.items("budget", "checks") if isinstance(check, Mapping)]
    rows = "".join(_check(check) for check in checks[:_MOST_CHECKS])
    return f'<h2>Budget</h2><ul class="checks">{rows}</ul>' if rows else ""


def _check(check: Mapping[str, object]) -> str:
    """One limit: a bar for what was measured, a stroke for what was allowed."""
    name = str(check.get("name"))
    limit, measured = as_number(check.get("limit")), as_number(check.get("measured"))
    write = _writer(name)
    met = check.get("met")
    sign, tone = ("✓", "yes") if met is True else ("✗", "no") if met is False else ("?", "open")
    words = f'{write(measured)} <span class="quiet">/ {write(limit)}</span>'
    plain = wording.cut(name.replace("_ms", "").replace("_", " "), 60)
    return (
        f'<li class="{tone}"><p><span class="sign">{sign}</span> {plain} '
        f'<span class="at">{words}</span></p>{_bar(name, measured, limit)}</li>'
    )


def _bar(name: str, measured: float | None, limit: float | None) -> str:
    if limit is None or measured is None or limit <= 0 or measured < 0:
        return ""
    whole = 1.12 * max(limit, measured)
    told = f"{_writer(name)(measured)} of {_writer(name)(limit)}"
    return (
        f'<div class="meter" role="img" aria-label="{wording.cut(told, 80)}">'
        f'<i style="width:{100 * measured / whole:.1f}%"></i>'
        f'<b style="left:{100 * limit / whole:.1f}%"></b></div>'
    )


def _writer(name: str) -> Callable[[float | None], str]:
    """How the values of a check are written, by what its name begins with."""
    writers = {"bytes": wording.size, "parameters": wording.count, "latency": wording.milliseconds}
    for start, write in writers.items():
        if name.startswith(start):
            return write
    return _share if name.endswith("kept") else _number


def _share(value: float | None) -> str:
    return wording.score(value, "share", decimals=1)


def _number(value: float | None) -> str:
    return wording.score(value)
