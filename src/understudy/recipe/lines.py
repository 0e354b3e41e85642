"""YAML text to plain data, with the line of every key: what lets a mistake say where it is."""

import re
from typing import Any

import yaml

from understudy.errors import Mistake

Path = tuple[str | int, ...]

_MERGE = "tag:yaml.org,2002:merge"
_KEPT = (_MERGE, "tag:yaml.org,2002:null")
NUMBER = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|nan))$"),
    list("-+0123456789."),
)


class Plain(str):
    """A text that stood without quotes: what replaces a variable in it may be a number."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Safe YAML with scalars as in YAML 1.2: `1e-3` is a number; `on`, `no`, `12:30` are texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False|TRUE|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(*NUMBER)


def parse(text: str) -> tuple[Any, dict[Path, int], list[Mistake]]:
    """Plain data, the 1-based line of every path, and the mistakes that YAML itself can see."""
    lines: dict[Path, int] = {}
    mistakes: list[Mistake] = []
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, {(): 1}, []
            data = _walk(loader, node, (), lines, mistakes)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        problem = problem.removeprefix("but ")
        law = f"this must be YAML, but {problem}: check the indentation, colons and quotes here"
        return {}, lines, [Mistake(path=(), law=law, line=mark.line + 1 if mark else None)]
    except RecursionError:
        law = "an anchor (`&name`) must not hold itself (`*name`), but one here does"
        return {}, lines, [Mistake(path=(), law=law)]
    return data, lines, mistakes


def parse_value(text: str) -> Any:
    """One value as it would be read in a recipe (`--set a.b=0.1`)."""
    if not text.strip():
        return None
    data, _, mistakes = parse(text)
    return text if mistakes or (data == {} and "{" not in text) else data


def _walk(
    loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int], mistakes: list[Mistake]
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_walk(loader, n, (*path, i), lines, mistakes) for i, n in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(loader, node, path, mistakes)
    result: dict[str, Any] = {}
    for key, (key_node, value_node) in _items(loader, node, path, mistakes).items():
        lines[(*path, key)] = key_node.start_mark.line + 1
        result[key] = _walk(loader, value_node, (*path, key), lines, mistakes)
    return result


def _items(
    loader: _Loader, node: yaml.MappingNode, path: Path, mistakes: list[Mistake]
) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """A mapping's keys, merged ones (`<<`) included: its own stand before these, and once."""
    own: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = _key(loader, key_node)
        if key in own:
            law = f"a key stands once, but `{key}` stands again here: remove one of the two"
            line = key_node.start_mark.line + 1
            mistakes.append(Mistake(path=(*path, key), law=law, line=line))
        own.add(key)
    loader.flatten_mapping(node)
    items = {_key(loader, pair[0]): pair for pair in node.value}
    # A mapping that an alias repeats comes by again, and is flat then.
    node.value = list(items.values())
    return items


def _key(loader: _Loader, node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    return str(loader.construct_object(node, deep=True))


def _scalar(loader: _Loader, node: yaml.Node, path: Path, mistakes: list[Mistake]) -> Any:
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, KeyError):
        law = f"`{node.value}` is not what its tag `{node.tag}` says: remove the tag"
        mistakes.append(Mistake(path=path, law=law, line=node.start_mark.line + 1))
        return None
    plain = isinstance(value, str) and isinstance(node, yaml.ScalarNode) and node.style is None
    return Plain(value) if plain else value
