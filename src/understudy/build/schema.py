"""The JSON Schema of a recipe, for editors: the typed sections, and the kinds that there are."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from understudy import data, losses
from understudy.build.check import FACTS
from understudy.build.parts import MODELS
from understudy.data.views import CATALOGUE as VIEWS
from understudy.recipe import Recipe


def schema() -> dict[str, Any]:
    """The schema that `understudy schema` prints."""
    whole = Recipe.model_json_schema()
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    whole["title"] = "Understudy recipe"
    parts = whole["$defs"]
    _choose(parts["DataSection"]["properties"], "source", data.CATALOGUE)
    _choose(parts["TeacherSection"]["properties"], "model", MODELS)
    _choose(parts["StudentSection"]["properties"], "model", MODELS)
    _choose(parts["TransferSection"]["properties"], "source", data.CATALOGUE)
    parts["DataSection"]["properties"]["views"]["items"] = _one_of(VIEWS)
    rows = {kind: row.loss for kind, row in losses.CATALOGUE.items()}
    weight = parts["TermEntry"]["properties"]["weight"]
    term = _one_of(rows, extra={"weight": weight})
    for name in ("DistilStep", "PruneStep", "QuantizeStep", "Phase"):
        objective = parts[name]["properties"]["objective"]
        for branch in [objective, *objective.get("anyOf", [])]:
            if branch.get("type") == "array":
                branch["items"] = term
    return whole


def _choose(properties: dict[str, Any], name: str, known: Mapping[str, Callable[..., Any]]) -> None:
    properties[name] = {"description": properties[name].get("description", ""), **_one_of(known)}


def _one_of(
    known: Mapping[str, Callable[..., Any]],
    *,
    custom: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    branches = [_kind(kind, what, extra or {}) for kind, what in known.items()]
    if custom:
        own = {
            "kind": {"const": "custom"},
            "target": {"type": "string", "description": "package.module:name or file.py:name"},
            "arguments": {"type": "object"},
            **(extra or {}),
        }
        branches.append({"properties": own, "required": ["kind", "target"]})
    return {"type": "object", "oneOf": branches}


def _kind(kind: str, what: Callable[..., Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(what.__init__ if inspect.isclass(what) else what)
    properties: dict[str, Any] = {"kind": {"const": kind}, **extra}
    required = ["kind"]
    for name, parameter in inspect.signature(what).parameters.items():
        properties[name] = _type(hints.get(name, Any))
        if parameter.default is inspect.Parameter.empty:
            if name not in FACTS:
                required.append(name)
        elif isinstance(parameter.default, int | float | str | bool):
            properties[name]["default"] = parameter.default
    text = (inspect.getdoc(what) or "").partition("\n")[0]
    return {"description": text, "properties": properties, "required": required}


def _type(annotation: Any) -> dict[str, Any]:
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return {}
