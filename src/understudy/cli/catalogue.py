"""The catalogue of losses as people and programs read it."""

import inspect
from typing import Any

from understudy.losses import CATALOGUE


def entries() -> dict[str, dict[str, Any]]:
    """Per kind everything that its row, its class and its function say."""
    return {kind: _entry(kind) for kind in CATALOGUE}


def _entry(kind: str) -> dict[str, Any]:
    row = CATALOGUE[kind]
    parameters = inspect.signature(row.loss).parameters.values()
    empty = inspect.Parameter.empty
    return {
        "kind": kind,
        "class": f"{row.loss.__module__}.{row.loss.__qualname__}",
        "arguments": {p.name: None if p.default is empty else p.default for p in parameters},
        "family": row.family,
        "needs": list(row.needs),
        "reads": row.reads,
        "labels": row.labels,
        "tasks": list(row.tasks),
        "outcomes": row.whole is None and not row.labels,
        "whole": row.whole,
        "paper": row.paper,
        "usual_weight": row.usual_weight,
        "text": inspect.getdoc(row.loss) or "",
    }


def _listed(entry: dict[str, Any]) -> str:
    return "read" if entry["outcomes"] else f"not read: {entry['whole']}"


def page(entry: dict[str, Any]) -> str:
    """One loss as a page of text."""
    arguments = "".join(f", {k}: {v}" for k, v in entry["arguments"].items())
    lines = [
        entry["kind"],
        "=" * len(entry["kind"]),
        "",
        entry["text"],
        "",
        f"class         {entry['class']}",
        f"needs         {', '.join(entry['needs']) or 'nothing of the teacher'}",
        *([f"listed labels {_listed(entry)}"] if entry["needs"] else []),
        f"tasks         {', '.join(entry['tasks'])}",
        f"paper         {entry['paper']}",
        f"usual weight  {entry['usual_weight']}",
        f"in a recipe   - {{kind: {entry['kind']}, weight: 1.0{arguments}}}",
    ]
    return "\n".join(lines)
