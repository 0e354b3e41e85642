"""What the models' features are worth for another task: a head on each, fitted on few labels."""

from collections.abc import Sequence
from html import escape

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY, WIDTH, Axis, ruler, thin
from understudy.report.record import RunRecord
from understudy.report.sections import section
from understudy.report.svg import Scale

NAMES = ("teacher", "student", "control", "untrained")
_PAIRS = (("student", "control"), ("student", "untrained"), ("teacher", "student"))
_ROW, _TOP, _LEFT, _EDGE = 34.0, 40.0, 100.0, 18.0


def transfer(record: RunRecord) -> str:
    """The section of HTML; nothing where the run has no other task."""
    models = [name for name in NAMES if _ends(record, name)[0] is not None]
    if not models:
        return ""
    labelled, draws, test = (
        wording.count(record.number("transfer", "rows", key))
        for key in ("labelled", "draws", "test")
    )
    told = wording.cut(record.get("transfer", "verdict", "sentence") or "", 1200)
    lead = (
        f"A linear head on each model's frozen features, fitted on {labelled} labelled rows of "
        f"another task, {draws} times, scored on {test} other rows. “Untrained” has the student's "
        "start weights. "
        "The intervals are over seeds, draws and rows together."
    )
    body = f"<p>{told}</p>{_chart(record, models)}{_table(record, models)}{_differences(record)}"
    return section("The features on another task", lead, body)


def _unit(record: RunRecord) -> str:
    return str(record.get("transfer", "score", "unit") or "")


def _score(record: RunRecord) -> str:
    return str(record.get("transfer", "score", "name") or "score").replace("_", " ")


def _ends(record: RunRecord, name: str) -> list[float | None]:
    keys = ("transfer", "models", name)
    return [record.number(*keys, key) for key in ("value", "low", "high")]


def _chart(record: RunRecord, models: Sequence[str]) -> str:
    """Each model's score with its interval, one below the other, better ones to the right."""
    known = {name: _ends(record, name) for name in models}
    rising = record.get("transfer", "score", "higher_is_better") is not False
    start, end = (_LEFT, WIDTH - _EDGE) if rising else (WIDTH - _EDGE, _LEFT)
    scale = Scale.around([v for ends in known.values() for v in ends], start=start, end=end)
    marks, unit = scale.ticks(5), _unit(record)
    words = wording.ticks([100 * mark for mark in marks] if unit == "share" else marks)
    bottom = _TOP + _ROW * len(models)
    axis = thin(Axis(scale=scale, ticks=marks, labels=words, title=""), room=8)
    parts = [ruler(axis, top=_TOP - 10, bottom=bottom - 8)]
    for number, (name, (value, low, high)) in enumerate(known.items()):
        y = _TOP + _ROW * number + 8
        drawn = svg.text(2, y + 4, DISPLAY.get(name, name), f"label {name}")
        if low is not None and high is not None:
            drawn += svg.line((scale(low), y), (scale(high), y), f"whisker {name}")
        drawn += svg.marker(name, scale(value or 0), y, title=wording.score(value, unit))
        # No model of the side-by-side table, so it has no colour of its own.
        parts.append(drawn if name in DISPLAY else f'<g style="--c:var(--soft)">{drawn}</g>')
    what = f"{_score(record)}{' in per cent' if unit == 'share' else ''} on the other task"
    parts.append(svg.text(WIDTH - _EDGE, bottom + 14, what, "title", anchor="end"))
    title = f"{_score(record)} of heads on the features of {', '.join(models)}"
    return f"<figure>{svg.svg(WIDTH, bottom + 22, title, *parts, css='wide')}</figure>"


def _table(record: RunRecord, models: Sequence[str]) -> str:
    unit, rows = _unit(record), []
    for name in models:
        value, low, high = _ends(record, name)
        cells = (
            wording.count(record.number("transfer", "models", name, "features")),
            wording.score(value, unit),
            wording.interval(low, high, unit),
        )
        rows.append((DISPLAY.get(name, name), cells))
    return plain_table(("features of", "numbers per row", _score(record), "interval"), rows)


def _differences(record: RunRecord) -> str:
    unit, rows = _unit(record), []
    for one, two in _PAIRS:
        keys = ("transfer", "comparisons", f"{one}_{two}")
        effect = record.number(*keys, "effect")
        if effect is not None:
            low, high = (record.number(*keys, end) for end in ("low", "high"))
            cells = (wording.difference(effect, unit), wording.interval(low, high, unit))
            rows.append((f"{one} over {two}", cells))
    return plain_table(("how much better", "difference", "interval"), rows) if rows else ""


def plain_table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table of HTML with a heading per row."""
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    return f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
