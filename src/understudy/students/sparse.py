"""Pruning single weights while the student learns: how many when, which ones, and that they stay.

Paper: Zhu and Gupta 2017, "To Prune, or Not to Prune", section 3 (the cubic schedule, magnitudes);
Zhou et al. 2021, "Learning N:M Fine-Grained Structured Sparse Neural Networks From Scratch",
section 3 (N of every M stay).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.errors import ModelError, did_you_mean
from understudy.models.deployable import inner
from understudy.students.prunable import Weight, prunable

Ramp = Literal["cubic", "linear", "once"]
Scope = Literal["network", "layer"]
HOLD = "zeros"
# Over the whole network a layer keeps this share of its weights, or nothing would pass through it.
LEAST = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparsity:
    """How many weights become zero, and when.

    Attributes:
        to: the share of weights that are zero at the end; `N:M`, where N of every M weights along
            a layer's inputs stay; or `zeros`: those that are zero already stay so, no more go.
        schedule: how the share grows: `cubic` (fast at first, then slowly), `linear`, or all at
            `once`, when it begins.
        begin: when, as a share of the steps of the training.
        end: when the last ones go. What is left of the training is for recovering.
        every: how many steps pass between two choices of weights.
        scope: whose smallest magnitudes go: of the whole `network`, where each layer keeps 1 % at
            least, or of each `layer`, which then has the same share.
        layers: patterns of the layers' paths (`stages.*`); none: all but the first and the last.
        hold: whether what is zero already in the other layers stays so, as an earlier pruning
            left it.
    """

    to: float | str
    schedule: Ramp = "cubic"
    begin: float = 0.0
    end: float = 0.75
    every: int = 10
    scope: Scope = "network"
    layers: tuple[str, ...] = ()
    hold: bool = False

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            ValueError: the law and the values.
        """
        if isinstance(self.to, str):
            _check_pattern(self.to)
        elif not 0 < self.to <= 1 - LEAST:
            raise ValueError(
                f"`0 < to <= {1 - LEAST}` must hold, but got to={self.to}: give a share such as "
                '0.8, or a pattern such as "2:4"'
            )
        for name, known in (("schedule", Ramp), ("scope", Scope)):
            choices = known.__args__  # type: ignore[attr-defined]
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(choices)}, but got {getattr(self, name)!r}"
                )
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError(
                f"`0 <= begin < end <= 1` must hold, but got {self.begin} and {self.end}: they are "
                "shares of the training, such as 0 and 0.75"
            )
        if self.every < 1:
            raise ValueError(f"`every >= 1` must hold, but got every={self.every}: usual is 10")

    @property
    def pattern(self) -> tuple[int, int] | None:
        """N and M, where `to` says so."""
        if not isinstance(self.to, str) or self.to == HOLD:
            return None
        kept, group = self.to.split(":")
        return int(kept), int(group)

    def due(self, step: int, *, steps: int) -> bool:
        """Whether weights are chosen after this step."""
        first, last = self._span(steps)
        return first <= step <= last and ((step - first) % self.every == 0 or step == last)

    def over(self, step: int, *, steps: int) -> bool:
        """Whether all that go are gone after this step."""
        return step >= self._span(steps)[1]

    def ramp(self, step: int, *, steps: int) -> float:
        """From 0, nothing yet, to 1, all that go."""
        first, last = self._span(steps)
        if step >= last:
            return 1.0
        way = max(0.0, (step - first) / (last - first))
        return float(way if self.schedule == "linear" else 1 - (1 - way) ** 3)

    def _span(self, steps: int) -> tuple[int, int]:
        first = math.floor(self.begin * steps)
        if self.schedule == "once" or self.to == HOLD:
            return first, first
        return first, max(first, math.ceil(self.end * steps))

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {"kind": "sparsity", **asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Sparsity":
        """From what `to_data` gives; what is left out has its default.

        Raises:
            ValueError: an unknown name, or a value that means nothing.
        """
        given = {name: value for name, value in data.items() if name != "kind"}
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"unknown `{unknown[0]}`: {did_you_mean(unknown[0], known)}")
        for name in ("to", "begin", "end"):
            if isinstance(given.get(name), int):
                given[name] = float(given[name])
        return cls(**given | {"layers": tuple(given.get("layers", ()))})


