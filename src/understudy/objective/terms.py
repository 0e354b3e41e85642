"""One term: a loss, its weight, and what it reads of student and teacher."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from understudy.recipe import Schedule

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A layer of the student and the layer of the teacher that it is compared with.

    Attributes:
        student: where in the student, in the words of `features.spots`.
        teacher: where in the teacher; also the name of that knowledge.
    """

    student: str
    teacher: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One loss of an objective.

    Attributes:
        name: its kind, unique in the objective; what logs and errors call it.
        loss: called with the student's knowledge and its target; one value per row.
        reads: what it reads of the student: the name of its answer, `features`, or `weights` for a
            constraint, which is called with the weights and their starts and gives one value.
        needs: what it needs of the teacher, by name; `features` stands for the pairs' layers.
        labels: whether its target is the hard label.
        also: what else of the batch the loss is called with by name: `labels`.
        weight: a number, a schedule, or `auto`: brought to the gradient norm of the others.
        temperature: a schedule for losses that have a temperature; None leaves the loss's own.
        pairs: the layers that it compares, where it reads features.
        together: whether the loss takes all pairs at once, as two lists; else one after the other.
        adapter: what it learns or remembers; trained, checkpointed and left behind at export.
        adapter_kind: what kind of adapter that is; a later phase takes over one of the same kind.
        related: whether a row's value depends on its batch, which then needs two rows.
        control: whether the control trains with it too: plain learning from hard labels, or a
            constraint. None: it does where the target is the hard label, or it reads weights.
        teaches: whether its gradient is meant to reach the student. One that only prepares an
            adapter for a later phase does not.
    """

    name: str
    loss: nn.Module
    reads: str
    needs: tuple[str, ...] = ()
    labels: bool = False
    also: tuple[str, ...] = ()
    weight: float | Schedule | Literal["auto"] = 1.0
    temperature: Schedule | None = None
    pairs: tuple[Pair, ...] = ()
    together: bool = False
    adapter: nn.Module | None = None
    adapter_kind: str = ""
    related: bool = False
    control: bool | None = None
    teaches: bool = True

    @property
    def key(self) -> str:
        """Its name as a part of a module's: without the dots, which would be levels."""
        return self.name.replace(".", "_")

    @property
    def plain(self) -> bool:
        """Whether the control trains with it."""
        known = self.labels or self.reads == "weights"
        return known if self.control is None else self.control

    @property
    def wants(self) -> tuple[str, ...]:
        """The names of the teacher's knowledge, layers included."""
        return tuple(n for n in self.needs if n != "features") + tuple(
            dict.fromkeys(pair.teacher for pair in self.pairs)
        )


def scheduled(value: float | Schedule, *, epoch: float, epochs: int) -> float:
    """The value of a number or a schedule at a fractional epoch."""
    if not isinstance(value, Schedule):
        return value
    share = min(1.0, max(0.0, epoch / (value.epochs or epochs)))
    if value.kind == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return value.start + (value.end - value.start) * share


def usual(weight: float | Schedule | Literal["auto"]) -> float:
    """One number for a weight: the mean of a schedule's ends, 1 for one that is found later."""
    if weight == AUTO:
        return 1.0
    return (weight.start + weight.end) / 2 if isinstance(weight, Schedule) else float(weight)
