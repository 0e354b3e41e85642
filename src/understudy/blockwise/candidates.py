"""A library of smaller replacements for one block, each with what it costs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.cost import flops_of, measured
from understudy.blockwise.form import Piece
from understudy.blockwise.making import make
from understudy.blockwise.proposals import Share, proposals
from understudy.blockwise.replacements import Shared
from understudy.blockwise.words import Call, Candidate
from understudy.errors import ExportError, ModelError, UnderstudyError, did_you_mean
from understudy.folders import fingerprint
from understudy.students.blocks.chain import resting

# A candidate that is cheaper in milliseconds alone must be so by this much.
_FASTER = 0.9
# `measure(module, call, threads=, batch=)` to milliseconds per call.
Measure = Callable[..., float | int]

KINDS = (
    "keep", "narrower", "low_rank", "fewer", "separable", "grouped", "fewer_heads",
    "linear_attention", "shared", "skip", "linear", "custom",
)  # fmt: skip
SHARES: Mapping[str, Sequence[Share]] = {
    "narrower": (0.75, 0.5, 0.25),
    "low_rank": (0.75, 0.5, 0.25),
    "energy": (),
    "fewer": (0.5,),
    "fewer_heads": (0.5,),
    "grouped": (2,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """The candidates of one block.

    Attributes:
        candidates: in the order of their kinds.
        left: what was left out, by label or kind, and why.
    """

    candidates: tuple[Candidate, ...]
    left: Mapping[str, str] = field(default_factory=dict)


def candidates(piece: Piece, call: Call, **settings: Any) -> tuple[Candidate, ...]:
    """The candidates of `library`, without what was left out."""
    return library(piece, call, **settings).candidates


def library(
    piece: Piece,
    call: Call,
    *,
    kinds: Sequence[str] = KINDS,
    shares: Mapping[str, Sequence[Share]] = SHARES,
    neighbour: tuple[str, nn.Module] | None = None,
    custom: Mapping[str, Mapping[str, Any]] | None = None,
    threads: int = 1,
    batch: int = 1,
    measure: Measure | None = measured,
    seed: int = 0,
) -> Library:
    """What could stand in the place of a block, and what it would cost there.

    Every candidate was built and has run: it takes what the block takes and gives its shape. Left
    out is what does not fit the block, and what is cheaper in nothing.

    Args:
        piece: the block; it is not changed.
        call: how it was called, with two rows or more; plans look at these rows.
        kinds: of `KINDS`. `keep` is the block itself; `narrower` has fewer channels, hidden units
            and heads (of recurrent layers: fewer units and a projection); `low_rank` two small
            products for each large one; `fewer` some of its inner units; `separable` depthwise and
            pointwise convolutions; `grouped` convolutions in groups, or attention whose heads
            share keys and values; `fewer_heads` attention with fewer heads alone;
            `linear_attention` instead of softmax; `shared` the weights of a neighbour; `skip`
            nothing, or where shapes differ a pooling and a projection; `linear` one linear layer;
            `custom` the user's own.
        shares: per kind, how much is kept, in candidates of their own; `energy` are those of
            `low_rank` by energy, and `grouped` are numbers of groups.
        neighbour: name and module of the block whose weights `shared` takes.
        custom: by label `target`, `arguments` and `folder`; the target is called as
            `factory(piece=, call=, **arguments)` and returns a module that is called as the block.
        threads: of the latency.
        batch: of the latency, in rows per call.
        measure: what measures it; None: latency is not known, and a budget cannot name it.
        seed: of fresh weights in the trial.

    Raises:
        ModelError: a kind or a share is unknown.

    Paper:
        Bercovich et al. 2025, "Puzzle: Distillation-Based NAS for Inference-Optimized LLMs", on
        the search space, for the library of blocks.
    """
    _check(kinds, shares)
    given = custom or {}
    trial = _Trial(piece, call, neighbour, measure, threads, batch, seed)
    found: dict[str, Candidate] = {}
    left: dict[str, str] = {}
    for kind in dict.fromkeys(("keep", *kinds)):
        if kind == "shared" and neighbour is None:
            left[kind] = "there is no neighbour"
            continue
        name = neighbour[0] if neighbour else None
        options = proposals(kind, piece, call, shares=shares, neighbour=name, custom=given)
        for number, propose in enumerate(options):
            label = f"{kind} {number + 1}"
            try:
                label, settings = propose()
                made = trial(kind, _named(label), settings)
            except UnderstudyError as error:
                left[label] = str(error)
                continue
            why = _needless(made, found)
            if why:
                left[made.label] = why
            else:
                found[made.label] = made
    if "keep" not in kinds:
        del found["keep"]
    return Library(candidates=tuple(found.values()), left=left)


def remembered(measure: Measure = measured) -> Measure:
    """Measures a module once for all that look like it: blocks of a network mostly do.

    Two modules are alike where their layers, the shapes of their weights, and the shapes they are
    called with are the same.
    """
    known: dict[str, float | int] = {}

    def look(module: nn.Module, call: Call, **settings: Any) -> float | int:
        shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
        given = [*call.args, *call.kwargs.values()]
        extras = [list(one.shape) for one in given if isinstance(one, Tensor)]
        row = [list(call.stream.shape[1:]), list(call.gives.shape[1:]), extras]
        key = fingerprint([repr(module), shapes, row, settings])
        if key not in known:
            known[key] = measure(module, call, **settings)
        return known[key]

    return look


def _check(kinds: Sequence[str], shares: Mapping[str, Sequence[Share]]) -> None:
    for name, known in ((k, KINDS) for k in kinds):
        if name not in known:
            raise ModelError(
                f"no kind of candidate is called `{name}`: {did_you_mean(name, known)}"
            )
    for name, values in shares.items():
        if name not in SHARES:
            raise ModelError(f"`shares` has no `{name}`: {did_you_mean(name, SHARES)}")
        whole = name == "grouped"
        bad = [v for v in values if not (v >= 2 and v == int(v) if whole else 0 < v < 1)]
        if bad:
            law = "whole numbers from 2" if whole else "above 0 and below 1"
            raise ModelError(f"`shares` of `{name}` must be {law}, but got {bad[0]}")


def _named(label: str) -> str:
    """As the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", label).strip(".") or "candidate"


