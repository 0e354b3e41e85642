"""From a candidate's settings to its module, the same one every time."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.blockwise.attention import exchange
from understudy.blockwise.calls import Alone, features_axis
from understudy.blockwise.direct import direct
from understudy.blockwise.form import Piece
from understudy.blockwise.replacements import Shared, SlimRecurrent, grouped, separated
from understudy.blockwise.words import Call, Candidate
from understudy.errors import ModelError, did_you_mean
from understudy.students.depth import DepthPlan, cut_depth
from understudy.students.low_rank.cutting import LowRankPlan, cut_low_rank
from understudy.students.width.cutting import WidthPlan, cut_width

Settings = Mapping[str, Any]


def make(
    candidate: Candidate,
    piece: Piece,
    call: Call,
    seed: int = 0,
    *,
    neighbour: nn.Module | None = None,
) -> nn.Module:
    """The module of a candidate, with the start weights that its kind has.

    What is not taken from the block's own weights is drawn from `seed`; the global random state is
    left as it was. Trained weights are loaded into it afterwards.

    Args:
        candidate: of `library` for this block.
        piece: the block; it is not changed.
        call: how it was called, the same that the candidate was planned with.
        seed: of fresh weights.
        neighbour: the block whose weights a `shared` candidate takes; it is copied.

    Raises:
        ModelError: the kind is unknown, its neighbour is not given, or it does not fit the block.
    """
    builders: dict[str, Callable[[Settings, Piece, Call], nn.Module]] = {
        "keep": lambda _settings, piece, _call: copy.deepcopy(piece),
        "narrower": _narrower,
        "fewer_heads": _narrower,
        "low_rank": _low_rank,
        "fewer": _fewer,
        "separable": _separable,
        "grouped": _grouped,
        "linear_attention": lambda _settings, *block: exchange(*block, form="linear"),
        "shared": lambda _settings, piece, call: share(neighbour, piece, call),
        "skip": lambda _settings, *block: direct(*block, project=False),
        "linear": lambda _settings, *block: direct(*block, project=True),
        "custom": _custom,
    }
    if candidate.kind not in builders:
        raise ModelError(
            f"no candidate is made by kind `{candidate.kind}`: "
            f"{did_you_mean(candidate.kind, builders)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = builders[candidate.kind](candidate.settings, piece, call)
    if candidate.kind not in ("shared", "custom"):
        # The copy of a frozen teacher's block is to learn all the same.
        made.requires_grad_(True)
    return made.eval()


def share(neighbour: nn.Module | None, piece: Piece, call: Call) -> nn.Module:
    """A neighbour's weights, and a scale and a shift of the block's own.

    Raises:
        ModelError: there is no neighbour, or a part of it would be trained here.
    """
    if neighbour is None:
        raise ModelError("a block that shares weights needs its `neighbour`, but none was given")
    axis = features_axis(piece, call.gives.ndim)
    made = Shared(neighbour, features=call.gives.shape[axis], axis=axis)
    return made.to(call.gives)


def _inside(module: nn.Module) -> nn.Module:
    assert isinstance(module, Alone)
    return module.piece


def _narrower(settings: Settings, piece: Piece, call: Call) -> nn.Module:
    if "hidden" in settings:
        made = copy.deepcopy(piece)
        for path, hidden in settings["hidden"].items():
            layer = made.get_submodule(path)
            assert isinstance(layer, nn.RNNBase)
            made.set_submodule(path, SlimRecurrent(layer, hidden=hidden))
        return made
    plan = WidthPlan.from_data(settings["plan"])
    return _inside(cut_width(Alone(piece, call), plan, call.stream).module)


def _low_rank(settings: Settings, piece: Piece, call: Call) -> nn.Module:
    plan = LowRankPlan.from_data(settings["plan"])
    rows = len(call.stream)
    cut = cut_low_rank(Alone(piece, call), plan, call.stream, batch_size=rows)
    return _inside(cut.module)


def _fewer(settings: Settings, piece: Piece, call: Call) -> nn.Module:
    if "drop" in settings:
        return without(piece, settings["drop"])
    plan = DepthPlan.from_data(settings["plan"])
    return _inside(cut_depth(Alone(piece, call), plan, call.stream).module)


def without(piece: Piece, drop: list[int]) -> Piece:
    """A copy of a block without some of its modules, by their places."""
    kept = [place for place in range(len(piece.parts)) if place not in drop]
    modules = [copy.deepcopy(piece.parts[place]) for place in kept]
    return Piece(modules, bare=[piece.bare[place] for place in kept])


def _separable(settings: Settings, piece: Piece, call: Call) -> nn.Module:
    del call
    return _exchanged(piece, settings["layers"], separated)


def _grouped(settings: Settings, piece: Piece, call: Call) -> nn.Module:
    if "share" in settings:
        return exchange(piece, call, form="softmax", share=settings["share"])
    groups = settings["groups"]
    return _exchanged(piece, settings["layers"], lambda layer: grouped(layer, groups))


def _exchanged(
    piece: Piece, paths: list[str], change: Callable[[nn.Module], nn.Module | None]
) -> nn.Module:
    made = copy.deepcopy(piece)
    for path in paths:
        new = change(made.get_submodule(path))
        if new is None:
            raise ModelError(f"this candidate was planned for another block: `{path}` differs")
        made.set_submodule(path, new)
    return made


def _custom(settings: Settings, piece: Piece, call: Call) -> nn.Module:
    # It brings Lightning along, which a worker without targets of the user's need not load.
    from understudy.build.targets import TargetError, resolve, told

    target, arguments = settings["target"], settings.get("arguments", {})
    try:
        factory = resolve(target, Path(settings.get("folder", ".")))
    except TargetError as error:
        raise ModelError(f"the candidate `{target}` cannot be found: {error}") from error
    try:
        made = factory(piece=copy.deepcopy(piece), call=call, **arguments)
    except Exception as error:  # whatever the user's own code raises
        raise ModelError(f"the candidate `{target}` failed: {told(error)}") from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"`{target}` must return an nn.Module, but gave {type(made).__name__}")
    return made
