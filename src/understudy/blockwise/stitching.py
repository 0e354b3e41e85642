"""A choice put together: the network with the chosen candidates in their blocks' places."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.form import Piece, replaced
from understudy.blockwise.replacements import Shared
from understudy.blockwise.words import Call, Partition
from understudy.errors import ModelError, did_you_mean
from understudy.students.blocks.chain import resting

KEEP = "keep"


def neighbour_of(partition: Partition, name: str) -> str | None:
    """The block before, where both take and give the same shapes: its weights may be shared."""
    names = [block.name for block in partition.blocks]
    place = names.index(partition[name].name)
    if place == 0:
        return None
    before, block = partition.blocks[place - 1], partition.blocks[place]
    same = (before.takes, before.gives) == (block.takes, block.gives)
    return before.name if same and before.extras == block.extras else None


def stitched(
    network: nn.Module,
    partition: Partition,
    modules: Mapping[str, Mapping[str, nn.Module]],
    labels: Mapping[str, str],
) -> nn.Module:
    """A copy of the network with the chosen candidates in their blocks' places, ready to learn.

    Args:
        network: it is not changed.
        partition: of this network.
        modules: by block and label; blocks that keep themselves need none.
        labels: by block the chosen label; a block that is not named keeps itself.

    Raises:
        ModelError: a block or a label is unknown.
    """
    chosen: dict[str, nn.Module] = {}
    for block, label in labels.items():
        if label == KEEP:
            continue
        known = modules.get(partition[block].name, {})
        if label not in known:
            raise ModelError(
                f"block `{block}` has no taught candidate `{label}`: {did_you_mean(label, known)}"
            )
        chosen[block] = known[label]
    made = replaced(network, partition, chosen)
    for block, module in chosen.items():
        if isinstance(module, Shared):
            _tie(made, partition, block)
    return made.requires_grad_(True)


def _tie(made: nn.Module, partition: Partition, name: str) -> None:
    """Let a block that shares run its neighbour's own modules, so that they are there once."""
    near = neighbour_of(partition, name)
    assert near is not None
    block = partition[near]
    part = made.get_submodule(partition[name].paths[0]).get_submodule("part")
    assert isinstance(part, Shared)
    modules = [made.get_submodule(path) for path in block.paths]
    part.tie(Piece(modules, bare=[path in block.bare for path in block.paths]))


def working_bytes(module: nn.Module, call: Call, *, batch: int = 1) -> int:
    """The most bytes that a step inside a block reads and writes at once, its weights aside.

    The stream that a shortcut keeps beside that is counted once.

    Args:
        module: called as the block.
        call: how it is called.
        batch: rows per call.
    """
    most = 0

    def hook(_: nn.Module, args: Any, made: Any) -> None:
        nonlocal most
        tensors = [t for t in (*args, made) if isinstance(t, Tensor)]
        most = max(most, sum(t.numel() * t.element_size() for t in tensors))

    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    hooks = [part.register_forward_hook(hook) for part in leaves]
    rows = len(call.stream)
    try:
        with resting(module), torch.no_grad():
            module(call.stream, *call.args, **call.kwargs)
    finally:
        for one in hooks:
            one.remove()
    held = call.stream.numel() * call.stream.element_size()
    return int((most + held) / rows * batch)