def _needless(made: Candidate, found: Mapping[str, Candidate]) -> str:
    """Why a candidate adds nothing, if so."""
    keep = found.get("keep")
    if keep is None:
        return ""
    if made.label in found:
        return "another candidate has this name"
    # Less of a difference is the clock's.
    slower = made.ms is None or keep.ms is None or made.ms >= _FASTER * keep.ms
    dear = made.parameters >= keep.parameters and made.flops >= keep.flops and slower
    if dear and made.bytes >= keep.bytes and made.kind != "custom":
        return "it is cheaper than the block in nothing"
    same = [one for one in found.values() if one.kind in ("skip", "linear")]
    if made.kind == "linear" and any(
        (one.parameters, one.flops) == (made.parameters, made.flops) for one in same
    ):
        return "where shapes differ, `skip` is this layer already"
    return ""


@dataclass(frozen=True, slots=True)
class _Trial:
    """Building a candidate, running it, and measuring it."""

    piece: Piece
    call: Call
    neighbour: tuple[str, nn.Module] | None
    measure: Measure | None
    threads: int
    batch: int
    seed: int

    def __call__(self, kind: str, label: str, settings: dict[str, Any]) -> Candidate:
        """The candidate with its costs.

        Raises:
            ModelError: it does not run in the block's place.
        """
        bare = Candidate(
            kind=kind, label=label, parameters=0, bytes=0, ms=None, flops=0, settings=settings
        )
        other = self.neighbour[1] if self.neighbour else None
        module = make(bare, self.piece, self.call, self.seed, neighbour=other)
        self._run(module)
        ms, note = None, ""
        try:
            if self.measure is not None:
                ms = self.measure(module, self.call, threads=self.threads, batch=self.batch)
        except ExportError as error:
            note = f"its latency is not known ({error})"
        own: list[Tensor] = list(module.state_dict().values())
        learned: Sequence[Tensor] = list(module.parameters())
        if isinstance(module, Shared):
            assert self.neighbour is not None
            own = [module.scale, module.shift]
            learned = own
            note = f"the weights are those of {self.neighbour[0]}, and are counted there"
        return Candidate(
            kind=kind,
            label=label,
            parameters=sum(tensor.numel() for tensor in learned),
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in own),
            ms=ms,
            flops=flops_of(module, self.call),
            settings=settings,
            note=note,
        )

    def _run(self, module: nn.Module) -> None:
        call = self.call
        try:
            with resting(module):
                made = module(call.stream, *call.args, **call.kwargs)
        except Exception as error:  # whatever somebody's forward raises
            raise ModelError(f"it does not run in the block's place ({error})") from error
        shape = getattr(made, "shape", None)
        if shape != call.gives.shape or not bool(torch.isfinite(made).all()):
            told = "numbers that are not finite" if shape == call.gives.shape else f"{shape}"
            raise ModelError(
                f"it must give finite numbers of shape {list(call.gives.shape)}, but gives {told}"
            )
