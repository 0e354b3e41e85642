"""Adapters between phases: a later one of the same kind goes on with what one has learned."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from understudy import losses
from understudy.errors import ModelError
from understudy.folders import read_json, write_json
from understudy.models.weights import read_weights, save_weights
from understudy.objective import AnyObjective

ADAPTERS, KINDS = "adapters.safetensors", "adapters.json"


def keep(objective: AnyObjective, folder: Path) -> None:
    """Write what the terms of a finished phase have learned."""
    kinds = {t.key: t.adapter_kind for t in objective.terms if t.adapter is not None}
    if any(objective.adapters.state_dict()):
        save_weights(objective.adapters, folder / ADAPTERS)
        write_json(folder / KINDS, kinds)


def carry(objective: AnyObjective, earlier: Sequence[Path]) -> None:
    """Begin adapters with what those of the same kind have learned in the phases before.

    Args:
        objective: of the phase that begins.
        earlier: folders of the finished phases, first to last.

    Raises:
        ModelError: a paraphraser that no phase has trained.
    """
    for term in objective.terms:
        if term.adapter is None:
            continue
        follows = getattr(term.adapter, "follows", term.adapter_kind)
        found = next((f for f in reversed(earlier) if _has(f, follows)), None)
        if found is not None:
            _take_over(term.adapter, found, follows, term.name)
        elif follows != term.adapter_kind:
            raise ModelError(
                f"`{term.name}` stands on an adapter `{follows}` that has learned in a phase "
                f"before, but there is none: add a phase with `kind: {_teaching(follows)}` on the "
                "same layers"
            )


def _teaching(kind: str) -> str:
    """The losses that such an adapter learns with."""
    return " or ".join(name for name, row in losses.CATALOGUE.items() if row.adapter == kind)


def _has(folder: Path, kind: str) -> bool:
    return (folder / KINDS).is_file() and kind in read_json(folder / KINDS).values()


def _take_over(adapter: nn.Module, folder: Path, kind: str, name: str) -> None:
    kinds = read_json(folder / KINDS)
    # Of several of one kind each goes on with its own.
    if kinds.get(name) != kind:
        name = next(n for n, k in kinds.items() if k == kind)
    state = {
        key.removeprefix(f"{name}."): value
        for key, value in read_weights(folder / ADAPTERS).items()
        if key.startswith(f"{name}.")
    }
    if hasattr(adapter, "follow"):
        adapter.follow(state)  # type: ignore[operator]
        return
    own = adapter.state_dict()
    # Other layers in this phase: it begins anew.
    if {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in state.items()}:
        adapter.load_state_dict(state)
