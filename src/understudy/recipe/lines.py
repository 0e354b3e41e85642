"""YAML text to plain data, with the line of every key: what lets a mistake say where it is."""

import re
from typing import Any

import yaml

from understudy.errors import Mistake

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML with YAML 1.2's scalars: `1e-3` is a number, `on` and `no` are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False|TRUE|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|nan))$"),
    list("-+0123456789."),
)


def parse(text: str) -> tuple[Any, dict[Path, int], list[Mistake]]:
    """Plain data, the 1-based line of every path, and the mistakes that YAML itself can see."""
    lines: dict[Path, int] = {}
    mistakes: list[Mistake] = []
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, {(): 1}, []
        data = _walk(loader, node, (), lines, mistakes)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        law = f"this must be YAML, but {problem}: check the indentation, colons and quotes here"
        return {}, lines, [Mistake(path=(), law=law, line=mark.line + 1 if mark else None)]
    finally:
        loader.dispose()
    return data, lines, mistakes


def parse_value(text: str) -> Any:
    """One value as it would be read in a recipe (`--set a.b=0.1`)."""
    data, _, mistakes = parse(text)
    return text if mistakes else (None if data == {} and not text.strip() else data)


def _walk(
    loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int], mistakes: list[Mistake]
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_walk(loader, n, (*path, i), lines, mistakes) for i, n in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        line = key_node.start_mark.line + 1
        if key in result:
            law = f"a key stands once, but `{key}` stands again here: remove one of the two"
            mistakes.append(Mistake(path=(*path, key), law=law, line=line))
        lines[(*path, key)] = line
        result[key] = _walk(loader, value_node, (*path, key), lines, mistakes)
    return result
