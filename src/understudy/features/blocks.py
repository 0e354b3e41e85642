"""Finding the repeated blocks of two models, and pairing them, when nobody has named layers."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from understudy.errors import ModelError

How = Literal["evenly", "end", "provenance"]
Which = Literal["all", "middle", "last"]


def blocks(network: nn.Module) -> tuple[str, ...]:
    """The paths of a model's repeated blocks, first to last.

    Blocks are sibling modules of one class that have weights: the stages of a residual network,
    the layers of a transformer. Of several such families the outermost counts, and of those the
    one with the most weights. A model without any has its children for blocks, all but the last,
    which gives the answer.

    Raises:
        ModelError: there is neither.
    """
    best: tuple[tuple[int, int], tuple[str, ...]] | None = None
    for path, parent in network.named_modules():
        for family in _families(parent):
            names = tuple(f"{path}.{name}" if path else name for name in family)
            weights = sum(_weights(parent.get_submodule(name)) for name in family)
            rank = (-path.count(".") - bool(path), weights)
            # A container that holds nothing but the family is as far out as what it stands in.
            if len(list(parent.children())) == len(family) and path:
                rank = (rank[0] + 1, weights)
            if best is None or rank > best[0]:
                best = rank, names
    if best is not None:
        return best[1]
    whole = [name for name, child in network.named_children() if _weights(child)]
    if len(whole) < 2:
        raise ModelError(
            f"{type(network).__name__} has no repeated blocks to pair: name the layers, "
            "`layers: {student: PATH, teacher: PATH}`"
        )
    return tuple(whole[:-1])


def pair(
    student: Sequence[str],
    teacher: Sequence[str],
    *,
    how: How = "evenly",
    which: Which = "all",
    provenance: Mapping[str, str] | None = None,
) -> tuple[tuple[str, str], ...]:
    """Which block of the student is compared with which of the teacher.

    `evenly` spreads the shorter list over the longer one and ends with both last blocks
    (TinyBERT's uniform strategy); `end` takes the last ones; `provenance` follows where the
    student's blocks were cut from.

    Args:
        student: paths of its blocks, in order.
        teacher: paths of its blocks, in order.
        how: see above.
        which: all pairs, the middle one (FitNets), or the last.
        provenance: the student's block paths to the teacher's.

    Raises:
        ModelError: there is nothing to pair, or no provenance to follow.

    Paper:
        Jiao et al. 2020, "TinyBERT", section 3.1 (the mapping function g(m)); Romero et al. 2015,
        "FitNets", section 2.2 (the middle layers).
    """
    if how == "provenance":
        pairs = tuple((own, goal) for own, goal in (provenance or {}).items())
        if not pairs:
            raise ModelError(
                "this student was not cut from its teacher, so no block remembers where it came "
                "from: pair `evenly`, or from the `end`"
            )
    else:
        count = min(len(student), len(teacher))
        if not count:
            raise ModelError("there are no blocks to pair in one of the two models")
        own, goal = (_picked(names, count, how) for names in (student, teacher))
        pairs = tuple(zip(own, goal, strict=True))
    if which == "last":
        return pairs[-1:]
    return (pairs[(len(pairs) - 1) // 2],) if which == "middle" else pairs


def _picked(names: Sequence[str], count: int, how: How) -> list[str]:
    if how == "end":
        return list(names[len(names) - count :])
    return [names[(i + 1) * len(names) // count - 1] for i in range(count)]


def _families(parent: nn.Module) -> list[list[str]]:
    """Children with weights, by class, where there are several of one."""
    found: dict[type, list[str]] = {}
    for name, child in parent.named_children():
        # A list does not run, so nothing can be read there; its items can.
        if _weights(child) and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            found.setdefault(type(child), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
