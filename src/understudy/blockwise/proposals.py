"""What each kind of candidate would be for one block: settings, before anything is measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.attention import holders_in
from understudy.blockwise.calls import Alone
from understudy.blockwise.form import Piece
from understudy.blockwise.making import without
from understudy.blockwise.replacements import grouped, separated
from understudy.blockwise.words import Call
from understudy.errors import ModelError
from understudy.students.blocks.chain import resting
from understudy.students.blocks.surgery import skipped, units
from understudy.students.depth import plan_depth
from understudy.students.low_rank.cutting import plan_low_rank
from understudy.students.width.cutting import plan_width
from understudy.students.width.transformers import attention, feed_forward

Share = float | int
Proposal = tuple[str, dict[str, Any]]


def narrower(piece: Piece, call: Call, keep: Share) -> Proposal:
    """Fewer channels, hidden units and heads.

    Raises:
        ModelError: there is nothing to narrow by this share.
    """
    layers = recurrent(piece)
    if layers:
        hidden = {path: max(1, round(layer.hidden_size * keep)) for path, layer in layers.items()}
        return f"narrower_{keep:g}", {"hidden": hidden}
    plan = plan_width(
        Alone(piece, call), call.stream, keep=keep, protect_ends=False, batch_size=_all(call)
    )
    return f"narrower_{keep:g}", {"plan": plan.to_data()}


def fewer_heads(piece: Piece, call: Call, keep: Share) -> Proposal:
    """Fewer attention heads, and feed-forward layers as they are.

    Raises:
        ModelError: there are no heads, or none that divide so.
    """
    alone = Alone(piece, call)
    if not any(True for _ in attention(alone)):
        raise ModelError("it has no attention heads that can be told apart")
    wide = [part.path for site in feed_forward(alone) for part in site.parts if part.side == "out"]
    plan = plan_width(
        alone, call.stream, keep=keep, protect=wide, protect_ends=False, batch_size=_all(call)
    )
    if not any(kind == "heads" for _, kind, _, _ in plan.widths):
        raise ModelError("it has no attention heads")
    return f"fewer_heads_{keep:g}", {"plan": plan.to_data()}


def low_rank(piece: Piece, call: Call, share: Share) -> Proposal:
    """Large products as two small ones, to a share of the block's parameters.

    Raises:
        ModelError: no rank is low enough for that, or there is nothing to cut.
    """
    plan = plan_low_rank(
        Alone(piece, call), call.stream, parameters=float(share), layers=("*",),
        batch_size=_all(call),
    )  # fmt: skip
    return f"low_rank_{share:g}", {"plan": plan.to_data()}


def energy(piece: Piece, call: Call, share: Share) -> Proposal:
    """As `low_rank`, with the ranks that keep a share of the energy of every layer's answers.

    Raises:
        ModelError: no such rank saves parameters.
    """
    plan = plan_low_rank(
        Alone(piece, call), call.stream, energy=float(share), layers=("*",), batch_size=_all(call)
    )
    return f"low_rank_energy_{share:g}", {"plan": plan.to_data()}


def fewer(piece: Piece, call: Call, keep: Share) -> Proposal:
    """Some of the block's inner units, without those whose loss is felt least.

    Raises:
        ModelError: it has no units that it runs without, or too few.
    """
    sections = _sections(piece)
    if len(sections) > 1:
        felt = {
            number: _missed(without(piece, section), call)
            for number, section in enumerate(sections)
        }
        free = sorted(
            (number for number in felt if felt[number] < float("inf")), key=lambda n: felt[n]
        )
        count = len(sections) - max(1, round(keep * len(sections)))
        gone = free[: min(count, len(free))]
        if not gone:
            raise ModelError("none of its modules can go: each changes the shape of the stream")
        drop = sorted(place for number in gone for place in sections[number])
        left = len(sections) - len(gone)
        return f"fewer_{left}_of_{len(sections)}", {"drop": drop}
    return _fewer_inside(piece, call, keep)


def _fewer_inside(piece: Piece, call: Call, keep: Share) -> Proposal:
    alone = Alone(piece, call)
    try:
        chain = units(alone, call.stream)
    except ModelError as error:
        raise ModelError("it has no units of one kind inside") from error
    # The layers of one attention have one class and one shape too, and are no units.
    if not all(_unit(alone, unit.path) for unit in chain):
        raise ModelError("its repeated layers are parts of one unit")
    felt: dict[str, float] = {}
    for unit in chain:
        felt[unit.path] = 1e9
        if unit.removable:
            with skipped(alone, unit.path, outer=unit.outer):
                felt[unit.path] = min(1e9, _missed(alone, call, whole=True))
    plan = plan_depth(alone, call.stream, keep=max(1, round(keep * len(chain))), by=felt)
    if not plan.drop:
        raise ModelError("none of its units can go")
    return f"fewer_{len(plan.keep)}_of_{len(chain)}", {"plan": plan.to_data()}


def _unit(network: nn.Module, path: str) -> bool:
    parent = network.get_submodule(path.rpartition(".")[0])
    whole = any(True for _ in network.get_submodule(path).children())
    return whole or isinstance(parent, nn.Sequential | nn.ModuleList)


def _sections(piece: Piece) -> list[list[int]]:
    """Places of modules with weights, each with those without behind it."""
    found: list[list[int]] = []
    for place, part in enumerate(piece.parts):
        norm = isinstance(part, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm)
        if not found or (any(True for _ in part.parameters()) and not norm):
            found.append([])
        found[-1].append(place)
    return found


def _missed(module: nn.Module, call: Call, *, whole: bool = False) -> float:
    """The squared error of a block's answers in units of their variance; infinite: it breaks."""
    try:
        with resting(module):
            made = module(call.stream) if whole else module(call.stream, *call.args, **call.kwargs)
    except Exception:  # whatever the user's own forward raises without a part
        return float("inf")
    if not isinstance(made, Tensor) or made.shape != call.gives.shape:
        return float("inf")
    error = (made - call.gives).double().square().mean()
    return float(torch.nan_to_num(error / call.gives.double().var().clamp(min=1e-12), 1e9, 1e9))


