"""Which blocks of a chain stay, when some must."""

import math
import random
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Literal, get_args

from understudy.errors import ModelError
from understudy.students.blocks.surgery import Unit
from understudy.students.wanted import check_number, is_whole

By = Literal["evenly", "first", "last", "random"]


def chosen(
    chain: Sequence[Unit],
    keep: int | float | Sequence[int],
    *,
    by: By | Mapping[str, float],
    seed: int,
) -> set[str]:
    """The paths of the blocks that stay, with all those that cannot go.

    Args:
        chain: all blocks, in the order in which they run.
        keep: how many, which share of all, or the positions themselves.
        by: which of those that can go; or how important they are, by path.
        seed: what `random` draws from.

    Raises:
        ModelError: there is no such choice.
    """
    bound = [unit.path for unit in chain if not unit.removable]
    free = [unit.path for unit in chain if unit.removable]
    if isinstance(keep, Sequence) and not isinstance(keep, str):
        return _named(chain, keep, bound)
    count = _count(keep, len(chain), len(bound)) - len(bound)
    if isinstance(by, Mapping):
        return {*bound, *_best(free, by, count)}
    if by not in get_args(By):
        raise ModelError(f"`by` must be one of {', '.join(get_args(By))}, but got {by}")
    if by == "evenly":
        return _evenly(chain, count + len(bound))
    if by == "random":
        return {*bound, *random.Random(seed).sample(free, count)}
    return {*bound, *(free[:count] if by == "first" else free[len(free) - count :])}


def _count(keep: int | float, total: int, bound: int) -> int:
    check_number("keep", keep, usual=0.5)
    if isinstance(keep, Real) and not isinstance(keep, Integral):
        if not 0 < keep <= 1:
            raise ModelError(
                f"`0 < keep <= 1` must hold for a share of the blocks, but got {keep=}: use 0.5 "
                f"for half, or a whole number, 1 to {total}"
            )
        keep = max(1, math.floor(keep * total + 0.5))
    if not 1 <= keep <= total:
        raise ModelError(
            f"`1 <= keep <= {total}` must hold, as there are {total} blocks, but got {keep=}"
        )
    if bound == total and keep < total:
        raise ModelError(
            f"none of the {total} blocks can go, as each changes the shape of what it is given, "
            f"or the network does not run without it, but got {keep=}: leave this cut out"
        )
    if keep < bound:
        raise ModelError(
            f"`keep >= {bound}` must hold, as {bound} of the {total} blocks change the shape of "
            f"what goes through them, or the network does not run without them, but got {keep=}: "
            f"keep {bound} or more"
        )
    return int(keep)


def _named(chain: Sequence[Unit], keep: Sequence[int], bound: Sequence[str]) -> set[str]:
    total = len(chain)
    known = all(is_whole(place) and 0 <= place < total for place in keep)
    if not keep or not known or len(set(keep)) < len(keep):
        raise ModelError(
            f"positions to keep must be different ones of 0 to {total - 1}, but got "
            f"keep={list(keep)}"
        )
    found = {chain[place].path for place in keep}
    if missing := [path for path in bound if path not in found]:
        places = [place for place, unit in enumerate(chain) if unit.path in missing]
        raise ModelError(
            f"{', '.join(missing)} must stay, as they change the shape of what goes through them, "
            f"or the network does not run without them: add {places} to keep={list(keep)}"
        )
    return found


def _best(free: Sequence[str], scores: Mapping[str, float], count: int) -> list[str]:
    if missing := [path for path in free if not math.isfinite(scores.get(path, math.nan))]:
        raise ModelError(
            f"every block that can go must have a finite importance, but {', '.join(missing)} "
            "have none: measure them all"
        )
    return sorted(free, key=lambda path: -scores[path])[:count]


def _evenly(chain: Sequence[Unit], count: int) -> set[str]:
    stages: dict[int, list[Unit]] = {}
    for unit in chain:
        stages.setdefault(unit.stage, []).append(unit)
    share = {stage: count * len(blocks) / len(chain) for stage, blocks in stages.items()}
    given = {stage: sum(not unit.removable for unit in blocks) for stage, blocks in stages.items()}
    while sum(given.values()) < count:
        open_ones = [stage for stage, blocks in stages.items() if given[stage] < len(blocks)]
        poorest = max(open_ones, key=lambda stage: share[stage] - given[stage])
        given[poorest] += 1
    return {path for stage, blocks in stages.items() for path in _spread(blocks, given[stage])}


def _spread(blocks: Sequence[Unit], count: int) -> list[str]:
    """As many of these blocks at even distances, with all those that must stay."""
    if count == 0:
        return []
    step = (len(blocks) - 1) / max(1, count - 1)
    places = {math.floor(i * step + 0.5) for i in range(count)}
    for bound, unit in enumerate(blocks):
        if not unit.removable and bound not in places:
            movable = [place for place in places if blocks[place].removable]
            places.remove(min(movable, key=lambda place: (abs(place - bound), place)))
            places.add(bound)
    return [blocks[place].path for place in places]
