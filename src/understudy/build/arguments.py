"""A recipe's parameters against the signature they are meant for."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from understudy.errors import did_you_mean


def wrong_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], *, filled: Collection[str] = ()
) -> dict[str, str]:
    """Per wrong argument the law it breaks; empty if the call would be accepted.

    Args:
        function: a class or function.
        arguments: what the recipe gives.
        filled: what is filled in from the data; may be missing.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # built into an interpreter without a signature
        return {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [
        name
        for name, p in parameters.items()
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    laws = {
        name: f"unknown parameter `{name}`: {did_you_mean(name, names)}"
        for name in arguments
        if name not in names and not open_ended
    }
    hints = _hints(function)
    for name in names:
        if name in arguments:
            law = _wrong_value(hints.get(name, Any), arguments[name])
            if law:
                laws[name] = law
        elif parameters[name].default is inspect.Parameter.empty and name not in filled:
            laws[name] = f"parameter `{name}` is required and missing here"
    return laws


def coerced(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that fit, whole numbers as floats where the signature says float."""
    hints = _hints(function)
    return {
        name: float(value) if hints.get(name) is float and type(value) is int else value
        for name, value in arguments.items()
    }


def accepted(function: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a function has a parameter for."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in facts.items() if name in parameters}


def required(function: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a function demands: parameters of that name without a default."""
    parameters = inspect.signature(function).parameters
    empty = inspect.Parameter.empty
    return {n: v for n, v in facts.items() if n in parameters and parameters[n].default is empty}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return get_type_hints(target)
    except (NameError, TypeError):
        return {}


def _wrong_value(annotation: Any, value: Any) -> str | None:
    try:
        adapter = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return None  # a type that only Python can check, such as a tensor
    try:
        # A YAML list stands for any sequence; everything else is taken strictly.
        adapter.validate_python(value, strict=not isinstance(value, list | dict))
    except ValidationError as error:
        first = error.errors()[0]
        law = first["msg"][0].lower() + first["msg"][1:]
        return f"{law.replace('input should', 'the value must')}, but got {value!r}"
    return None
