"""Students for groups of classes: what does no harm inside a group may be cut away for it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from understudy.blockwise.assembling import Spot, menu, stitched
from understudy.blockwise.family import Budget, Member, Modules
from understudy.blockwise.groups import divided
from understudy.blockwise.lessons import Index
from understudy.blockwise.program import Number
from understudy.blockwise.recombine import SECONDS, choose
from understudy.blockwise.scores import damages
from understudy.blockwise.words import Candidate, Partition
from understudy.contracts import Progress, Silent
from understudy.errors import DataError, ModelError
from understudy.students.blocks.chain import answer_of
from understudy.students.heads import head_spot


def specialists(
    network: nn.Module,
    partition: Partition,
    modules: Modules,
    offered: Mapping[str, Sequence[Candidate]],
    groups: Sequence[Sequence[int]],
    budgets: Budget | Sequence[Budget],
    rows: Tensor,
    told: Index,
    *,
    head: str | None = None,
    memory: Mapping[Spot, Number] | None = None,
    batch_size: int = 64,
    seconds: Number = SECONDS,
    progress: Progress | None = None,
) -> tuple[Member, ...]:
    """A student for each group of classes, from the candidates that were taught for all classes.

    Damage is measured anew, on the group's rows and as KL of the distribution within the group,
    and the choice is made under the group's own budget. Nothing is trained.

    Args:
        network: answers logits `[rows, classes]`; it is not changed.
        partition: of this network, its last layer outside all blocks.
        modules: the taught candidates by block and label.
        offered: by block its candidates, itself among them.
        groups: of classes, each class in one.
        budgets: for every specialist, or one for each.
        rows: for validation, as the network takes them; two or more of every group.
        told: the class of each of them: its label, or the teacher's first choice.
        head: the path of the last linear layer; None: it is found.
        memory: as of `menu`.
        batch_size: the most rows at once.
        seconds: of the solver for each specialist.
        progress: where it shows itself.

    Returns:
        One for each group, named `specialist_0` and so on.

    Raises:
        ModelError: the groups do not divide the classes, the head cannot be cut, or no combination
            meets a budget.
        DataError: a group has fewer than two rows.
    """
    shown = progress or Silent()
    path = head_spot(network, rows[:2]).removesuffix(":input") if head is None else head
    classes = _head(network, path).out_features
    found = divided(groups, classes)
    each = [budgets] * len(found) if isinstance(budgets, Mapping) else list(budgets)
    if len(each) != len(found):
        raise ModelError(
            f"one budget, or one for each of {len(found)} groups is needed, but got {len(each)}"
        )
    members = []
    with shown.track("specialists", len(found), "groups") as tracker:
        for number, (group, budget) in enumerate(zip(found, each, strict=True)):
            own = rows[torch.from_numpy(np.flatnonzero(np.isin(told, list(group))))]
            name = f"specialist_{number}"
            if len(own) < 2:
                raise DataError(
                    f"`{name}` needs two rows or more of classes {list(group)}, but there are "
                    f"{len(own)}: give more rows, or join the group with another"
                )
            small = head_cut(network, own, group, head=path)
            parts = _for_head(partition, path, _head(network, path), len(group))
            wrong = damages(small, parts, modules, own, output="logits", batch_size=batch_size)
            dishes = menu(small, parts, offered, wrong, memory=memory)
            try:
                choice = choose(dishes, budget, seconds=seconds)
            except ModelError as error:
                raise ModelError(f"`{name}`: {error}") from error
            made = stitched(small, parts, modules, choice.labels)
            members.append(
                Member(name=name, budget=dict(budget), choice=choice, network=made, group=group)
            )
            tracker(number + 1, name)
    return tuple(members)


def head_cut(
    network: nn.Module, rows: Tensor, group: Sequence[int], *, head: str | None = None
) -> nn.Module:
    """A copy of a network that answers for a group of classes only, with these logits as before.

    Args:
        network: its last linear layer gives the logits; it is not changed.
        rows: two or more that it takes, to find the layer and to compare answers.
        group: the classes, in the order of the answers.
        head: the path of that layer; None: the last linear layer that runs.

    Raises:
        ModelError: there is no such layer, or the answers are not what it gives.
    """
    seen = rows[:8]
    path = head_spot(network, seen).removesuffix(":input") if head is None else head
    answers = answer_of(network, seen)
    old = _head(network, path)
    if answers.ndim != 2 or old.out_features != answers.shape[1]:
        raise ModelError(
            f"a specialist's last layer must give the logits {list(answers.shape)}, but `{path}` "
            f"gives {old.out_features} per row: name the layer with `head`"
        )
    index = torch.tensor(list(group), device=old.weight.device)
    new = nn.Linear(old.in_features, len(index), bias=old.bias is not None).to(old.weight)
    with torch.no_grad():
        new.weight.copy_(old.weight[index])
        if old.bias is not None:
            new.bias.copy_(old.bias[index])
    made = deepcopy(network)
    made.set_submodule(path, new)
    got, wanted = answer_of(made, seen), answers[:, index]
    if got.shape != wanted.shape or not torch.allclose(got, wanted, rtol=1e-4, atol=1e-5):
        raise ModelError(
            f"with `{path}` cut to {len(group)} classes the network does not answer as before "
            "for these: the layer's answers must be the logits, class by class"
        )
    return made


def _head(network: nn.Module, path: str) -> nn.Linear:
    found = dict(network.named_modules()).get(path)
    if not isinstance(found, nn.Linear):
        what = "not there" if found is None else f"a {type(found).__name__}"
        raise ModelError(
            f"a specialist's last layer must be an nn.Linear, but `{path}` is {what}: name it "
            "with `head`"
        )
    return found


def _for_head(partition: Partition, path: str, old: nn.Linear, classes: int) -> Partition:
    """The partition of the network with the smaller head."""
    for block in partition.blocks:
        if any(path == one or path.startswith(f"{one}.") for one in block.paths):
            raise ModelError(
                f"`{path}` gives the logits and is in block `{block.name}`: divide the network so "
                "that its last layer is outside all blocks"
            )
    lost = old.out_features - classes
    rest = replace(
        partition.rest,
        parameters=partition.rest.parameters - lost * (old.in_features + (old.bias is not None)),
        # A multiply-add of every weight counts as two.
        flops=partition.rest.flops - 2 * lost * old.in_features,
    )
    return replace(partition, rest=rest)
