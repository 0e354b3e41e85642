"""A recipe file to typed data: all mistakes at once, each with its place, law and remedy."""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy.errors import Mistake, RecipeError
from understudy.recipe.lines import Plain, parse, parse_value
from understudy.recipe.salvage import salvage
from understudy.recipe.sections import Recipe
from understudy.recipe.wording import in_our_words, short

Place = tuple[str | int, ...]
_PACKAGE = "package:"
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a recipe came from: what later mistakes need in order to say where they are.

    Attributes:
        name: the file's name as the user wrote it.
        folder: what relative paths in the recipe start from.
        lines: the line of every path.
    """

    name: str = "recipe"
    folder: Path = field(default_factory=Path)
    lines: Mapping[Place, int] = field(default_factory=dict)

    def line(self, path: Place) -> int | None:
        """The line of a path, or of the nearest one above it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path) if path else None

    def place(self, mistake: Mistake) -> Mistake:
        """The mistake with its line."""
        line = mistake.line if mistake.line is not None else self.line(mistake.path)
        return Mistake(path=mistake.path, law=mistake.law, line=line)

    def resolve(self, path: str) -> Path:
        """A path of the recipe, relative to the recipe's own folder.

        `package:NAME/rest` lies in an installed package, which is found and not run.
        """
        if path.startswith(_PACKAGE):
            return in_package(path)
        return Path(os.path.normpath(self.folder / Path(path).expanduser()))


def in_package(path: str) -> Path:
    """Where `package:NAME/rest` is; a path that does not exist where there is no such package."""
    name, _, rest = path.removeprefix(_PACKAGE).partition("/")
    try:
        found = find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        found = None
    homes = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(homes[0]) / rest if homes else Path(path)


class BrokenRecipeError(RecipeError):
    """A recipe with mistakes of form, and what is sound in it: others may look there for more."""

    def __init__(
        self, mistakes: Sequence[Mistake], name: str, *, rest: Recipe | None, place: Source
    ) -> None:
        """Keep the sound rest beside the mistakes."""
        super().__init__(mistakes, name)
        self.rest = rest
        self.place = place


def load(path: Path, settings: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """Read a recipe file, change it by `section.field=value` settings, and check its form.

    Raises:
        RecipeError: every mistake that can be seen without building anything.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        law = f"the recipe {path} cannot be read: {reason}. `understudy init` writes a starter"
        raise RecipeError([Mistake(path=(), law=law)], str(path)) from error
    return loads(text, settings, name=str(path), folder=path.parent)


def loads(
    text: str, settings: Sequence[str] = (), *, name: str = "recipe", folder: Path | None = None
) -> tuple[Recipe, Source]:
    """As `load`, from text."""
    data, lines, mistakes = parse(text)
    source = Source(name=name, folder=folder or Path(), lines=lines)
    if not mistakes and not isinstance(data, dict):
        law = f"a recipe must be a mapping of sections, but got {short(data)}"
        mistakes.append(Mistake(path=(), law=law, line=1))
    if mistakes and (not data or not isinstance(data, dict)):
        raise RecipeError(mistakes, name)
    for setting in settings:
        data, more = _changed(data, setting)
        mistakes.extend(more)
    data = _expand(data, (), mistakes)
    recipe, more = validate(data)
    mistakes.extend(more)
    if mistakes or recipe is None:
        placed = [source.place(m) for m in mistakes]
        raise BrokenRecipeError(placed, name, rest=salvage(data, mistakes), place=source)
    return recipe, source


def validate(data: Any) -> tuple[Recipe | None, list[Mistake]]:
    """Plain data to a recipe, or the mistakes in it."""
    try:
        return Recipe.model_validate(data), []
    except ValidationError as error:
        return None, in_our_words(error, data)


def _changed(data: dict[str, Any], setting: str) -> tuple[dict[str, Any], list[Mistake]]:
    """The data with one `a.b.0.c=value` written into it, or as it was where that cannot be."""
    changed = copy.deepcopy(data)
    mistakes = _apply(changed, setting)
    return (data if mistakes else changed), mistakes


def _apply(data: dict[str, Any], setting: str) -> list[Mistake]:
    key, equals, value = setting.partition("=")
    parts = [
        int(p) if p.isdecimal() else p for p in key.replace("[", ".").replace("]", "").split(".")
    ]
    if not equals or "" in parts:
        law = f"a setting is `section.field=value`, but got {setting!r}"
        return [Mistake(path=("--set",), law=law)]
    here: Any = data
    for part, after in pairwise(parts):
        if isinstance(here, dict) and here.get(str(part)) is None:
            here[str(part)] = [] if isinstance(after, int) else {}
        if isinstance(here, list) and isinstance(part, int) and part == len(here):
            here.append({})
        try:
            here = here[part if isinstance(here, list) else str(part)]
        except (IndexError, TypeError, KeyError):
            law = f"`--set {setting}` names a place that the recipe does not have ({part!r})"
            return [Mistake(path=tuple(parts), law=law)]
    return _put(here, parts, parse_value(value), setting)


def _put(here: Any, parts: list[str | int], value: Any, setting: str) -> list[Mistake]:
    last = parts[-1]
    if isinstance(here, dict):
        here[str(last)] = value
    elif isinstance(here, list) and isinstance(last, int) and last <= len(here):
        here[last : last + 1] = [value]
    else:
        law = f"`--set {setting}` names a place that the recipe does not have ({last!r})"
        return [Mistake(path=tuple(parts), law=law)]
    return []


def _expand(value: Any, path: Place, mistakes: list[Mistake]) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in texts by the environment's values.

    A variable that stands alone and without quotes may be a number, true, false or null.
    """
    if isinstance(value, dict):
        return {k: _expand(v, (*path, k), mistakes) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, (*path, i), mistakes) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name) or default
        if found is None:
            law = (
                f"`${{{name}}}` needs the environment variable {name}, which is not set or empty: "
                f"export it, or write `${{{name}:-default}}`"
            )
            mistakes.append(Mistake(path=path, law=law))
        return found or ""

    text = str(VARIABLE.sub(fill, value))
    if isinstance(value, Plain) and VARIABLE.fullmatch(value):
        read = parse_value(text)
        return read if read is None or isinstance(read, int | float) else text
    return text