class Masks(nn.Module):
    """Which weights of a student are zero and stay so: buffers, so that checkpoints hold them."""

    def __init__(self, student: nn.Module, sparsity: Sparsity) -> None:
        """Find the weights that can go; those that are zero already are gone.

        Raises:
            ModelError: there are none, a pattern names no layer, a named layer's inputs do not
                divide into groups, or more are zero already than are to be.
        """
        super().__init__()
        self.sparsity = sparsity
        group = sparsity.pattern[1] if sparsity.pattern else 1
        self.weights: tuple[Weight, ...] = prunable(
            inner(student), layers=sparsity.layers, group=group
        )
        values = _parameters(student)
        for number, weight in enumerate(self.weights):
            zero = values[weight.name].detach() == 0
            # A layer that starts at zero is yet to learn.
            self.register_buffer(f"gone_{number}", zero & ~zero.all())
        own = {weight.name for weight in self.weights}
        others = prunable(inner(student), layers=("*",)) if sparsity.hold else ()
        self.held = tuple(weight.name for weight in others if weight.name not in own)
        for number, name in enumerate(self.held):
            zero = values[name].detach() == 0
            self.register_buffer(f"held_{number}", zero & ~zero.all())
        self.register_buffer("_settled", torch.tensor(False))
        self._first = self.share()
        count = sum(gone.numel() for gone in self.gone().values())
        # Every layer may have rounded up by one.
        slack = len(self.weights) / count
        if isinstance(sparsity.to, float) and sparsity.to + slack < self._first:
            raise ModelError(
                f"{self._first:.3g} of the weights that can be pruned are zero already, so `to` "
                f"must be at least that, but got to={sparsity.to}: give more, or `to: {HOLD}`"
            )

    @property
    def settled(self) -> bool:
        """Whether all weights that go are gone."""
        return bool(self._settled)

    def gone(self) -> dict[str, Tensor]:
        """Per weight a bool tensor of its shape: which of its numbers are gone."""
        return {w.name: self.get_buffer(f"gone_{n}") for n, w in enumerate(self.weights)}

    def share(self) -> float:
        """The share of the weights that can be pruned that is gone."""
        found = self.gone().values()
        return sum(int(gone.sum()) for gone in found) / sum(gone.numel() for gone in found)

    def shares(self) -> dict[str, float]:
        """The same per weight, by its name."""
        return {name: float(gone.float().mean()) for name, gone in self.gone().items()}

    @torch.no_grad()
    def follow(self, student: nn.Module, *, step: int, steps: int) -> None:
        """After a step of a training of `steps`: choose weights if it is time, and zero those gone.

        Weights are a function of the student's and of the step, so that a training that goes on
        from a checkpoint prunes as the one that was not interrupted.
        """
        values = _parameters(student)
        if self.sparsity.due(step, steps=steps):
            self._choose(values, self.sparsity.ramp(step, steps=steps))
        if self.sparsity.over(step, steps=steps):
            self.get_buffer("_settled").fill_(True)
        self._apply_to(values)

    @torch.no_grad()
    def finish(self, student: nn.Module) -> None:
        """Let all go that are left to go: a training that ended before its time."""
        values = _parameters(student)
        self._choose(values, 1.0)
        self.get_buffer("_settled").fill_(True)
        self._apply_to(values)

    def lines(self) -> list[str]:
        """What is pruned, for people."""
        count = sum(gone.numel() for gone in self.gone().values())
        where = f"{len(self.weights)} layers, {count} weights that can be pruned"
        if self.sparsity.to == HOLD:
            return [f"{where}; the {self._first:.1%} that are zero stay so"]
        to = self.sparsity.to
        goal = f"{to:.1%} of them" if isinstance(to, float) else f"all but {to} of every group"
        return [f"{where}; {goal} become zero ({self.sparsity.schedule})"]

    def _choose(self, values: Mapping[str, Tensor], ramp: float) -> None:
        if self.sparsity.to == HOLD:
            return
        scores = {
            # What is gone is gone: it comes before everything that is there.
            name: values[name].detach().abs().float().masked_fill(gone, -1.0)
            for name, gone in self.gone().items()
        }
        if self.sparsity.pattern is not None:
            kept, group = self.sparsity.pattern
            zeros = math.floor((group - kept) * ramp + 0.5)
            for weight, gone in zip(self.weights, self.gone().values(), strict=True):
                gone.logical_or_(_of_groups(scores[weight.name], weight.inputs, group, zeros))
            return
        goal = float(self.sparsity.to)
        if self.sparsity.scope == "layer":
            for name, gone in self.gone().items():
                gone.logical_or_(_smallest(scores[name].flatten(), goal * ramp).view_as(gone))
            return
        for score in scores.values():
            _protect(score)
        flat = torch.cat([score.flatten() for score in scores.values()])
        found = _smallest(flat, self._first + (goal - self._first) * ramp)
        parts = torch.split(found, [score.numel() for score in scores.values()])
        for gone, part in zip(self.gone().values(), parts, strict=True):
            gone.logical_or_(part.view_as(gone))

    def _apply_to(self, values: Mapping[str, Tensor]) -> None:
        for name, gone in self.gone().items():
            values[name].masked_fill_(gone, 0.0)
        for number, name in enumerate(self.held):
            values[name].masked_fill_(self.get_buffer(f"held_{number}"), 0.0)


def _parameters(student: nn.Module) -> dict[str, nn.Parameter]:
    return dict(inner(student).named_parameters())


def _smallest(scores: Tensor, share: float) -> Tensor:
    """Which entries are among the smallest, of equal ones the first: exactly that share."""
    count = round(share * scores.numel())
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    bound = scores.kthvalue(count).values
    found = scores < bound
    equal = (scores == bound).nonzero().flatten()[: count - int(found.sum())]
    found[equal] = True
    return found


def _protect(score: Tensor) -> None:
    """Put the largest of a layer out of reach, in place."""
    count = math.ceil(LEAST * score.numel())
    score.view(-1)[score.flatten().topk(count).indices] = torch.inf


def _of_groups(scores: Tensor, inputs: int, group: int, zeros: int) -> Tensor:
    """The smallest of every group of consecutive inputs."""
    rows = scores.movedim(inputs, -1)
    order = rows.reshape(-1, group).argsort(dim=1, stable=True)
    found = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :zeros], True)
    return found.view(rows.shape).movedim(-1, inputs)


def _check_pattern(to: str) -> None:
    found = re.fullmatch(r"(\d+):(\d+)", to)
    if to != HOLD and (found is None or not 0 < int(found[1]) < int(found[2])):
        raise ValueError(
            f"a pattern is `N:M` with `0 < N < M`, but got to={to!r}: 2:4 leaves two of every four "
            f"weights, and `{HOLD}` only those that are zero already as they are"
        )
