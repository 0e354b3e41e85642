"""The catalogue of losses as people and programs read it."""

import inspect
import re
from collections.abc import Callable
from typing import Any, get_type_hints

from understudy.features.adapters import ADAPTERS
from understudy.losses import CATALOGUE, Row

_EMPTY = inspect.Parameter.empty


def entries() -> dict[str, dict[str, Any]]:
    """Per kind everything that its row, its class and its function say."""
    return {kind: _entry(kind, row) for kind, row in CATALOGUE.items()}


def _entry(kind: str, row: Row) -> dict[str, Any]:
    function = row.function
    return {
        "kind": kind,
        "family": row.family,
        "paper": row.paper,
        "function": _path(function),
        "function_arguments": _arguments(function),
        "class": _path(row.loss),
        "arguments": {n: a["default"] for n, a in _arguments(row.loss).items()},
        "authors": {
            "source": row.authors.source,
            "arguments": _authors(row),
            "note": row.authors.note,
        },
        "needs": list(row.needs),
        "reads": row.reads,
        "labels": row.labels,
        "also": list(row.also),
        "layers": row.layers,
        "adapter": row.adapter or None,
        "adapter_class": _path(ADAPTERS[row.adapter]) if row.adapter else None,
        "adapter_arguments": _options(row) if row.adapter else {},
        "adapter_gives": _given(row),
        "related": row.related,
        "control": row.control,
        "tasks": list(row.tasks),
        "outcomes": row.whole is None and not row.labels and bool(row.needs),
        "whole": row.whole,
        "usual_weight": row.usual_weight,
        "text": inspect.getdoc(function) or "",
    }


def _path(what: Any) -> str:
    return f"{what.__module__}.{what.__qualname__}"


def _authors(row: Row) -> dict[str, Any]:
    """All constants of the function with which it is the authors' own."""
    taken = inspect.signature(row.function).parameters
    usual = {n: a["default"] for n, a in _arguments(row.loss).items() if n in taken}
    return usual | dict(row.authors.arguments)


def _options(row: Row) -> dict[str, Any]:
    """The adapter's own constants, as this loss sets them."""
    known = _arguments(ADAPTERS[row.adapter])
    usual = {n: a["default"] for n, a in known.items() if n not in ("student", "teacher")}
    return usual | dict(row.settings)


def _given(row: Row) -> list[str]:
    """Arguments of the function that are neither a side, nor of the batch, nor a constant."""
    sides = [*inspect.signature(row.function).parameters][:2]
    constants = inspect.signature(row.loss).parameters
    known = {*sides, *constants, *row.also, "mask"}
    return [n for n in inspect.signature(row.function).parameters if n not in known]


def _arguments(function: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Per parameter its type as it is written, and its default; None where there is none."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = get_type_hints(target)
    return {
        name: {
            "type": _written(hints.get(name)),
            "default": None if p.default is _EMPTY else p.default,
            "required": p.default is _EMPTY,
        }
        for name, p in inspect.signature(function).parameters.items()
    }


def _written(hint: Any) -> str:
    """A type for people: `Float[Tensor, "batch classes"]`, `float`, `Literal[...]`."""
    dtypes = getattr(hint, "dim_str", None)
    if dtypes is not None:
        name = str(getattr(hint, "__name__", hint)).partition("[")[0]
        return f'{name}[Tensor, "{dtypes.strip()}"]'
    if inspect.isclass(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("jaxtyping.", "").replace("torch.", "")


def _listed(entry: dict[str, Any]) -> str:
    return "read" if entry["outcomes"] else f"not read: {entry['whole']}"


def cited(paper: str) -> str:
    """A paper by its authors and year, which is enough to find its page."""
    found = re.match(r".*?\b\d{4}\b", paper)
    return found[0] if found else paper


def needs(entry: dict[str, Any], *, none: str = "nothing of the teacher") -> str:
    """What it compares with."""
    parts = [*entry["needs"], *(f"hard {name}" for name in entry["also"])]
    if entry["related"]:
        parts.append("two rows a batch")
    return ", ".join(parts) or none


def _recipe(entry: dict[str, Any]) -> str:
    """The term as a line of a recipe, with the defaults that can be written."""
    constants = {k: v for k, v in entry["arguments"].items() if isinstance(v, (int, float, str))}
    inner = "".join(
        f", {k}: {str(v).lower() if isinstance(v, bool) else v}" for k, v in constants.items()
    )
    if entry["kind"] == "standardize":
        inner = ", of: {kind: soft_target, temperature: 2}"
    layers = ", layers: auto" if entry["layers"] != "none" else ""
    first = re.match(r"[\d.]+", entry["usual_weight"])
    weight = first[0].rstrip(".") if first else "1"
    return f"- {{kind: {entry['kind']}, weight: {weight}{inner}{layers}}}"


def _called(entry: dict[str, Any]) -> str:
    """The function's arguments with their shapes, as a line."""
    arguments = entry["function_arguments"].items()
    return ", ".join(f"{name}: {a['type']}" for name, a in arguments)


def page(entry: dict[str, Any]) -> str:
    """One loss as a page of text."""
    authors = entry["authors"]
    given = ", ".join(f"{k}={v!r}" for k, v in authors["arguments"].items())
    adapter = entry["adapter"]
    learns = (inspect.getdoc(ADAPTERS[adapter]) or "").partition("\n")[0] if adapter else ""
    lines = [
        entry["kind"],
        "=" * len(entry["kind"]),
        "",
        entry["text"],
        "",
        f"family        {entry['family']}",
        f"function      {entry['function']}",
        f"called with   {_called(entry)}",
        f"class         {entry['class']}",
        f"needs         {needs(entry)}",
        *([f"adapter       {adapter}: {learns}"] if adapter else []),
        *([f"listed labels {_listed(entry)}"] if entry["needs"] == ["logits"] else []),
        f"tasks         {', '.join(entry['tasks'])}",
        f"paper         {entry['paper']}",
        f"authors' form {authors['source']}{f' ({given})' if given else ''}",
        *([f"              {authors['note']}"] if authors["note"] else []),
        f"usual weight  {entry['usual_weight']}",
        f"in a recipe   {_recipe(entry)}",
    ]
    return "\n".join(lines)
