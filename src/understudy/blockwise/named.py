"""Blocks that begin at the modules which the user names."""

from collections.abc import Sequence
from itertools import pairwise

from understudy.blockwise.form import near
from understudy.blockwise.links import Walk, following, joints
from understudy.errors import ModelError
from understudy.students.blocks.removal import members, parent_of


def named_runs(walk: Walk, names: Sequence[str]) -> list[list[str]]:
    """The modules of each block: from a named one up to, not including, the next.

    The last block goes on as long as the modules beside its first one follow each other.

    Raises:
        ModelError: a name is unknown or given twice, its module does not run just once, one is
            inside another, or something other than a module stands between two of them.
    """
    if not names or len(set(names)) < len(names):
        raise ModelError(
            f"name the first module of each block, each once, but got {list(names)}: see "
            "`named_modules()`"
        )
    for name in names:
        _check(walk, name, names)
    # In the order in which they run, whatever the order in which they were named.
    order = [path for path in walk.runs if path in set(names)]
    runs = []
    for name, after in pairwise(order):
        way = joints(walk, name, after)
        if way is None:
            raise ModelError(
                f"`{name}` and `{after}` do not begin neighbouring blocks: something other than a "
                f"module stands between them, behind `{_reach(walk, name, after)}`; name the first "
                "modules inside that, or divide what "
                "`understudy.blockwise.traced.as_chain(network, rows)` makes of the network"
            )
        runs.append([name, *way])
    return [*runs, _last(walk, order[-1])]


def _check(walk: Walk, name: str, names: Sequence[str]) -> None:
    if name not in walk.runs:
        known = [path for path in walk.runs if path]
        raise ModelError(
            f"no module `{name}` runs just once in a forward pass: {near(name, known)}"
        )
    inside = [other for other in names if other.startswith(f"{name}.")]
    if inside or not name:
        raise ModelError(
            f"no block may be inside another, but `{inside[0] if inside else names[0]}` is inside "
            f"`{name}`: name the one or the other"
        )


def _reach(walk: Walk, name: str, goal: str) -> str:
    """The last module that the stream goes through on its way."""
    path, seen = name, {name}
    while (next_path := following(walk, path, around=goal)) is not None and next_path not in seen:
        path = next_path
        seen.add(path)
    return path


def _last(walk: Walk, name: str) -> list[str]:
    found = [name]
    while (path := following(walk, found[-1])) is not None and path not in found:
        if parent_of(path) != parent_of(name):
            break
        found.append(path)
    # Nothing in the chain follows, but its own activation does, in the sequence that it is in.
    return found if len(found) > 1 else members(walk.network, name)
