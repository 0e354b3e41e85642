"""The page of a run: one HTML file that needs nothing else, and that fetches nothing.

It is looked at rather than read: the verdict first, then what it rests on. It holds no script, and
its content security policy forbids all that the page could be made to load.
"""

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from understudy.folders import write_atomic
from understudy.report import svg, wording
from understudy.report.calibration import reliability_chart, scatter_chart
from understudy.report.cards import ARMS, card
from understudy.report.charts import learning, trade_off
from understudy.report.confusion import confusion_changes, confusion_chart, shown_classes
from understudy.report.delivery import delivery
from understudy.report.headline import headline, tiles
from understudy.report.record import RunRecord
from understudy.report.slices import slice_chart
from understudy.report.style import CSS
from understudy.report.tables import legend, side_by_side, timings

MOST_BYTES = 1_500_000
_MOST_CARDS = 24
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(record: RunRecord, path: str | Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    write_atomic(Path(path), render(record))


def render(record: RunRecord) -> str:
    """The page as one string of HTML, under 1.5 MB: the gallery gives way if there is too much."""
    before = headline(record) + tiles(record) + delivery(record) + _evidence(record)
    after = _ledger(record)
    room = MOST_BYTES - len((CSS + before + after).encode()) - 8000
    return _document(record, before + _gallery(record, room) + after)


def _document(record: RunRecord, body: str) -> str:
    name = escape(svg.short(str(record.get("name") or "run"), 80))
    word = escape(svg.short(str(record.get("verdict", "word") or "no verdict"), 40))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{word} · {name} · Understudy</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
