"""A student as deep as its teacher whose blocks share their weights, group by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.students.blocks.chain import answer_of, chain_of, look
from understudy.students.blocks.removal import parent_of
from understudy.students.blocks.surgery import copied, structure
from understudy.students.wanted import check_whole

# Layers whose weights are matrices or kernels, also where these have but one row or one place.
_LAYERS = (
    nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase,
    nn.RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip

By = Literal["mean", "representative"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingPlan:
    """Which blocks of a network share their weights.

    Attributes:
        groups: paths in the network, group by group, in the order in which they run.
        by: what a group starts from: the mean of its members' weights, or one member's.
        representatives: for each group which of its members, from 0; empty for the mean.
    """

    groups: tuple[tuple[str, ...], ...]
    by: By
    representatives: tuple[int, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        return {
            "kind": "sharing",
            "groups": [list(group) for group in self.groups],
            "by": self.by,
            "representatives": list(self.representatives),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "SharingPlan":
        """The plan that `to_data` wrote.

        Raises:
            ModelError: it is none.
        """
        try:
            if data["kind"] != "sharing" or data["by"] not in ("mean", "representative"):
                raise ValueError("kind")
            by: By = "mean" if data["by"] == "mean" else "representative"
            groups = tuple(tuple(str(path) for path in group) for group in data["groups"])
            chosen = tuple(int(place) for place in data["representatives"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"this is no plan of a sharing cut ({error!r} is missing or wrong): plan it again"
            ) from error
        return cls(groups=groups, by=by, representatives=chosen)

    def lines(self) -> list[str]:
        """Which blocks share, and what they start from, for people."""
        blocks = sum(map(len, self.groups))
        lines = [f"shares the weights of {blocks} blocks in {len(self.groups)} groups"]
        for place, group in enumerate(self.groups):
            if len(group) == 1:
                lines.append(f"{group[0]} by itself")
            elif self.representatives:
                lines.append(f"{', '.join(group)} from {group[self.representatives[place]]}")
            else:
                lines.append(f"{', '.join(group)} from their mean")
        return lines


def plan_sharing(
    network: nn.Module,
    rows: Tensor,
    *,
    groups: int,
    by: By = "mean",
    batch_size: int = 64,
) -> SharingPlan:
    """Choose which blocks of a network share their weights.

    Consecutive blocks of one stage whose weights have the same shapes form groups, as even in
    size as can be. The best representative of a group is the member whose weights, used by the
    whole group, change the network's answers to the rows least, in mean squares.

    Args:
        network: it is not changed.
        rows: two rows or more that it takes; `representative` is chosen on all of them.
        groups: how many groups there are in all.
        by: what a group starts from.
        batch_size: how many rows run at once.

    Raises:
        ModelError: no such groups can be made; what can is said.

    Paper:
        Lan et al. 2020, "ALBERT", section 3.1 (cross-layer parameter sharing). There the weights
        of all layers are one set; here every position keeps its own normalisation.

    Example:
        >>> from understudy.models import CifarResNet
        >>> network = CifarResNet(channels=1, width=2, depth=20, base=2)
        >>> plan_sharing(network, torch.zeros(2, 1, 8, 8), groups=5).lines()[0]
        'shares the weights of 9 blocks in 5 groups'
    """
    if by not in get_args(By):
        raise ModelError(f"`by` must be one of {', '.join(get_args(By))}, but got {by}")
    check_whole("groups", groups, usual=2)
    alike = _alike(network, chain_of(network, look(network, rows)))
    total = sum(map(len, alike))
    if total == len(alike):
        raise ModelError(
            f"no two consecutive blocks of {type(network).__name__} have weights of the same "
            "shapes, so none can share: leave this cut out"
        )
    if not len(alike) <= groups < total:
        raise ModelError(
            f"`{len(alike)} <= groups < {total}` must hold, as {total} blocks are of "
            f"{len(alike)} consecutive kinds that cannot share with each other, but got {groups=}"
        )
    parts = [1] * len(alike)
    while sum(parts) < groups:
        fullest = max(range(len(alike)), key=lambda i: len(alike[i]) / parts[i])
        parts[fullest] += 1
    split = tuple(
        group for kind, count in zip(alike, parts, strict=True) for group in _split(kind, count)
    )
    _check_free(network, split)
    if by == "mean":
        return SharingPlan(groups=split, by=by)
    goal = _answers(network, rows, batch_size)
    if not goal.isfinite().all():
        raise ModelError(
            "a representative is chosen by the answers to the rows, which must be finite, but some "
            "are not: leave such rows out"
        )
    chosen = tuple(_representative(network, rows, group, goal, batch_size) for group in split)
    return SharingPlan(groups=split, by=by, representatives=chosen)


def cut_sharing(network: nn.Module, plan: SharingPlan, rows: Tensor) -> Student:
    """A copy of the network in which the blocks of a group have the very same parameters.

    What is shared are the weights and biases of layers. Every position keeps its module, with its
    own normalisation (weights and running statistics), its own single numbers per channel, and
    its own place in a cache of keys and values. So features are read, and the
    teacher's are compared, position by position, and `parameters()` counts what is shared once.

    `provenance` maps every position to itself.

    Args:
        network: it is not changed.
        plan: of `plan_sharing` for this network or one of the same architecture.
        rows: two rows or more that it takes, for a dry run.

    Raises:
        ModelError: the plan is for another network.
    """
    chain = chain_of(network, look(network, rows))
    paths = [path for group in plan.groups for path in group]
    if sorted(paths) != sorted(chain) or not _fits(network, plan):
        raise ModelError(
            f"the plan must name each block of {type(network).__name__} once, {', '.join(chain)}, "
            f"and put such of equal shapes together, but names {', '.join(paths)}: plan the cut "
            "for this network"
        )
    _check_free(network, plan.groups)
    module = copied(network)
    for place, group in enumerate(plan.groups):
        _share(module, group, plan.representatives[place] if plan.by != "mean" else None)
    answer_of(module, rows[:2])
    return Student(module=module, provenance={path: path for path in chain})


def _shapes(block: nn.Module) -> tuple[Any, ...]:
    named = [(name, tuple(value.shape)) for name, value in block.named_parameters()]
    return type(block), tuple(named), tuple(_shared_names(block))


def _alike(network: nn.Module, chain: Sequence[str]) -> list[list[str]]:
    """Runs of consecutive blocks of one container with weights of the same shapes."""
    runs = groupby(chain, key=lambda p: (parent_of(p), _shapes(network.get_submodule(p))))
    return [list(paths) for _, paths in runs]


def _split(kind: Sequence[str], count: int) -> list[tuple[str, ...]]:
    ends = [-(-i * len(kind) // count) for i in range(count + 1)]
    return [tuple(kind[start:end]) for start, end in pairwise(ends)]


def _fits(network: nn.Module, plan: SharingPlan) -> bool:
    sizes = [len(group) for group in plan.groups]
    if plan.by != "mean":
        if len(plan.representatives) != len(sizes):
            return False
        if any(not 0 <= i < size for i, size in zip(plan.representatives, sizes, strict=True)):
            return False
    return all(
        len({_shapes(network.get_submodule(path)) for path in group}) == 1 for group in plan.groups
    )


def _shared_names(block: nn.Module) -> list[str]:
    """The parameters of layers, with a matrix or a kernel among theirs; not of normalisations.

    Nor numbers per channel in a form that others are multiplied by, such as `[channels, 1, 1]`.
    """
    found = []
    for path, module in block.named_modules():
        own = list(module.named_parameters(recurse=False))
        if not isinstance(module, _LAYERS):
            if not any(_is_matrix(value) for _, value in own):
                continue
            own = [(name, value) for name, value in own if value.ndim < 2 or _is_matrix(value)]
        found += [f"{path}.{name}" if path else name for name, _ in own]
    return found


def _is_matrix(value: Tensor) -> bool:
    return sum(size > 1 for size in value.shape) > 1


def _check_free(network: nn.Module, groups: Sequence[Sequence[str]]) -> None:
    everything = list(network.named_parameters(remove_duplicate=False))
    for group in groups:
        if len(group) == 1:
            continue
        blocks = [(path, network.get_submodule(path)) for path in group]
        own = {id(block.get_parameter(n)) for _, block in blocks for n in _shared_names(block)}
        tied = [
            name
            for name, value in everything
            if id(value) in own and not any(name.startswith(f"{path}.") for path in group)
        ]
        if tied:
            raise ModelError(
                f"{', '.join(group)} have weights that {', '.join(tied)} has too, so sharing would "
                "untie them: leave this cut out"
            )


def _share(network: nn.Module, group: Sequence[str], representative: int | None) -> None:
    """Give the blocks of a group the same parameters, in place."""
    blocks = [network.get_submodule(path) for path in group]
    if len(blocks) == 1:
        return
    for name in _shared_names(blocks[0]):
        members = [block.get_parameter(name) for block in blocks]
        if representative is None:
            mean = torch.stack([value.detach().double() for value in members]).mean(dim=0)
            made = mean.to(members[0].dtype)
        else:
            made = members[representative].detach().clone()
        parameter = nn.Parameter(made, requires_grad=members[0].requires_grad)
        path, _, last = name.rpartition(".")
        for block in blocks:
            setattr(block.get_submodule(path), last, parameter)


def _representative(
    network: nn.Module, rows: Tensor, group: Sequence[str], goal: Tensor, batch_size: int
) -> int:
    def change(place: int) -> float:
        tried = structure(network)
        _share(tried, group, place)
        return float((_answers(tried, rows, batch_size) - goal).square().mean())

    return 0 if len(group) == 1 else min(range(len(group)), key=change)


def _answers(network: nn.Module, rows: Tensor, batch_size: int) -> Tensor:
    return torch.cat([answer_of(network, chunk).float() for chunk in torch.split(rows, batch_size)])
