"""Which layers a term compares: named, by pattern, or found; and of what shape they are."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from understudy import losses
from understudy.errors import ModelError
from understudy.features.attention_layers import AttentionLayers, attention_layers
from understudy.features.blocks import How, blocks, pair
from understudy.features.hooks import capture, module_at
from understudy.features.margins import margins
from understudy.losses import Row
from understudy.models.deployable import inner
from understudy.recipe import FoundLayers, LayerPair, TermEntry

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """The layers of one term, and what its adapter is made from.

    Attributes:
        pairs: student and teacher, as spots.
        student: shapes of one row of the student's.
        teacher: shapes of one row of the teacher's.
        settings: what was found for the adapter: heads, margins.
    """

    pairs: tuple[tuple[str, str], ...]
    student: tuple[Shape, ...]
    teacher: tuple[Shape, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "pairs": [list(p) for p in self.pairs],
            "student": [list(s) for s in self.student],
            "teacher": [list(s) for s in self.teacher],
            "settings": dict(self.settings),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Matched":
        """From plain data."""
        return cls(
            pairs=tuple((own, goal) for own, goal in data["pairs"]),
            student=tuple(tuple(s) for s in data["student"]),
            teacher=tuple(tuple(s) for s in data["teacher"]),
            settings=dict(data["settings"]),
        )

    def line(self) -> str:
        """For the log."""
        told = [
            f"{own} {list(a)} from {goal} {list(b)}"
            for (own, goal), a, b in zip(self.pairs, self.student, self.teacher, strict=True)
        ]
        return "; ".join(told)


def reads_layers(entry: TermEntry) -> bool:
    """Whether a term compares layers."""
    if entry.kind in losses.CATALOGUE:
        return losses.CATALOGUE[entry.kind].layers != "none"
    return entry.layers is not None


def match(
    entry: TermEntry,
    *,
    student: nn.Module,
    teacher: nn.Module | None,
    rows: Tensor,
    told: Callable[[Sequence[str]], Mapping[str, Tensor]],
    provenance: Mapping[str, str] | None = None,
) -> Matched:
    """The layers of a term that compares layers, after a dry run of both models.

    Args:
        entry: of the recipe.
        student: raw rows to answers.
        teacher: likewise; None where only `told` answers, and then every layer must be named.
        rows: a few raw rows.
        told: the teacher's knowledge of these rows, by name.
        provenance: the student's block paths to the teacher's.

    Raises:
        ModelError: a layer that is not there or does not run, layers that have to be named, or
            ones that do not fit together.
    """
    row = losses.CATALOGUE.get(entry.kind)
    pairs, settings = _pairs(entry, row, inner(student), _network(teacher), provenance)
    ours = captured(student, list(dict.fromkeys(own for own, _ in pairs)), rows)
    goals = told(list(dict.fromkeys(goal for _, goal in pairs)))
    if entry.kind == "overhaul":
        if teacher is None:
            raise ModelError("`overhaul` takes its margins from a PyTorch teacher's batch norms")
        settings["margins"] = [margins(inner(teacher), p[1]).tolist() for p in pairs]
    return Matched(
        pairs=pairs,
        student=tuple(_row(ours[own], f"the student's `{own}`", len(rows)) for own, _ in pairs),
        teacher=tuple(_row(goals[to], f"the teacher's `{to}`", len(rows)) for _, to in pairs),
        settings=settings,
    )


def _row(found: Tensor, where: str, rows: int) -> Shape:
    """The shape of one row.

    Raises:
        ModelError: the first axis is not the batch.
    """
    if found.ndim == 0 or len(found) != rows:
        raise ModelError(
            f"{where} must give one entry per row, [{rows}, ...] for {rows} rows, but gave "
            f"{list(found.shape)}: name a layer whose first axis is the batch (`batch_first=True` "
            "in PyTorch's transformers)"
        )
    return tuple(found.shape[1:])


def captured(model: nn.Module, spots: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """What a model computes at its spots for some rows; it is left as it was.

    Raises:
        ModelError: a spot that is not there, does not run, or gives no tensor.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(), torch.no_grad(), capture(inner(model), spots) as found:
            model.eval()(rows)
        return found.found()
    finally:
        for module, mode in modes.items():
            module.training = mode


