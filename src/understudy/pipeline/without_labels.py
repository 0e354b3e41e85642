"""Runs whose training rows have no hard label: what is refused, and what can still be said.

There is no control then: nobody can train without a teacher on rows that nobody has labelled. So
nothing shows what the teacher was worth, and the verdict says what is left, the student against its
teacher on test rows, where these have labels, or how alike the two answer, where they have none.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import Rows
from understudy.errors import DataError
from understudy.evaluate.quality import Score, row_values
from understudy.evaluate.verdict import Verdict, judge, unproved
from understudy.pipeline.work import Work
from understudy.recipe import Recipe

WHY = "no training row has a hard label, so there is no control to compare with"
NO_UNITS = (
    "a regression learns in the units of its training labels, but no training row has one: label "
    "some rows, or raise `data.labelled`"
)


def described(rows: Rows, classes: tuple[str, ...] | None, *, each_word: bool = False) -> Rows:
    """Rows without any label with the classes that their answers are of.

    Args:
        rows: of the source.
        classes: what a teacher is told of, where it is told.
        each_word: whether every word has a class; the source names them then.

    Raises:
        DataError: nobody names the classes of words.
    """
    if classes is not None and not rows.classes and not rows.labelled.any():
        return replace(rows, classes=classes, labels=None)
    if each_word and rows.texts is not None and rows.labels is None:
        if not rows.classes:
            raise DataError(
                "words must have labels or classes that a teacher tells them apart by, but no row "
                "of this source has a label and it names no `classes`: name the `target` column, "
                "or all classes in the order of the teacher's answers, `classes: [...]`"
            )
        return replace(rows, labels=np.full((len(rows), 1), -1, np.int64))
    return rows


def check_unlabelled(recipe: Recipe, *, any_label: bool) -> None:
    """Refuse what needs labels, before anything is trained.

    Args:
        recipe: the run's.
        any_label: whether any row that a teacher may train on has a label, one that is hidden from
            the student included.

    Raises:
        DataError: a teacher to be trained, or a choice by validation score.
    """
    if recipe.teacher.training is not None and not any_label:
        raise DataError(
            "a teacher that is trained here learns from hard labels, but no training row has one: "
            "load a trained one (`weights`, `onnx`, `predictor`), or use `zero_shot`"
        )
    for phase in recipe.phases:
        training = phase.training
        if training is None:
            continue
        if training.choose == "validation" or training.early_stopping is not None:
            raise DataError(
                "`choose: validation` and `early_stopping` go by a score on labelled rows, but "
                "this student is to see no label: remove them, or raise `data.labelled`"
            )


def check_needs(work: Work, needs: frozenset[str]) -> None:
    """Refuse an objective from which nothing can be learned.

    Raises:
        DataError: no label, and no term that reads the teacher.
    """
    if work.unlabelled and not needs:
        raise DataError(
            "no training row has a hard label, and no term of the objective reads the teacher, so "
            "there is nothing to learn from: add `soft_target`"
        )


def control_of(work: Work) -> dict[str, Any]:
    """Whether a control was trained, and why not, as it stands in `run.json`."""
    if work.has_control:
        return {"trained": True, "why_not": None}
    return {"trained": False, "why_not": WHY if work.unlabelled else "`control: false`"}


def primary_score(work: Work, teacher: NDArray[Any], labels: NDArray[Any]) -> Score:
    """What models are compared by: the task's first score, or likeness to this teacher."""
    task = work.material.task
    if labelled(work, labels):
        return task.scores[0]
    return task.fidelity(teacher.astype(np.float64))[0]


def told_verdict(
    work: Work,
    answers: Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    primary: Score,
    *,
    tested: int,
) -> tuple[Verdict, dict[str, Any] | None]:
    """The verdict without a control, and the student against its teacher as plain data.

    Args:
        work: the run.
        answers: of teacher `[1, rows, width]` and student `[seeds, rows, width]`.
        labels: of these rows.
        primary: the score that rows are compared by; per token with texts for its rows.
        tested: how many rows these are; per token each has many labels and answers.
    """
    if not labelled(work, labels):
        alike = np.mean(
            [primary.value(one.astype(np.float64), labels) for one in answers["student"]]
        )
        word = f"{100 * alike:.1f}% of" if primary.unit == "share" else f"{alike:.3f} on"
        return unproved(
            f"{WHY}. No test row has a label either, so there is no claim about how good the "
            f"student is; it answers like its teacher ({primary.name}) {word} "
            f"{tested:,} test rows"
        ), None
    rows = {
        name: np.stack([row_values(primary, o.astype(np.float64), labels) for o in answers[name]])
        for name in ("teacher", "student")
    }
    found = judge(
        rows["student"],
        np.broadcast_to(rows["teacher"], rows["student"].shape).copy(),
        higher_is_better=primary.higher_is_better,
        margin=work.recipe.evaluate.margin,
    )
    values = {n: _mean_value(primary, answers[n], labels) for n in ("student", "teacher")}
    sentence = (
        f"{WHY}. On {rows['student'].shape[1]:,} labelled test rows the student has {primary.name} "
        f"{_shown(values['student'], primary)}, its teacher {_shown(values['teacher'], primary)}"
    )
    if found.low is not None and found.high is not None:
        scale, digits = (100, 2) if primary.unit == "share" else (1, 3)
        ends = " to ".join(f"{scale * end:+.{digits}f}" for end in (found.low, found.high))
        seeds = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
        sentence += f" (student less teacher, 95% interval {ends}, {seeds})"
    beside = {key: getattr(found, key) for key in ("effect", "low", "high", "seeds", "rows")}
    return unproved(sentence), beside


def labelled(work: Work, labels: NDArray[Any]) -> bool:
    """Whether rows have labels to score by."""
    return bool(work.material.task.labelled_rows(labels).any())


def _mean_value(score: Score, given: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(np.mean([score.value(one.astype(np.float64), labels) for one in given]))


def _shown(value: float, score: Score) -> str:
    return f"{100 * value:.2f}%" if score.unit == "share" else f"{value:.4g}"
