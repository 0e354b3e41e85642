"""What the rooms say to each other: batches, knowledge, teachers, students and tasks.

Nothing here assumes classification: a model answers with one row of `width` numbers per example,
and the task says what these numbers mean.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from understudy.errors import ModelError

STATES: Final = "states"
"""The name, as knowledge, of what a teacher's head makes logits of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows on their way to a model.

    Attributes:
        inputs: raw rows after their view, `[batch, ...]`; models scale them inside.
        labels: hard labels, `[batch]` int64 (-1: unlabelled) or `[batch, targets]` float
            (NaN: unlabelled); None where no row has one.
        ids: int64 `[batch]`; None where rows have no identity, so only a live teacher can answer.
        views: int64 `[batch]`, which augmented form each row is in (0: as it is); None means 0.
        teacher_inputs: what the teacher sees where that differs from `inputs`.
        partners: int64 `[batch]` ids that each row was mixed with.
        partner_labels: the partners' hard labels, in the form of `labels`.
        shares: float `[batch]`, how much of a mixed row is its own (1: all of it); its hard loss
            is `share` times the loss of its own label plus the rest times its partner's.
        positions: bool `[batch, length]`, where a model is asked once per token instead of once
            per row: which positions count. `labels` is `[batch, length]` then (-1: unlabelled),
            answers are `[batch, length, width]`, and knowledge is `Ragged`: a row's positions that
            count, in order.
        real: bool `[batch, length]`, of rows of token ids: which are no padding. The objective
            marks them, and terms that compare tokens leave the others out.
    """

    inputs: Tensor
    labels: Tensor | None = None
    ids: Tensor | None = None
    views: Tensor | None = None
    teacher_inputs: Tensor | None = None
    partners: Tensor | None = None
    partner_labels: Tensor | None = None
    shares: Tensor | None = None
    positions: Tensor | None = None
    real: Tensor | None = None

    def __len__(self) -> int:
        return int(self.inputs.shape[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """Distributions told by some of their outcomes, as a store of large vocabularies holds them.

    Attributes:
        ids: int64 `[positions, k]`, which class; -1 where a position lists fewer than k.
        log_mass: float32 `[positions, k]`, natural logarithm of what each listed outcome weighs
            at temperature 1; -inf where `ids` is -1.
        rest: float32 `[positions]`, natural logarithm of the mass of all classes that are not
            listed; -inf where nothing is left.
        classes: how many classes there are.
        sampled: whether `log_mass` are importance weights whose expectation is the teacher's
            distribution (`rest` is -inf then), instead of its own probabilities.
        entropy: float32 `[positions]`, the teacher's entropy in nats, with sampled ones.
    """

    ids: Tensor
    log_mass: Tensor
    rest: Tensor
    classes: int
    sampled: bool = False
    entropy: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Outcomes":
        """The same on another device."""
        moved = {n: getattr(self, n).to(device) for n in ("ids", "log_mass", "rest")}
        entropy = None if self.entropy is None else self.entropy.to(device)
        return replace(self, entropy=entropy, **moved)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ragged:
    """One sequence per example, of different lengths, joined end to end.

    Attributes:
        values: `[positions, ...]`, or outcomes of as many positions.
        lengths: int64 `[batch]`, positions per example; they sum to `positions`.
    """

    values: Tensor | Outcomes
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> "Ragged":
        """The same on another device."""
        return Ragged(values=self.values.to(device), lengths=self.lengths.to(device))


Told = Tensor | Outcomes | Ragged


def per_position(name: str, told: Told, positions: Tensor) -> Ragged:
    """What is said of the positions that count, row after row.

    A dense answer `[batch, length, ...]` is picked from; sequences that are joined already must
    have as many positions in every row.

    Args:
        name: of the knowledge, for errors.
        told: what a model says of a batch.
        positions: bool `[batch, length]`, which of them count.

    Raises:
        ModelError: it says something of more or fewer positions, or one thing per row.
    """
    wanted = positions.sum(dim=1)
    if isinstance(told, Ragged):
        found = told.lengths.to(wanted.device)
        if found.shape != wanted.shape or not torch.equal(found, wanted):
            raise ModelError(
                f"{name} must be told of every position that counts, but it is told of "
                f"{int(found.sum())} positions in {len(found)} rows and {int(wanted.sum())} in "
                f"{len(wanted)} rows count: label again, or ask with the same tokenizer"
            )
        return told
    shape = [len(told)] if isinstance(told, Outcomes) else list(told.shape)
    if isinstance(told, Outcomes) or shape[:2] != list(positions.shape):
        raise ModelError(
            f"{name} must be one answer per position, [{positions.shape[0]}, "
            f"{positions.shape[1]}, ...], but has shape {shape}: give the network a head per token"
        )
    counted = positions.to(told.device)
    return Ragged(values=told[counted], lengths=wanted.to(told.device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge(Mapping[str, Told]):
    """What a model says of a batch, by name: `logits`, `values`, features by module path.

    One row per example: a tensor, listed outcomes, or sequences of different lengths.
    """

    fields: Mapping[str, Told] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Told:
        if name not in self.fields:
            raise ModelError(
                f"knowledge `{name}` is not there; there is: {', '.join(sorted(self.fields))}"
            )
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def tensor(self, name: str) -> Tensor:
        """A field that is one tensor.

        Raises:
            ModelError: it is not there, or not told in full.
        """
        found = self[name]
        if not isinstance(found, Tensor):
            raise ModelError(
                f"knowledge `{name}` is needed in full, but is stored as "
                f"{type(found).__name__.lower()}: choose a dense `labels.codec`"
            )
        return found


@runtime_checkable
class Teacher(Protocol):
    """A model that knows. The engine calls it once per batch; the label recorder once per shard."""

    @property
    def offers(self) -> frozenset[str]:
        """The names of the knowledge it can give; compared with the objective's needs."""

    def __call__(self, batch: Batch) -> Knowledge:
        """What it knows of the batch, without gradient, one row per example, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A module that learns, and where its parts came from.

    Attributes:
        module: raw rows in, `[batch, width]` out.
        provenance: the student's block paths to the teacher's, empty for a fresh network; what a
            block of the teacher reads is `PATH:input`.
    """

    module: nn.Module
    provenance: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """What is asked of a model. The objective, the evaluation and the report ask it."""

    @property
    def name(self) -> str:
        """`classification`, `regression`, ..."""

    @property
    def output(self) -> str:
        """The name of a model's answer as knowledge: `logits` or `values`."""

    @property
    def width(self) -> int:
        """How many numbers a model answers per row."""

    def hard_loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Comparable answers and labels to one loss per row; 0 where the row is unlabelled."""

    def comparable(self, values: Tensor) -> Tensor:
        """Answers (or labels in their form) in the units that losses are taken in."""

    def labelled(self, labels: Tensor) -> Tensor:
        """Which rows have a hard label, bool `[batch]`."""


@runtime_checkable
class Tracker(Protocol):
    """Reports how far one piece of work is; the engine and the recorder call it."""

    def __call__(self, done: int, note: str = "") -> None:
        """Say that `done` units of the total are finished."""


@runtime_checkable
class Progress(Protocol):
    """Where long work shows itself: a bar in a terminal, plain lines elsewhere, or nowhere."""

    def track(self, name: str, total: int, unit: str) -> AbstractContextManager[Tracker]:
        """Begin a piece of work of `total` units."""

    def say(self, line: str) -> None:
        """One quiet line: what was chosen, skipped or found."""


class Silent:
    """Progress that nobody watches."""

    def track(self, name: str, total: int, unit: str) -> AbstractContextManager[Tracker]:
        """Begin a piece of work that is not shown."""
        del name, total, unit
        return nullcontext(_nowhere)

    def say(self, line: str) -> None:
        """Drop the line."""


def _nowhere(done: int, note: str = "") -> None:
    del done, note
