"""Pydantic's errors in the words of a recipe's reader, each at the place that the file has."""

import re
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from understudy.errors import Mistake, did_you_mean
from understudy.recipe.sections import Recipe

Place = tuple[str | int, ...]
# What other tools call the same thing.
SYNONYMS = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "optim": "optimizer",
    "scheduler": "schedule",
    "warmup": "warm_up",
    "gamma": "factor",
    "grad_clip": "gradient_clip",
    "dataset": "data",
    "val": "validation",
    "loss": "objective",
    "losses": "objective",
}
# Pydantic's words for what a recipe's reader calls otherwise.
WORDING = (
    (re.compile(r"a valid dictionary or instance of \w+"), "a mapping"),
    (re.compile(r"a valid (dictionary|mapping)"), "a mapping"),
    (re.compile(r"a valid (tuple|list|array)"), "a list"),
    (re.compile(r"^tuple should have at least (\d+) items? after validation, not \d+"),
     r"the list must have at least \1 entry"),
)  # fmt: skip


def in_our_words(error: ValidationError, data: Any) -> list[Mistake]:
    """The mistakes that pydantic found in plain data."""
    return _merged([_mistake(item, data) for item in error.errors()])


def _merged(mistakes: list[Mistake]) -> list[Mistake]:
    """One mistake per place: the branches of a union say `a, or b`, not two things.

    A place that holds a wrong one is left out: pydantic only repeats there what is wrong inside.
    """
    by_path: dict[Place, list[str]] = {}
    for mistake in mistakes:
        by_path.setdefault(mistake.path, []).append(mistake.law)
    above = {path[:depth] for path in by_path for depth in range(len(path))}
    return [
        Mistake(
            path=path,
            law=", or ".join([law.rpartition(", but got ")[0] for law in laws[:-1]] + laws[-1:]),
        )
        for path, laws in by_path.items()
        if path not in above
    ]


def _mistake(item: Any, data: Any) -> Mistake:
    """One pydantic error in our words."""
    kind, given = item["type"], item.get("input")
    path = _real_path(item["loc"], data, missing=kind == "missing")
    if kind == "extra_forbidden":
        word = str(path[-1])
        return Mistake(path=path, law=f"unknown key `{word}`: {_suggestion(word, path[:-1], data)}")
    if kind == "missing":
        return Mistake(path=path, law=f"`{path[-1]}` is required and missing here")
    if kind == "value_error":
        return Mistake(path=path, law=str(item["ctx"]["error"]))
    law = item["msg"][0].lower() + item["msg"][1:]
    law = law.replace("input should", "the value must")
    for pattern, ours in WORDING:
        law = pattern.sub(ours, law)
    return Mistake(path=path, law=f"{law}, but got {short(given)}{_hint(kind, given)}")


def _suggestion(word: str, section: Place, data: Any) -> str:
    """What an unknown key may have been meant to be, here or one section further down."""
    known = _known_keys(section, data)
    if word in known:
        return (
            "it belongs to another form of this section than the keys beside it: keep those of one"
        )
    meant = SYNONYMS.get(word, word)
    if meant != word and meant in known:
        return f"did you mean `{meant}`? known: {', '.join(sorted(known))}"
    hint = did_you_mean(word, known)
    inside = [key for key in known if meant in _known_keys((*section, key), data)]
    if inside and not hint.startswith("did you mean"):
        hint = f"did you mean `{inside[0]}.{meant}`? {hint}"
    return hint


def short(value: Any) -> str:
    """A value as it is shown in a mistake, cut where it is long."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _hint(kind: str, given: Any) -> str:
    number = isinstance(given, str) and re.fullmatch(r"[-+.\deE]+", given)
    return ": remove the quotes" if number and kind.endswith("_type") else ""


def _real_path(loc: tuple[str | int, ...], data: Any, *, missing: bool) -> Place:
    """Pydantic's location without the names of union branches, which no file contains."""
    path: list[str | int] = []
    here = data
    branch = False
    for position, part in enumerate(loc):
        # Of parts that are told apart by `kind`, that comes first; a key may be called the same.
        if not branch and isinstance(here, dict) and here.get("kind") == part:
            branch = True
            continue
        branch = False
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            # A key that is missing is the last part of a mapping's path; the rest are branch names.
            if position < len(loc) - 1 or not missing:
                continue
        path.append(part)
    return tuple(path)


def _known_keys(path: Place, data: Any) -> list[str]:
    """The keys that a section knows, found by walking the typed model beside the data."""
    models: list[Any] = [Recipe]
    here = data
    for part in path:
        here = _inside(here, part)
        if not isinstance(part, int):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [model for field in fields for model in _models_in(field.annotation)]
        if isinstance(here, dict):
            models = _of_kind(models, here.get("kind"))
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _inside(here: Any, part: str | int) -> Any:
    try:
        return here[part]
    except (KeyError, IndexError, TypeError):
        return None


def _of_kind(models: list[Any], kind: Any) -> list[Any]:
    """Those of several models that are told apart by `kind` that a mapping is of."""
    several = [m for m in models if "kind" in m.model_fields]
    if len(several) < 2 or len(several) < len(models):
        return models
    if kind is None:  # the first one is what a mapping without a kind is
        return several[:1]
    return [m for m in several if kind in get_args(m.model_fields["kind"].annotation)] or models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, tuple, Annotated, list):
        return [m for a in get_args(annotation) for m in _models_in(a)]
    return []
