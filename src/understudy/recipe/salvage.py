"""What is sound in a recipe with mistakes, so that its other mistakes can be told at once too."""

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from understudy.errors import Mistake
from understudy.recipe.sections import Recipe

# What stands for a part whose own form is broken. Mistakes inside it are not told.
_STAND_IN = {
    "teacher": {"model": {"kind": "mlp", "hidden": [1]}, "training": {}},
    "student": {"model": {"kind": "mlp", "hidden": [1]}},
}
# Likewise for an entry of a list, whose other entries must stay where the file has them.
_ENTRIES: dict[str, Any] = {
    "steps": {"kind": "distil"},
    "from_teacher": {"kind": "depth", "keep": 1.0},
    "cuts": {"kind": "depth", "keep": 1.0},
}
_ROUNDS = 50


def salvage(data: Any, mistakes: Sequence[Mistake]) -> Recipe | None:
    """The recipe without its broken parts, defaults in their place; None if nothing is left.

    Args:
        data: as it was written; not changed.
        mistakes: what the form check found in it.
    """
    if not isinstance(data, dict):
        return None
    rest = copy.deepcopy(data)
    for mistake in mistakes:
        _remove(rest, mistake.path)
    for _ in range(_ROUNDS):
        for section, stand_in in _STAND_IN.items():
            rest.setdefault(section, copy.deepcopy(stand_in))
        try:
            return Recipe.model_validate(rest)
        except ValidationError as error:
            for item in error.errors():
                _remove(rest, item["loc"])
    return None


def _remove(data: Any, path: Sequence[str | int]) -> None:
    """Take out what a path names, or the nearest thing above it that is there."""
    trail: list[tuple[Any, Any]] = []
    here = data
    for part in path:
        if not isinstance(here, dict | list):  # a text has places too, but nothing to take out
            break
        try:
            inside = here[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            break
        trail.append((here, part))
        here = inside
    if not trail:
        return
    parent, part = trail[-1]
    name = trail[-2][1] if len(trail) > 1 else None
    if isinstance(parent, list) and name in _ENTRIES:
        parent[part] = copy.deepcopy(_ENTRIES[name])
        return
    del parent[part]
