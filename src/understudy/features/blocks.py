"""Finding the repeated blocks of two models, and pairing them, when nobody has named layers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from understudy.errors import ModelError

How = Literal["evenly", "end", "provenance"]
Which = Literal["all", "middle", "last"]


def blocks(network: nn.Module) -> tuple[str, ...]:
    """The paths of a model's repeated blocks, first to last.

    Blocks are sibling modules of one class that have weights: the stages of a residual network,
    the layers of a transformer. Of several such families those of modules made of others come
    before those of single layers, then the outermost counts, then the one with the most weights. A
    model without any has its children for blocks, all but the last, which gives the answer.

    Raises:
        ModelError: there is neither.
    """
    best: tuple[tuple[bool, int, int], tuple[str, ...]] | None = None
    answer = _answer(network)
    for path, parent in network.named_modules():
        for family in _families(parent, answer):
            names = tuple(f"{path}.{name}" if path else name for name in family)
            members = [parent.get_submodule(name) for name in family]
            # A container that holds nothing but the family is as far out as what it stands in.
            alone = bool(path) and len(list(parent.children())) == len(family)
            depth = path.count(".") + bool(path) - alone
            made_of_others = any(True for _ in members[0].children())
            rank = (made_of_others, -depth, sum(_weights(member) for member in members))
            if best is None or rank > best[0]:
                best = rank, names
    if best is not None:
        return tuple(_settled(network, name) for name in best[1])
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


def _families(parent: nn.Module, answer: nn.Module | None) -> list[list[str]]:
    """Children with weights, by class, where there are several of one."""
    found: dict[Any, list[str]] = {}
    if layers := _listed(parent):
        return [layers]
    for name, child in parent.named_children():
        # A list does not run, so nothing can be read there; its items can.
        if not _weights(child) or isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            continue
        single = not any(True for _ in child.children())
        # Everything may be a layer or a sequence of them: the one that answers is no block.
        if (single or type(child) is nn.Sequential) and any(m is answer for m in child.modules()):
            continue
        found.setdefault(_class(child), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def _listed(parent: nn.Module) -> list[str]:
    """The ends of layers that are lists of alike parts, as `[[attention, feed-forward], ...]`."""
    lists = [(name, list(child.named_children())) for name, child in parent.named_children()]
    kinds = {tuple(type(part) for _, part in parts) for _, parts in lists}
    nested = isinstance(parent, nn.ModuleList) and all(type(c) is nn.ModuleList for c in parent)
    if not nested or len(lists) < 2 or len(kinds) > 1 or not all(parts for _, parts in lists):
        return []
    ends = [[part for part, module in parts if _weights(module)][-1:] for _, parts in lists]
    return [f"{name}.{end[0]}" for (name, _), end in zip(lists, ends, strict=True) if end]


def _class(child: nn.Module) -> Any:
    """What a module is: sequences are alike where they are made of the same classes."""
    if type(child) is not nn.Sequential:
        return type(child)
    return nn.Sequential, frozenset(type(m) for m in child.children() if _weights(m))


def _answer(network: nn.Module) -> nn.Module | None:
    """The last layer with weights."""
    layers = [m for m in network.modules() if _weights(m) and not any(True for _ in m.children())]
    return layers[-1] if layers else None


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _settled(network: nn.Module, name: str) -> str:
    """A layer, or the activation behind it where that one writes over what the layer gave."""
    path, _, last = name.rpartition(".")
    parent = network.get_submodule(path)
    names = [child for child, _ in parent.named_children()]
    place = names.index(last) + 1
    if not isinstance(parent, nn.Sequential) or place == len(names):
        return name
    after = names[place]
    if not getattr(parent.get_submodule(after), "inplace", False):
        return name
    return f"{path}.{after}" if path else after