def _network(teacher: nn.Module | None) -> nn.Module | None:
    return None if teacher is None else inner(teacher)


def _pairs(
    entry: TermEntry,
    row: Row | None,
    student: nn.Module,
    teacher: nn.Module | None,
    provenance: Mapping[str, str] | None,
) -> tuple[tuple[tuple[str, str], ...], dict[str, Any]]:
    layers = entry.layers
    if isinstance(layers, (tuple, LayerPair)):
        given = layers if isinstance(layers, tuple) else (layers,)
        return tuple(p for one in given for p in _named(one, student, teacher)), {}
    if teacher is None:
        raise ModelError(
            f"`{entry.kind}` looks for layers to pair inside the teacher, but this teacher is no "
            "PyTorch module: name them, `layers: {student: PATH, teacher: NAME}`"
        )
    usual: How = "provenance" if entry.kind == "simkd" else "evenly"
    how = layers.auto if isinstance(layers, FoundLayers) else usual
    if entry.kind == "simkd" and how == "provenance" and not provenance:
        raise ModelError(
            "`simkd` compares what goes into the classifier that the student takes from its "
            "teacher, but this student has one of its own: set `student.reused_head: {factor: 2}`, "
            "or name the two layers"
        )
    which = (isinstance(layers, FoundLayers) and layers.which) or (row.which if row else "all")
    if row is not None and row.adapter == "heads":
        found = pair(blocks(student), blocks(teacher), how=how, which=which, provenance=provenance)
        return _attention(found, student, teacher)
    names = blocks(student), blocks(teacher)
    return pair(*names, how=how, which=which, provenance=provenance), {}


def _named(
    one: LayerPair, student: nn.Module, teacher: nn.Module | None
) -> tuple[tuple[str, str], ...]:
    starred = ["*" in side for side in (one.student, one.teacher)]
    if starred == [False, False]:
        module_at(student, one.student)
        if teacher is not None:
            module_at(teacher, one.teacher)
        return ((one.student, one.teacher),)
    if starred != [True, True] or teacher is None:
        raise ModelError(
            "a pattern needs `*` on both sides and a teacher that is a PyTorch module, but got "
            f"student `{one.student}` and teacher `{one.teacher}`: name the layers one by one"
        )
    return pair(_matching(student, one.student), _matching(teacher, one.teacher))


def _matching(network: nn.Module, pattern: str) -> list[str]:
    path, _, side = pattern.partition(":")
    form = re.compile(re.escape(path).replace(r"\*", r"[^.]+"))
    names = [name for name, _ in network.named_modules() if form.fullmatch(name)]
    if not names:
        module_at(network, path.replace("*", "0"))  # tells what is near
        raise ModelError(f"no module of {type(network).__name__} is called like `{pattern}`")
    return [f"{name}:{side}" if side else name for name in names]


def _attention(
    found: Sequence[tuple[str, str]], student: nn.Module, teacher: nn.Module
) -> tuple[tuple[tuple[str, str], ...], dict[str, Any]]:
    ours = [attention_layers(student, own) for own, _ in found]
    goals = [attention_layers(teacher, goal) for _, goal in found]
    forms: set[bool] = {layers.fused for layers in (*ours, *goals)}
    if len(forms) > 1:
        raise ModelError(
            "one model computes queries, keys and values in one layer and the other in three: "
            "name the layers that give them apart on both sides"
        )
    pairs = tuple(p for own, goal in zip(ours, goals, strict=True) for p in _zipped(own, goal))
    settings = {
        "student_heads": ours[0].heads,
        "teacher_heads": goals[0].heads,
        "fused": forms.pop(),
    }
    return pairs, settings


def _zipped(own: AttentionLayers, goal: AttentionLayers) -> list[tuple[str, str]]:
    return list(zip(own.paths, goal.paths, strict=True))
