"""How much a block matters when it is looked at by itself: one number per row and block."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.students.blocks.branches import (
    Passage,
    answers,
    ends_of,
    row_axes,
    rows_first,
    watching,
)
from understudy.students.blocks.chain import given_to
from understudy.students.blocks.removal import first_tensor, with_first
from understudy.students.blocks.surgery import skipped
from understudy.students.importance.reduction import at_places
from understudy.students.importance.weighting import Output, distances


def cosine(
    network: nn.Module,
    rows: Tensor,
    paths: Sequence[str],
    *,
    batch_size: int,
    outer: Collection[str] = (),
) -> Tensor:
    """1 - cosine of a block's input and output, mean over places, `[rows, blocks]`."""
    found: dict[str, list[Tensor]] = {path: [] for path in paths}

    def see(path: str, passage: Passage) -> None:
        given, made = at_places(passage.given.float()), at_places(passage.made.detach().float())
        found[path].append(1 - F.cosine_similarity(given, made, dim=2).mean(dim=1))

    with watching(network, paths, see, row_axes(network, rows, paths), outer):
        answers(network, rows, batch_size=batch_size)
    return torch.stack([torch.cat(parts) for parts in found.values()], dim=1)


def rise(
    network: nn.Module,
    rows: Tensor,
    paths: Sequence[str],
    goal: Tensor,
    labels: Tensor | None,
    output: Output,
    *,
    batch_size: int,
    outer: Collection[str] = (),
) -> Tensor:
    """How much the loss rises when a block passes its input on, `[rows, blocks]`."""

    def loss() -> Tensor:
        made = answers(network, rows, batch_size=batch_size)
        if labels is None:
            return distances(made, goal, output)
        return _hard(made, labels, output)

    before = loss()
    columns = []
    for path in paths:
        with skipped(network, path, outer=path in outer):
            columns.append(loss() - before)
    return torch.stack(columns, dim=1)


def taylor(
    network: nn.Module,
    rows: Tensor,
    paths: Sequence[str],
    goal: Tensor,
    labels: Tensor | None,
    output: Output,
    *,
    batch_size: int,
    outer: Collection[str] = (),
) -> Tensor:
    """|gradient of the loss times what a block adds|, `[rows, blocks]`; weights are left alone."""
    middle, axes = goal.mean(dim=0), row_axes(network, rows, paths)
    columns = []
    for place in range(0, len(rows), batch_size):
        part = slice(place, place + batch_size)
        own = None if labels is None else labels[part]
        with torch.enable_grad():
            made, added, nudges = _nudged(network, rows[part], paths, outer)
            if own is not None:
                loss = _hard(made, own, output)
            elif output == "logits":
                loss = _hard(made, goal[part].argmax(dim=-1), output)
            else:
                loss = (made - middle).square().flatten(1).sum(dim=1) / 2
            # Rows do not see each other at rest, so the slope of the sum holds that of each.
            slopes = torch.autograd.grad(loss.sum(), [nudges[path] for path in paths])
        moved = [
            rows_first(slope * added[path], axes[path]).flatten(1).sum(dim=1).abs()
            for path, slope in zip(paths, slopes, strict=True)
        ]
        columns.append(torch.stack(moved, dim=1))
    return torch.cat(columns).float()


def _nudged(
    network: nn.Module, rows: Tensor, paths: Sequence[str], outer: Collection[str]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The answer, what each block adds, and zeros that were added to that, to take slopes in."""
    added: dict[str, Tensor] = {}
    nudges: dict[str, Tensor] = {}

    def hooks(path: str) -> tuple[Any, Any]:
        def before(module: nn.Module, args: Any, settings: Any) -> None:
            given = given_to(module, args, settings)
            if given is not None:
                added[path] = given.detach() * (0 if path in outer else -1)

        def after(_: nn.Module, _args: Any, made: Any) -> Any:
            found = first_tensor(made)
            if found is None or path not in added:
                return made
            added[path] += found.detach()
            nudges[path] = torch.zeros_like(found, requires_grad=True)
            return with_first(made, found + nudges[path])

        return before, after

    with ExitStack() as stack:
        for path in paths:
            (first, last), (before, after) = ends_of(network, path), hooks(path)
            stack.callback(first.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(last.register_forward_hook(after).remove)
        made = answers(network, rows, batch_size=len(rows))
    return made, added, nudges


def check_known(goal: Tensor, labels: Tensor | None, output: Output) -> None:
    """Refuse answers and labels that no loss can be taken of.

    Args:
        goal: the teacher's answers.
        labels: for a loss on labels.
        output: what the answers are.

    Raises:
        ModelError: an answer is not finite, labels are no classes of it, or have another size.
    """
    broken = (~goal.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise ModelError(
            f"answers must be finite, but those to {len(broken)} of {len(goal)} calibration rows "
            f"are not ({', '.join(map(str, broken[:8]))}): leave these rows out"
        )
    if labels is None:
        return
    if output == "values":
        if labels.numel() != goal.numel():
            raise ModelError(
                f"labels must have the form of the answer, {list(goal.shape)}, but got "
                f"{list(labels.shape)}"
            )
        return
    classes = goal.shape[-1]
    if labels.is_floating_point() or labels.shape != goal.shape[:-1]:
        raise ModelError(
            f"labels of classes must be int64 {list(goal.shape[:-1])}, but got {labels.dtype} "
            f"{list(labels.shape)}: for numbers say output='values'"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ModelError(
            f"`0 <= label < {classes}` must hold, but got labels from {int(labels.min())} to "
            f"{int(labels.max())}: leave unlabelled rows out"
        )


def _hard(made: Tensor, labels: Tensor, output: Output) -> Tensor:
    """The loss on labels, one number per row, mean over positions."""
    if output == "values":
        return distances(made, labels.to(made).reshape(made.shape), "values")
    each = F.cross_entropy(made.flatten(0, -2), labels.flatten(), reduction="none")
    return each.reshape(len(made), -1).mean(dim=1)
