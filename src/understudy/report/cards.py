"""The gallery: one card per row, with its image or values and what every model says of it."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from understudy.report import svg, wording
from understudy.report.axes import DISPLAY
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale
from understudy.report.wording import Number

ARMS = ("teacher", "student", "control")
_MOST_CLASSES, _MOST_VALUES, _MOST_TARGETS = 4, 6, 4
_WORTH_DRAWING = 0.01
_TEXT = 240
_BARS, _WIDTH = 132.0, 220.0


def card(record: RunRecord, row: Mapping[str, Any]) -> str:
    """One row: what it is, why it was chosen, and the answers of teacher, student and control."""
    label = row.get("label")
    head = f"<b>{wording.cut(label, 28)}</b>" if label is not None else "<b>no label</b>"
    number = f' <span class="quiet">row {wording.cut(row.get("id"), 12)}</span>'
    why = f'<p class="why">{wording.cut(row.get("why") or "", 160)}</p>'
    words = f'<div class="words"><p class="label">{head}{number}</p>{why}</div>'
    return (
        f'<li class="card"><div class="row">{_picture(row)}{words}</div>'
        f"{_values(row)}{_answers(record, row)}</li>"
    )


def letters(record: RunRecord) -> int:
    """How long the names in the cards' drawings are; long where they are not classes."""
    return max((len(str(name)) for name in record.items("task", "classes")), default=99)


def _picture(row: Mapping[str, Any]) -> str:
    image = row.get("image")
    # A record may come from elsewhere: nothing but an image that stands in the page itself.
    if not isinstance(image, str) or not image.startswith("data:image/"):
        return ""
    told = f"row {wording.cut(row.get('id'), 12)}"
    return f'<img src="{escape(image)}" alt="{told}" width="84" height="84">'


def _values(row: Mapping[str, Any]) -> str:
    values = row.get("values")
    if not isinstance(values, Mapping) or not values:
        return ""
    shown = list(values.items())[:_MOST_VALUES]
    # One or two columns of words are the text itself.
    most = _TEXT if len(values) < 3 and all(isinstance(v, str) for v in values.values()) else 28
    pairs = [
        f"<dt>{wording.cut(key, 24)}</dt><dd>{wording.cut(_written(value), most)}</dd>"
        for key, value in shown
    ]
    more = len(values) - len(shown)
    rest = f'<dt class="quiet">and {more} more</dt><dd></dd>' if more > 0 else ""
    return f'<dl class="values">{"".join(pairs)}{rest}</dl>'


def _answers(record: RunRecord, row: Mapping[str, Any]) -> str:
    answers = {arm: _numbers(row.get(arm)) for arm in ARMS}
    known = {arm: values for arm, values in answers.items() if values}
    if not known:
        return ""
    if record.items("task", "classes") or record.get("task", "output") == "logits":
        return _probabilities(record, row, known)
    return _predictions(record, row, known)


def _probabilities(
    record: RunRecord, row: Mapping[str, Any], answers: Mapping[str, list[Number]]
) -> str:
    """Three bars for every class that matters here, teacher on top, each model in its colour."""
    width = max(len(values) for values in answers.values())
    names = [str(name) for name in record.items("task", "classes")[:width]]
    names += [str(index) for index in range(len(names), width)]
    label = str(row.get("label"))
    classes = _classes(answers, names, label)
    shown = [wording.squeezed(names[index], 11) for index in classes]
    left = 8 + svg.widest(shown, least=18, most=84)
    parts = []
    for place, index in enumerate(classes):
        y = 4.0 + 29 * place
        css = "tick name true" if names[index] == label else "tick name"
        parts.append(svg.text(left - 8, y + 15, shown[place], css, anchor="end"))
        for step, (arm, values) in enumerate(answers.items()):
            share = min(max(values[index], 0.0), 1.0) if index < len(values) else 0.0
            name, sure = (
                wording.squeezed(names[index], 60),
                wording.score(share, "share", decimals=1),
            )
            told = f"{DISPLAY[arm]}: {name} {sure}"
            track = svg.rect(left, y + 8 * step, _BARS, 6, "track")
            bar = svg.rect(left, y + 8 * step, share * _BARS, 6, "share")
            parts.append(svg.group(arm, track, bar, title=told))
    title = f"{', '.join(answers)} on row {wording.short(str(row.get('id')), 12)}"
    return svg.svg(left + _BARS + 4, 4 + 29 * len(classes), title, *parts)


def _classes(answers: Mapping[str, list[Number]], names: Sequence[str], label: str) -> list[int]:
    """The true class, the first choices of every model, then what the teacher says next.

    Two at least; what no model gives a share worth drawing is left out.
    """
    ranked = [sorted(range(len(v)), key=lambda i: -v[i]) for v in answers.values()]
    wanted = [names.index(label)] if label in names else []
    wanted += [order[0] for order in ranked] + ranked[0]
    distinct = list(dict.fromkeys(wanted))[:_MOST_CLASSES]
    most = {i: max(v[i] for v in answers.values() if i < len(v)) for i in distinct}
    chosen = [i for place, i in enumerate(distinct) if place < 2 or most[i] >= _WORTH_DRAWING]
    first = next(iter(answers.values()))
    return sorted(chosen, key=lambda index: -first[index] if index < len(first) else 0.0)


def _predictions(
    record: RunRecord, row: Mapping[str, Any], answers: Mapping[str, list[Number]]
) -> str:
    """Each target on a line of its own: the models' marks, and a stroke for the measured value."""
    names = [str(name) for name in record.items("task", "targets")]
    measured = _measured(row.get("label"))
    count = min(max(len(values) for values in answers.values()), _MOST_TARGETS)
    parts = []
    for index in range(count):
        y = 34.0 + 46 * index
        said = {arm: values[index] for arm, values in answers.items() if index < len(values)}
        truth = measured[index] if index < len(measured) else None
        scale = Scale.around([*said.values(), truth], start=14, end=_WIDTH - 14, pad=0.15)
        name = names[index] if index < len(names) else "value"
        parts.append(svg.text(2, y - 18, wording.short(name, 30), "tick"))
        parts.append(svg.line((6, y), (_WIDTH - 6, y), "axis"))
        if truth is not None:
            parts.append(svg.line((scale(truth), y - 12), (scale(truth), y + 12), "measured"))
        for arm, value in said.items():
            told = f"{DISPLAY[arm]} {wording.significant(value)}"
            parts.append(svg.marker(arm, scale(value), y, radius=5, title=told))
    title = f"{', '.join(answers)} on row {wording.short(str(row.get('id')), 12)}"
    return svg.svg(_WIDTH, 8 + 46 * count, title, *parts)


def _measured(label: Any) -> list[Number]:
    """The numbers in a label, which the record keeps as words."""
    try:
        return svg.finite([float(word) for word in str(label).replace(",", " ").split()])
    except ValueError:
        return []


def _numbers(values: Any) -> list[Number]:
    known = [as_number(value) for value in values] if isinstance(values, list) else []
    return [value if value is not None else 0.0 for value in known]


def _written(value: Any) -> str:
    number = as_number(value)
    return str(value) if number is None else wording.significant(number)
