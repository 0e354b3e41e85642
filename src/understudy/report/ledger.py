"""The end of the page, for whoever wants to make the run again: warnings, recipe, environment."""

import json
import re
from collections.abc import Mapping
from typing import Any

from understudy.report import wording
from understudy.report.record import RunRecord, as_number
from understudy.report.sections import section

_MOST_WARNINGS = 40
# YAML 1.1 reads these as something else than words.
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


def ledger(record: RunRecord) -> str:
    """Warnings, the recipe, the machine it ran on, and where all the numbers are."""
    told = _details("Recipe", record.get("recipe"), most=40_000)
    told += _details("Environment", record.get("environment"), most=15_000)
    file = record.get("files", "run")
    where = f" · every number of this page: <code>{wording.cut(file, 300)}</code>" if file else ""
    version = wording.cut(record.get("understudy") or "", 40)
    return (
        f"{_warnings(record)}{section('How it was made', _made(record), told)}"
        f"<footer>Understudy {version}{where}</footer>"
    )


def as_yaml(value: Any, indent: str = "") -> list[str]:
    """Plain data as the lines of a YAML text; strings are quoted where YAML could misread them."""
    if isinstance(value, Mapping) and value:
        return [
            line
            for key, item in value.items()
            for line in _entry(f"{indent}{_scalar(key)}:", item, indent + "  ")
        ]
    if isinstance(value, list) and value:
        lines = []
        for item in value:
            first, *rest = as_yaml(item, indent + "  ")
            lines += [f"{indent}- {first[len(indent) + 2 :]}", *rest]
        return lines
    return [indent + _scalar(value)]


def _entry(head: str, item: Any, indent: str) -> list[str]:
    if isinstance(item, list) and not any(isinstance(part, Mapping | list) for part in item):
        return [f"{head} [{', '.join(_scalar(part) for part in item)}]"]
    if isinstance(item, Mapping | list) and item:
        return [head, *as_yaml(item, indent)]
    return [f"{head} {_scalar(item)}"]


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
    return value if plain else json.dumps(value, ensure_ascii=False)


def _warnings(record: RunRecord) -> str:
    found = record.items("warnings")
    rows = "".join(f"<li>{wording.cut(words, 600)}</li>" for words in found[:_MOST_WARNINGS])
    more = len(found) - _MOST_WARNINGS
    rows += f"<li>and {more} more in run.json</li>" if more > 0 else ""
    if not rows:
        return ""
    return f'<section id="warnings"><h2>Warnings</h2><ul class="warnings">{rows}</ul></section>'


def _made(record: RunRecord) -> str:
    words = []
    rows = record.get("rows")
    if isinstance(rows, Mapping):
        counts = [(as_number(count), name) for name, count in list(rows.items())[:8]]
        known = [
            f"{wording.count(n)} {wording.cut(name, 20)}" for n, name in counts if n is not None
        ]
        words.append(f"rows: {', '.join(known)}")
    seeds = record.items("seeds")
    if seeds:
        words.append("seeds: " + wording.cut(", ".join(str(seed) for seed in seeds), 120))
    mark = record.get("recipe_fingerprint")
    if mark:
        words.append(f"recipe: <code>{wording.cut(mark, 64)}</code>")
    return " · ".join(words)


def _details(title: str, value: Any, *, most: int) -> str:
    if not value:
        return ""
    text = "\n".join(as_yaml(value))
    rest = "\n… the rest is in run.json" if len(text) > most else ""
    shown = wording.cut(text[:most], most)
    return f"<details><summary>{title}</summary><pre>{shown}{rest}</pre></details>"
