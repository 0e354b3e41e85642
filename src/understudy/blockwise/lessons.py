"""What several students learn from: the same rows, and answers of a teacher that was asked once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.blockwise.sources import rows_fingerprint
from understudy.contracts import Batch, Knowledge, Teacher
from understudy.engine import Fitted, Validate, fit
from understudy.errors import DataError
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record
from understudy.labels.store import LabelStore
from understudy.losses import HardLabel, SoftTargetKL
from understudy.models.weights import weights_fingerprint
from understudy.objective import Objective, Term
from understudy.recipe import Training
from understudy.tasks.classification import Classification
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.torch_module import TorchTeacher

LOGITS = "logits"
Index = NDArray[np.int64]
# The batches of some rows in the order of a seed; None: in their own order.
Batches = Callable[[Index, int | None], Iterable[Batch]]
# A fresh objective for a student of so many classes.
Aims = Callable[[Teacher, int], Objective]


def soft_and_hard(teacher: Teacher, classes: int) -> Objective:
    """0.9 of the soft targets at temperature 4 and 0.1 of the hard labels, where rows have one.

    Raises:
        ModelError: the teacher offers no logits.
    """
    terms = (
        Term(
            name="soft_target",
            loss=SoftTargetKL(temperature=4.0),
            reads=LOGITS,
            needs=(LOGITS,),
            weight=0.9,
        ),
        Term(name="hard_label", loss=HardLabel(), reads=LOGITS, labels=True, weight=0.1),
    )
    task = Classification(classes=tuple(str(number) for number in range(classes)))
    listed: frozenset[str] = getattr(teacher, "listed", frozenset())
    return Objective(terms, task=task, offers=teacher.offers, listed=listed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """What students learn from.

    Attributes:
        teacher: best one that says again what was stored (`stored`); any other is asked at every
            step of every student.
        batches: makes the batches of given rows, such as a `MemoryLoader`.
        positions: the rows to learn from, as `batches` counts them.
        classes: how many the teacher tells of.
        training: everything about optimization.
        aims: makes the objective of each student.
        held_out: rows for validation, if any.
        validate: answers and labels of those to a score, higher for better ones.
    """

    teacher: Teacher
    batches: Batches
    positions: Index
    classes: int
    training: Training
    aims: Aims = soft_and_hard
    held_out: Index | None = None
    validate: Validate | None = None

    def __post_init__(self) -> None:
        """Refuse what would be found anew for each student.

        Raises:
            ValueError: the precision is left open.
        """
        if self.training.precision == "auto":
            raise ValueError(
                "students that are compared must compute alike, but `precision: auto` is found out "
                "for each: name `float32` or `bfloat16`"
            )


def learn(
    network: nn.Module,
    lesson: Lesson,
    *,
    seed: int = 0,
    folder: Path | None = None,
    name: str = "the student",
) -> Fitted:
    """Fine-tune a network in place, by the one engine.

    Args:
        network: takes the rows of the batches, answers `[batch, classes]`.
        lesson: what it learns from.
        seed: of the order of rows and all that is random in a step.
        folder: for checkpoints; one that is found there is gone on from.
        name: what errors call it.

    Raises:
        ModelError: the teacher does not offer what the objective needs.
        StoreError: a row was never labelled.
        TrainingError: as of `engine.fit`.
    """
    held = lesson.held_out
    return fit(
        student=network,
        objective=lesson.aims(lesson.teacher, lesson.classes),
        teacher=lesson.teacher,
        training=lesson.training,
        loader=lesson.batches(lesson.positions, seed),
        validation=None if held is None else lesson.batches(held, None),
        validate=lesson.validate,
        seed=seed,
        folder=folder,
        name=name,
    )


def narrowed(lesson: Lesson, group: Sequence[int], told: Index) -> Lesson:
    """The same lesson for a group of classes: its rows alone, its classes counted from 0.

    The teacher's answers are restricted to the group and renormalised; nothing is asked anew.

    Args:
        lesson: of all classes.
        group: two classes or more.
        told: the class of every row by its position: its label, or the teacher's first choice.

    Raises:
        DataError: fewer than two rows are of the group.
    """
    own = np.isin(told, list(group))
    positions = lesson.positions[own[lesson.positions]]
    if len(positions) < 2:
        raise DataError(
            f"two rows or more of classes {list(group)} are needed to learn from, but there are "
            f"{len(positions)}: join the group with another"
        )
    held = None if lesson.held_out is None else lesson.held_out[own[lesson.held_out]]
    # No hard label names a class of another group; one beyond the classes is left for the engine.
    places = torch.full((lesson.classes,), -1)
    places[list(group)] = torch.arange(len(group))

    def batches(positions: Index, seed: int | None) -> Iterable[Batch]:
        return _Renamed(lesson.batches(positions, seed), places)

    return replace(
        lesson,
        teacher=Within(lesson.teacher, group),
        batches=batches,
        positions=positions,
        classes=len(group),
        held_out=held if held is not None and len(held) else None,
    )


class Within:
    """A teacher that tells of a group of classes only.

    It gives its logits there, so that the softmax over them is its distribution given that the
    class is one of the group.
    """

    def __init__(self, teacher: Teacher, group: Sequence[int]) -> None:
        """Restrict `teacher` to `group`."""
        self._teacher, self._group = teacher, torch.tensor(list(group))

    @property
    def offers(self) -> frozenset[str]:
        """Logits, if the teacher has them."""
        return self._teacher.offers & {LOGITS}

    def __call__(self, batch: Batch) -> Knowledge:
        """The restricted logits `[batch, group]`.

        Raises:
            ModelError: the teacher does not tell of all classes.
        """
        told = self._teacher(batch).tensor(LOGITS)
        return Knowledge(fields={LOGITS: told[:, self._group.to(told.device)]})


class _Renamed:
    """Batches whose labels are places in a group; -1 where the class is not of it."""

    def __init__(self, batches: Iterable[Batch], places: Tensor) -> None:
        self._batches, self._places = batches, places

    @property
    def sampler(self) -> Any:
        """What is told the epoch, if the batches have such."""
        return getattr(self._batches, "sampler", None)

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield replace(
                batch,
                labels=self._renamed(batch.labels),
                partner_labels=self._renamed(batch.partner_labels),
            )

    def _renamed(self, labels: Tensor | None) -> Tensor | None:
        if labels is None:
            return None
        places = self._places.to(labels.device)
        return torch.where(labels >= 0, places[labels.clamp(min=0)], -1)


def stored(
    network: nn.Module,
    rows: Tensor,
    folder: Path,
    *,
    ids: Tensor | None = None,
    batch_size: int = 256,
) -> CachedTeacher:
    """Ask a network once for all rows, and from then on a label store in its place.

    A store in the folder that is of the same network and rows is used as it is; one that was
    interrupted is gone on with.

    Args:
        network: raw rows to logits; it is put into evaluation mode.
        rows: `[rows, ...]`.
        folder: of the store.
        ids: int64 `[rows]`, their identities; by default their positions.
        batch_size: rows per call.

    Raises:
        StoreError: the folder holds the answers of another network or of other rows, or an answer
            is not finite.
        DataError: not one id per row.
    """
    names = torch.arange(len(rows)) if ids is None else ids
    if len(names) != len(rows):
        raise DataError(f"one id per row is needed, but got {len(names)} for {len(rows)} rows")
    marks = {
        "teacher": weights_fingerprint(network),
        "data": rows_fingerprint(rows),
        "ids": rows_fingerprint(names),
    }

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for first in range(start, stop, batch_size):
            here = slice(first, min(first + batch_size, stop))
            yield Batch(inputs=rows[here], ids=names[here])

    portions = cut(batches, rows=len(rows), batch_size=batch_size, shard_rows=65536)
    record(
        engine=Serial(TorchTeacher(network, output=LOGITS), portions),
        rows=portions.rows,
        keep={LOGITS: Keep(codec=codecs.make("dense", {}, {}), reads=LOGITS)},
        place=LocalPlace(folder),
        fingerprints=marks,
    )
    return CachedTeacher(LabelStore(folder, expect=marks))
