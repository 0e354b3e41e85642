"""Which objective a task has, and what of a student it is told."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from understudy.contracts import Batch, Task
from understudy.evaluate.language import surprise_of
from understudy.losses import HardLabel
from understudy.losses.vocabulary import LinearHead
from understudy.objective.control import control_objective
from understudy.objective.joined import Objective
from understudy.objective.positions import scored
from understudy.objective.terms import Term, usual
from understudy.objective.vocabulary import VocabularyObjective, spoken
from understudy.tasks.language_model import LanguageModel, told

AnyObjective = Objective | VocabularyObjective


def objective_of(
    terms: Sequence[Term],
    *,
    task: Task,
    offers: frozenset[str],
    listed: frozenset[str] = frozenset(),
    head: LinearHead | None = None,
    pad: int | None = None,
) -> AnyObjective:
    """The terms joined; arguments as of `VocabularyObjective`, `pad` as of `Objective`.

    Raises:
        ModelError: a term that this task or this teacher cannot serve.
    """
    if isinstance(task, LanguageModel):
        return VocabularyObjective(terms, task=task, offers=offers, listed=listed, head=head)
    return Objective(terms, task=task, offers=offers, listed=listed, pad=pad)


def control_of(terms: Sequence[Term], *, task: Task) -> AnyObjective:
    """What is left without a teacher: `control_objective`, over a vocabulary where there is one."""
    if not isinstance(task, LanguageModel):
        return control_objective(terms, task=task)
    kept = [term for term in terms if term.plain and usual(term.weight) > 0]
    held = [term for term in kept if term.reads == "weights"]
    hard = [term for term in kept if term.reads != "weights"]
    if not hard:
        hard = [Term(name="hard", loss=HardLabel(), reads=task.output, labels=True)]
    alone = [replace(term, weight=1.0 / len(hard), temperature=None) for term in hard]
    return VocabularyObjective([*alone, *held], task=task, offers=frozenset())


def answer(objective: AnyObjective, student: nn.Module, rows: Tensor) -> Any:
    """What an objective is told of a student: its answers, or its states and head.

    Raises:
        ModelError: a language model without states and a head.
    """
    if isinstance(objective, VocabularyObjective):
        return spoken(student, rows)
    return student(rows)


def scored_rows(objective: AnyObjective, student: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Answers and labels that a score is taken of, a few numbers per row or position.

    A language model is told by its states, so that not even one batch of its logits is made.
    """
    task = objective.task
    if not isinstance(task, LanguageModel):
        return scored(student(batch.inputs), batch, task)
    return surprised(student, batch, task)


def surprised(student: nn.Module, batch: Batch, task: LanguageModel) -> tuple[Tensor, Tensor]:
    """Two numbers of every position that predicts something, and what came there."""
    assert batch.labels is not None
    whole = spoken(student, batch.inputs)
    seen = batch.labels >= 0
    labels = batch.labels[seen]
    found = surprise_of(whole.hidden[seen], labels, head=whole.head, columns=task.vocabulary)
    return told(found), labels
