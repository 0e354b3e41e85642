"""The page of a run: one HTML file that needs nothing else, and that fetches nothing.

It is looked at rather than read: the verdict first, then what it rests on. It holds no script, and
its content security policy forbids whatever a page can be made to load.
"""

from collections.abc import Mapping
from pathlib import Path

from understudy.folders import write_atomic
from understudy.report import wording
from understudy.report.blockwise import blockwise
from understudy.report.cards import ARMS, card, letters
from understudy.report.delivery import delivery
from understudy.report.headline import headline, tiles
from understudy.report.ledger import ledger
from understudy.report.making import making
from understudy.report.record import RunRecord
from understudy.report.samples import samples
from understudy.report.sections import evidence, section
from understudy.report.style import CSS
from understudy.report.tables import legend
from understudy.report.transfer import transfer
from understudy.report.vectors import vectors

MOST_BYTES = 1_500_000
_MOST_CARDS = 24
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)


def write_report(record: RunRecord, path: str | Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    write_atomic(Path(path), render(record))


def render(record: RunRecord) -> str:
    """The page as one string of HTML, under 1.5 MB: the gallery gives way if there is too much."""
    before = headline(record) + tiles(record) + delivery(record) + evidence(record)
    before += making(record) + blockwise(record) + vectors(record) + transfer(record)
    before += samples(record)
    after = ledger(record)
    # 4 kB hold the head and the frame of the gallery.
    room = MOST_BYTES - _bytes(CSS + before + after) - 4000
    page = _document(record, before + _gallery(record, room) + after)
    # Half a surrogate pair in somebody's class name must not keep the page from being written.
    return page.encode(errors="replace").decode()


def _document(record: RunRecord, body: str) -> str:
    name = wording.cut(record.get("name") or "run", 80)
    word = wording.cut(record.get("verdict", "word") or "no verdict", 40)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{word} · {name} · Understudy</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _gallery(record: RunRecord, room: int) -> str:
    rows = [row for row in record.items("gallery") if isinstance(row, Mapping)]
    cards: list[str] = []
    for row in rows[:_MOST_CARDS]:
        drawn = card(record, row)
        if _bytes(drawn) <= room:
            room -= _bytes(drawn)
            cards.append(drawn)
    if not cards:
        return ""
    arms = [arm for arm in ARMS if any(isinstance(row.get(arm), list) for row in rows)]
    left = len(rows) - len(cards)
    rest = f'<p class="lead">{left} more in run.json.</p>' if left else ""
    # Short class names leave room for two cards beside each other on a telephone.
    css = "gallery tight" if letters(record) <= 4 else "gallery"
    lead = "The stroke is the measured value, the marks are the models' answers."
    if record.items("task", "classes"):
        lead = (
            "What the teacher says beside its first choice is what the student can learn from it. "
            "Bars, from the top: " + ", ".join(arms) + "."
        )
    return section(
        "Rows worth looking at",
        lead,
        f'<div class="keys">{legend(*arms)}</div><ul class="{css}">{"".join(cards)}</ul>{rest}',
    )


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