def separable(piece: Piece, call: Call) -> Proposal:
    """Every convolution as a depthwise and a pointwise one.

    Raises:
        ModelError: there is none where that saves weights.
    """
    del call
    layers = _where(piece, separated)
    if not layers:
        raise ModelError("it has no full convolution with a kernel above 1")
    return "separable", {"layers": layers}


def in_groups(piece: Piece, call: Call, share: Share) -> Proposal:
    """Convolutions in groups; in self-attention, keys and values for several heads at once.

    Raises:
        ModelError: there are neither, or their channels or heads do not divide.
    """
    del call
    groups = int(share)
    layers = _where(piece, lambda layer: grouped(layer, groups))
    if layers:
        return f"grouped_{groups}", {"groups": groups, "layers": layers}
    if not holders_in(piece):
        raise ModelError(
            f"it has neither convolutions whose channels divide by {groups} nor self-attention"
        )
    return f"grouped_{groups}", {"share": groups}


def recurrent(piece: nn.Module) -> dict[str, nn.RNNBase]:
    """The recurrent layers of a block by path."""
    return {path: part for path, part in piece.named_modules() if isinstance(part, nn.RNNBase)}


def _where(piece: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> list[str]:
    with torch.random.fork_rng(devices=[]):
        return [path for path, part in piece.named_modules() if change(part) is not None]


def _all(call: Call) -> int:
    # A call's masks belong to its first rows, so all of them go at once.
    return len(call.stream)


def proposals(
    kind: str,
    piece: Piece,
    call: Call,
    *,
    shares: Mapping[str, Sequence[Share]],
    neighbour: str | None,
    custom: Mapping[str, Mapping[str, Any]],
) -> Iterator[Callable[[], Proposal]]:
    """What there could be of one kind; each is worked out when it is called, and may not fit."""
    several: dict[str, list[tuple[str, Callable[[Piece, Call, Share], Proposal]]]] = {
        "narrower": [("narrower", narrower)],
        "fewer_heads": [("fewer_heads", fewer_heads)],
        "low_rank": [("low_rank", low_rank), ("energy", energy)],
        "fewer": [("fewer", fewer)],
        "grouped": [("grouped", in_groups)],
    }
    for name, plan in several.get(kind, []):
        for share in shares.get(name, ()):
            yield lambda plan=plan, share=share: plan(piece, call, share)  # type: ignore[misc]
    if kind == "separable":
        yield lambda: separable(piece, call)
    elif kind == "shared":
        yield lambda: ("shared", {"neighbour": neighbour})
    elif kind == "custom":
        for label, entry in custom.items():
            yield lambda label=label, entry=entry: (label, dict(entry))  # type: ignore[misc]
    elif kind not in several:
        yield lambda: (kind, {})
