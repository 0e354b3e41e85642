"""What vectors are good for: pairs ranked as people rank them, and linear probes."""

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.report import wording
from understudy.report.axes import DISPLAY
from understudy.report.record import MODELS, RunRecord
from understudy.report.sections import section
from understudy.report.transfer import plain_table


def vectors(record: RunRecord) -> str:
    """The section of HTML; nothing where the run asked nothing of vectors."""
    asked = _pairs(record) + _probes(record)
    if not asked:
        return ""
    heads = ["", "like the teacher"]
    rows: dict[str, list[str]] = {name: [_likeness(record, name)] for name in _models(asked)}
    for head, _, models, unit in asked:
        heads.append(head)
        for name, cells in rows.items():
            cells.append(_cell(models.get(name), unit))
    table = plain_table(
        heads, [(DISPLAY.get(name, name), tuple(cells)) for name, cells in rows.items()]
    )
    leads = [lead for _, lead, _, _ in asked]
    lead = (
        " ".join(dict.fromkeys(leads))
        + " The control is the network that the student began as, without any training. Intervals "
        "in brackets, over seeds and texts."
    )
    return section("What the vectors are good for", lead, _kept(record) + table)


Asked = tuple[str, str, Mapping[str, Any], str]


def _pairs(record: RunRecord) -> list[Asked]:
    models = record.get("vectors", "pairs", "models")
    if not isinstance(models, Mapping):
        return []
    count = wording.count(record.number("vectors", "pairs", "rows"))
    lead = (
        f"Spearman's correlation of the cosines of {count} pairs with how alike people found them."
    )
    return [("pairs, Spearman", lead, models, "")]


def _probes(record: RunRecord) -> list[Asked]:
    found = []
    for probe in record.items("vectors", "probes"):
        if not isinstance(probe, Mapping) or not isinstance(probe.get("models"), Mapping):
            continue
        name = wording.short(str(probe.get("name")), 30)
        lead = (
            "Probes: the accuracy of a logistic regression on frozen vectors, on texts that it was "
            "not fitted on."
        )
        found.append((f"{name}, accuracy", lead, probe["models"], "share"))
    return found


def _models(asked: Sequence[Asked]) -> list[str]:
    return [name for name in MODELS if any(name in models for _, _, models, _ in asked)]


def _likeness(record: RunRecord, name: str) -> str:
    return _cell(record.get("models", name, "scores", "teacher_cosine"), "")


def _cell(score: Any, unit: str) -> str:
    if not isinstance(score, Mapping) or score.get("value") is None:
        return "–"
    value = wording.score(float(score["value"]), unit)
    low, high = score.get("low"), score.get("high")
    if low is None or high is None or low == high:
        return value
    return f"{value} {wording.interval(float(low), float(high), unit)}"


def _kept(record: RunRecord) -> str:
    value, low, high = (
        record.number("vectors", "pairs", "kept", key) for key in ("value", "low", "high")
    )
    if value is None:
        return ""
    told = f"{wording.score(value, 'share')} {wording.interval(low, high, 'share')}"
    return f"<p>Of its teacher's correlation on the pairs the student keeps {told}.</p>"
