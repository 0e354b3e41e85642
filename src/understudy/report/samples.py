"""Texts that the models of a run go on with, side by side."""

from collections.abc import Mapping
from typing import Any

from understudy.report import wording
from understudy.report.axes import DISPLAY
from understudy.report.record import MODELS, RunRecord
from understudy.report.sections import section

_MOST, _LETTERS = 8, 600


def samples(record: RunRecord) -> str:
    """The section of HTML; nothing where no model writes."""
    rows = [row for row in record.items("samples") if isinstance(row, Mapping)]
    cards = "".join(_card(row) for row in rows[:_MOST])
    if not cards:
        return ""
    return section(
        "How they go on",
        "Beginnings of test texts, and what comes after them: in the text itself, and from each "
        "model. All draw with the same seed, at temperature 0.8.",
        f'<ul class="gallery">{cards}</ul>',
    )


def _card(row: Mapping[str, Any]) -> str:
    told = row.get("models")
    written = told if isinstance(told, Mapping) else {}
    parts = [("the text", row.get("text"))]
    parts += [(DISPLAY.get(name, name), written[name]) for name in MODELS if name in written]
    lines = "".join(
        f"<dt>{wording.cut(name, 40)}</dt><dd>{_shown(text)}</dd>" for name, text in parts
    )
    return f'<li class="card"><p><b>{_shown(row.get("prompt"))}</b></p><dl>{lines}</dl></li>'


def _shown(text: Any) -> str:
    """A text with its lines."""
    content = wording.cut(text if isinstance(text, str) else "", _LETTERS)
    return content.replace("\n", "<br>")
