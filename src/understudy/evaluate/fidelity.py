"""How much a student answers like its teacher, and how well it knows what it does not know."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped
from scipy.special import log_softmax

from understudy.errors import ModelError
from understudy.evaluate.measures import BINS, classes_of, confidence_bins, finite
from understudy.evaluate.quality import (
    R2_MOMENTS,
    RMSE_MOMENTS,
    Moments,
    Score,
    mean_score,
    moment_score,
)


class ReliabilityBin(NamedTuple):
    """One bin of a reliability diagram: mean confidence, share of hits, how many rows."""

    confidence: float
    accuracy: float
    rows: int


def agreement(
    student_outputs: Float[np.ndarray, " rows width"],
    teacher_outputs: Float[np.ndarray, " teacher_rows teacher_width"],
) -> Float64[np.ndarray, " rows"]:
    """1 where student and teacher put the same class first, else 0, `[rows]`.

    Raises:
        ModelError: the two do not answer the same rows with the same classes, or not finitely.
    """
    student, teacher = _matched(student_outputs, teacher_outputs)
    same = student.argmax(axis=1) == teacher.argmax(axis=1)
    return np.asarray(same, dtype=np.float64)


def divergence(
    student_outputs: Float[np.ndarray, " rows width"],
    teacher_outputs: Float[np.ndarray, " teacher_rows teacher_width"],
) -> Float64[np.ndarray, " rows"]:
    """KL(teacher || student) of the two softmax distributions, `[rows]`, in nats; 0 at equality.

    At temperature 1, whatever temperature the student learned with.

    Raises:
        ModelError: the two do not answer the same rows with the same classes, or not finitely.
    """
    student, teacher = _matched(student_outputs, teacher_outputs)
    log_student, log_teacher = log_softmax(student, axis=1), log_softmax(teacher, axis=1)
    terms = np.exp(log_teacher) * (log_teacher - log_student)
    # Rounding alone can take a divergence below zero.
    return np.asarray(np.maximum(terms.sum(axis=1), 0.0))


def agreement_score(teacher_outputs: Float[np.ndarray, " rows width"]) -> Score:
    """`agreement` with this teacher as a score; the labels are not read."""
    return mean_score(
        name="agreement",
        higher_is_better=True,
        per_row=lambda outputs, _: agreement(outputs, teacher_outputs),
        unit="share",
    )


def divergence_score(teacher_outputs: Float[np.ndarray, " rows width"]) -> Score:
    """`divergence` from this teacher as a score; the labels are not read."""
    return mean_score(
        name="divergence",
        higher_is_better=False,
        per_row=lambda outputs, _: divergence(outputs, teacher_outputs),
        unit="nats",
    )


def regression_agreement(teacher_outputs: Float[np.ndarray, " rows width"]) -> tuple[Score, Score]:
    """R2 and RMSE of a student with the teacher's answers for labels; the labels are not read.

    Raises:
        ModelError: the teacher's answers are not finite.
    """
    teacher = finite(teacher_outputs)
    likeness, distance = _against(R2_MOMENTS, teacher), _against(RMSE_MOMENTS, teacher)
    return (
        moment_score(name="teacher_r2", higher_is_better=True, moments=likeness),
        moment_score(name="teacher_rmse", higher_is_better=False, moments=distance),
    )


def reliability(
    outputs: Float[np.ndarray, " rows width"],
    labels: Shaped[np.ndarray, "*labels"],
    bins: int = BINS,
) -> list[ReliabilityBin]:
    """Mean confidence, share of hits and number of rows in each bin that holds a row.

    The bins of the calibration error: `(m/bins, (m+1)/bins]` of the top softmax probability
    (Guo et al. 2017, section 2).

    Raises:
        DataError: the labels are not one class in `[0, width)` per row.
        ModelError: an answer is not finite.
    """
    confidence, right, place = confidence_bins(outputs, labels, bins)
    counts = np.bincount(place, minlength=bins)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    hit = np.bincount(place, weights=right, minlength=bins)
    return [
        ReliabilityBin(float(sure[b] / counts[b]), float(hit[b] / counts[b]), int(counts[b]))
        for b in np.flatnonzero(counts)
    ]


def confusion(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Int64[np.ndarray, " width width"]:
    """How many rows of each label (first axis) got each answer (second axis), `[classes, classes]`.

    Raises:
        DataError: the labels are not one class in `[0, width)` per row.
        ModelError: an answer is not finite.
    """
    logits, classes = classes_of(outputs, labels)
    width = logits.shape[1]
    cells = np.bincount(classes * width + logits.argmax(axis=1), minlength=width * width)
    return cells.reshape(width, width).astype(np.int64)


def _against(moments: Moments, teacher: np.ndarray) -> Moments:
    """Moments that read the teacher's answers in place of the labels."""
    return Moments(
        rows=lambda outputs, _: moments.rows(outputs, _matched(outputs, teacher)[1]),
        finish=moments.finish,
    )


def _matched(student: np.ndarray, teacher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if student.shape != teacher.shape or not student.size:
        raise ModelError(
            "student and teacher must answer the same rows with the same width, but got "
            f"{student.shape} and {teacher.shape}"
        )
    return finite(student), finite(teacher)
