"""Leaving blocks out of a regression of the answer on all of them, the least needed first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from understudy.students.blocks.branches import START, Passage, answers, row_axes, watching
from understudy.students.importance.reduction import pooled
from understudy.students.importance.regression import Fit, fit


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Elimination:
    """What was found.

    Attributes:
        order: of the blocks that can go, the one that was left out first, first.
        lost: float64 `[rows, blocks]`, in that order: how much a row's squared error has risen by
            the time a block is out. Where fewer features tell more, what was lost before stays
            lost, so the sums over rows do not fall.
        whole: the regression on all blocks.
        alone: what each block explains by itself, as a share of the answer's variance.
    """

    order: tuple[str, ...]
    lost: Tensor
    whole: Fit
    alone: Mapping[str, float]


def contributions(
    network: nn.Module,
    rows: Tensor,
    paths: Sequence[str],
    *,
    attention: bool,
    batch_size: int,
    outer: Collection[str] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """What blocks add and, under `START`, what the first is given: `[rows, width]` each, pooled.

    Beside it the network's answers, `[rows, ...]`, so that they need no pass of their own.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (START, *paths)}

    def see(path: str, passage: Passage) -> None:
        if path == paths[0]:
            found[START].append(pooled(passage.given.detach().float(), attention=attention))
        found[path].append(pooled(passage.added.detach().float(), attention=attention))

    with watching(network, paths, see, row_axes(network, rows, paths), outer):
        made = answers(network, rows, batch_size=batch_size)
    return {name: torch.cat(parts) for name, parts in found.items()}, made


def eliminate(
    kernels: Mapping[str, Tensor],
    free: Sequence[str],
    goal: Tensor,
    *,
    ridge: float | int | Literal["auto"] = "auto",
) -> Elimination:
    """Backward elimination: the block goes without which left-out rows are told best.

    Args:
        kernels: Gram matrix of each block's features, `[rows, rows]`, and of what else there is.
        free: the blocks that can go; the others stay.
        goal: the answers, `[rows, width]`.
        ridge: of the regression on all of them; the others have it in absolute size.

    Raises:
        ModelError: there are fewer than three rows, or their answers are all equal.
    """
    left = torch.stack(list(kernels.values())).sum(dim=0)
    whole = fit(left, goal, ridge=ridge)
    # Seeking a ridge for each of them would take longer than all the rest.
    alone = {
        path: fit(kernel, goal, ridge=whole.ridge).explained
        for path, kernel in kernels.items()
        if path != START
    }
    held = whole.ridge * float(left.diagonal().mean())
    order: list[str] = []
    worst: list[Fit] = []
    while len(order) < len(free):
        tried = {
            path: _without(left, kernels[path], goal, held) for path in free if path not in order
        }
        path = max(tried, key=lambda name: tried[name].explained)
        left = left - kernels[path]
        order.append(path)
        worst.append(min([*worst[-1:], tried[path]], key=lambda one: one.explained))
    lost = torch.stack([one.errors - whole.errors for one in worst], dim=1)
    return Elimination(order=tuple(order), lost=lost, whole=whole, alone=alone)


def _without(left: Tensor, part: Tensor, goal: Tensor, held: float) -> Fit:
    kernel = left - part
    size = float(kernel.diagonal().mean())
    # Nothing but rounding is left where the last features go.
    if size <= 1e-9 * float(left.diagonal().mean()):
        return fit(torch.zeros_like(kernel), goal)
    return fit(kernel, goal, ridge=held / size)
