"""Sentence embeddings judged by people's judgement: do alike sentences have alike vectors?

The score is Spearman's correlation of the cosines of pairs with the scores that people gave them:
the order counts, not the scale. Its interval comes from drawing pairs again.
"""

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import rankdata

from understudy.errors import DataError, ModelError
from understudy.evaluate.measures import finite
from understudy.evaluate.quality import Score, mean_score
from understudy.evaluate.resampling import Interval, resample_rows

DRAWS = 1000


def cosines(
    first: Float[np.ndarray, " rows width"], second: Float[np.ndarray, " rows _"]
) -> Float64[np.ndarray, " rows"]:
    """The cosine of the two vectors of every row, -1 to 1; 0 where one of them is zero.

    Raises:
        ModelError: the two do not have the same rows and columns, or a number is not finite.
    """
    if first.shape != second.shape or not first.size:
        raise ModelError(
            "pairs of embeddings must have the same rows and columns, but got "
            f"{first.shape} and {second.shape}: embed both sentences with one model"
        )
    one, other = finite(first), finite(second)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = (one * other).sum(axis=1)
    return np.asarray(np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0))


def spearman(found: Float[np.ndarray, " pairs"], scores: Float[np.ndarray, " pairs"]) -> float:
    """Spearman's rank correlation, -1 to 1; NaN where one side is constant.

    Equal values share the mean of their ranks.

    Raises:
        DataError: the two differ in length, or there are fewer than three pairs.
    """
    if found.shape != scores.shape or len(scores) < 3:
        raise DataError(
            "a rank correlation needs one score per pair and three pairs, but got "
            f"{len(found)} cosines and {len(scores)} scores"
        )
    return _correlation(rankdata(found), rankdata(scores))


def spearman_interval(
    found: Float[np.ndarray, " seeds pairs"],
    scores: Float[np.ndarray, " pairs"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over seeds of `spearman`, with a bootstrap interval over seeds and pairs.

    The same pairs are drawn for every seed. Ranks are taken anew in each draw, so ties that
    drawing makes are counted as such.

    Raises:
        DataError: the two differ in length, there are fewer than three pairs, or no seed.
    """
    _check_table(found, scores)
    return resample_rows(
        lambda kept: np.array([spearman(one[kept], scores[kept]) for one in found]),
        rows=len(scores),
        draws=draws,
        seed=seed,
        level=level,
    )


def spearman_kept(
    student: Float[np.ndarray, " seeds pairs"],
    teacher: Float[np.ndarray, " pairs"],
    scores: Float[np.ndarray, " pairs"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The student's `spearman` as a share of the teacher's, 1 where nothing is lost.

    Both are taken on the same drawn pairs, so what is hard about a pair cancels out, and the
    interval is much narrower than that of either. Draws in which the teacher's own correlation is
    not above 0 are left out; they occur only where pairs are very few.

    Args:
        student: cosines of the student's embeddings, a row per seed.
        teacher: cosines of the teacher's.
        scores: what people said.
        draws: how often seeds and pairs are drawn again.
        seed: of the drawing.
        level: share of the draws that lie inside.

    Raises:
        DataError: lengths differ, there are fewer than three pairs or no seed, or the teacher's
            own correlation is not above 0, so that there is nothing to keep.
    """
    _check_table(student, scores)
    whole = spearman(teacher, scores)
    if not whole > 0:
        raise DataError(
            f"the teacher's correlation must be above 0 to be kept, but it is {whole:.3f}: it "
            "knows nothing of these pairs"
        )

    def shares(kept: np.ndarray) -> np.ndarray:
        goal = spearman(teacher[kept], scores[kept])
        if not goal > 0:
            # Of few pairs, some draws show a teacher that knows nothing.
            return np.full(len(student), np.nan)
        return np.array([spearman(one[kept], scores[kept]) / goal for one in student])

    return resample_rows(shares, rows=len(scores), draws=draws, seed=seed, level=level)


def likeness_score(teacher: Float[np.ndarray, " rows width"]) -> Score:
    """The mean cosine with this teacher's embeddings as a score, 1 at best; labels are not read."""
    return mean_score(
        name="teacher_cosine",
        higher_is_better=True,
        per_row=lambda outputs, _: cosines(outputs, teacher),
    )


def _ranked(outputs: Float[np.ndarray, " pairs _"], labels: Float[np.ndarray, " pairs"]) -> float:
    found = spearman(outputs[:, 0], labels)
    # Cosines that are all the same put the pairs in no order at all.
    return found if np.isfinite(found) else 0.0


SPEARMAN = Score(name="spearman", higher_is_better=True, value=_ranked)
"""Spearman's correlation of cosines `[pairs, 1]` with people's scores; 0 where all are the same."""

COSINE = mean_score(name="cosine", higher_is_better=True, per_row=cosines)
"""The mean cosine with reference vectors in the place of labels."""


def _check_table(found: np.ndarray, scores: np.ndarray) -> None:
    if found.ndim != 2 or not len(found) or found.shape[1] != len(scores) or len(scores) < 3:
        raise DataError(
            "cosines must be [seeds, pairs] of one seed and three pairs at least, with one score "
            f"per pair, but got {found.shape} and {len(scores)} scores"
        )


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0 else float("nan")
