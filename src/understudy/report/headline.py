"""The top of the page: the verdict, its two figures, and the four numbers asked for first."""

from html import escape

from understudy.report import wording
from understudy.report.effect import effect_chart, gap_chart
from understudy.report.record import RunRecord

# The sign keeps the verdict readable where colours are not.
_VERDICTS = {"HELPED": "▲", "HURT": "▼", "NO DIFFERENCE": "=", "UNDECIDED": "?"}


def headline(record: RunRecord) -> str:
    """The verdict as one huge word, the sentence that goes with it, and its two figures."""
    word = str(record.get("verdict", "word") or "NO VERDICT")
    tone = word.lower().replace(" ", "-") if word in _VERDICTS else "no-difference"
    name = wording.short(str(record.get("name") or "run"), 80)
    when = str(record.get("created") or "")[:16].replace("T", " ")
    sentence = record.get("verdict", "sentence") or "This run has no verdict."
    notes = "".join(
        f"<li>{wording.cut(note, 400)}</li>" for note in record.items("verdict", "notes")[:12]
    )
    figures = effect_chart(record), gap_chart(record)
    captions = (_effect_caption(record), _gap_caption(record))
    drawn = "".join(
        f"<figure>{figure}<figcaption>{caption}</figcaption></figure>"
        for figure, caption in zip(figures, captions, strict=True)
        if figure
    )
    return (
        f'<header class="hero {tone}"><div class="said"><p class="eyebrow">{escape(name)}'
        f'<span class="quiet"> {escape(when)}</span></p>'
        f"<h1>{_sign(word)}<span>{wording.cut(word, 40)}</span></h1>"
        f'<p class="sentence">{wording.cut(sentence, 1200)}</p>'
        f"{_chips(record)}{_wrap('ul', 'notes', notes)}</div>"
        f"{_wrap('div', 'proof', drawn)}</header>"
    )


def tiles(record: RunRecord) -> str:
    """The four numbers that are asked for first, large."""
    known = [_size(record), _speed(record), _kept(record), _gap(record)]
    shown = [
        f'<div class="tile"><p class="big">{escape(big)}</p><p class="what">{escape(what)}</p>'
        f'<p class="quiet">{escape(small)}</p></div>'
        for big, what, small in known
        if big
    ]
    return f'<div class="tiles">{"".join(shown)}</div>' if shown else ""


def _wrap(tag: str, css: str, content: str) -> str:
    return f'<{tag} class="{css}">{content}</{tag}>' if content else ""


def _effect_caption(record: RunRecord) -> str:
    seeds, rows = record.number("verdict", "seeds"), record.number("verdict", "rows")
    margin = record.number("verdict", "margin")
    words = ["How much better than the control"]
    if seeds:
        words.append(f"over {wording.count(seeds)} seed{'s' if seeds != 1 else ''}")
    if rows:
        words.append(f"on {wording.count(rows)} test rows")
    text = " ".join(words) + ": interval, and each seed as a ring."
    if margin:
        told = wording.difference(margin, record.unit).lstrip("+")
        text += f" Shaded: less than the margin of {told}."
    return escape(text)


def _gap_caption(record: RunRecord) -> str:
    if not {"control", "teacher"} <= set(record.models):
        return "The student's score beside the other's."
    closed = record.number("verdict", "gap_closed")
    share = "" if closed is None else f": {wording.score(closed, 'share', decimals=0)} of it closed"
    return f"The way from the control to the teacher{share}."


def _sign(word: str) -> str:
    sign = _VERDICTS.get(word)
    return f'<span class="sign" aria-hidden="true">{sign}</span>' if sign else ""


def _chips(record: RunRecord) -> str:
    chips = []
    recommend = record.get("verdict", "recommend")
    if isinstance(recommend, bool):
        chips.append(_chip(recommend, "recommended for deployment", "not recommended"))
    within = _within(record)
    if within is not None:
        chips.append(_chip(within, "inside the budget", "outside the budget"))
    needed = record.number("verdict", "seeds_needed")
    if needed and record.number("verdict", "low") is None:
        chips.append(f'<li class="chip">needs {wording.count(needed)} seeds or more</li>')
    elif needed:
        seeds = f"{wording.count(needed)} seed{'s' if needed != 1 else ''}"
        chips.append(f'<li class="chip">about {seeds} would decide</li>')
    warnings = len(record.items("warnings"))
    if warnings:
        many = f"{warnings} warning{'s' if warnings != 1 else ''}"
        chips.append(f'<li class="chip open"><a href="#warnings">! {many}</a></li>')
    return f'<ul class="chips">{"".join(chips)}</ul>' if chips else ""


def _chip(good: bool, yes: str, no: str) -> str:
    return f'<li class="chip {"yes" if good else "no"}">{"✓ " + yes if good else "✗ " + no}</li>'


def _within(record: RunRecord) -> bool | None:
    for keys in (("budget", "within"), ("verdict", "within_budget")):
        if isinstance(record.get(*keys), bool):
            return bool(record.get(*keys))
    return None


def _size(record: RunRecord) -> tuple[str, str, str]:
    for key, write in (("bytes", wording.size), ("parameters", wording.count)):
        ours, theirs = (record.number("models", m, key) for m in ("student", "teacher"))
        words = wording.ratio(theirs, ours, "smaller", "larger")
        if words:
            big, _, what = words.partition(" ")
            noun = " parameters" if key == "parameters" else ""
            small = f"{write(ours)}{noun}, teacher {write(theirs)}"
            return (
                (big, what, small) if "teacher" not in what else ("1×", "the teacher's size", small)
            )
    return "", "", ""


def _speed(record: RunRecord) -> tuple[str, str, str]:
    ours, theirs = (
        record.number("models", m, "latency_ms", "batch1") for m in ("student", "teacher")
    )
    words = wording.ratio(theirs, ours, "faster", "slower")
    small = f"{wording.milliseconds(ours)} a row, teacher {wording.milliseconds(theirs)}"
    if words == "as the teacher":
        return "1×", "the teacher's speed", small
    big, _, what = words.partition(" ")
    return big, what, small


def _kept(record: RunRecord) -> tuple[str, str, str]:
    ours, theirs = record.score("student")[0], record.score("teacher")[0]
    if ours is None:
        return "", "", ""
    name = wording.short(record.primary.replace("_", " "), 30)
    small = f"teacher {wording.score(theirs, record.unit)}" if theirs is not None else ""
    control = record.score("control")[0]
    if control is not None:
        small += f"{', ' if small else ''}control {wording.score(control, record.unit)}"
    return wording.score(ours, record.unit, decimals=1), name, small


def _gap(record: RunRecord) -> tuple[str, str, str]:
    closed = record.number("verdict", "gap_closed")
    if closed is None:
        return "", "", ""
    return (
        wording.score(closed, "share", decimals=0),
        "of the gap closed",
        "from the control to the teacher",
    )
