"""Scores of positions, with texts as what is drawn: a text's tokens are no independent rows.

A score is taken over all positions of all texts. Its interval and its paired comparison treat a
text as one unit, whose share of the score is the sum over its positions. For a mean over positions
that is the ratio of two means over texts, how much and how many (Cochran 1977, "Sampling
Techniques", section 6.3); for any other score of moments likewise.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray

from understudy.errors import DataError
from understudy.evaluate.measures import classes_of
from understudy.evaluate.quality import Moments, Score, ToRows, moment_score

Numbers = NDArray[np.int64]


def by_row(score: Score, lengths: Int64[np.ndarray, " texts"]) -> Score:
    """A score of positions as one whose rows are texts; its value stays the same.

    Args:
        score: a mean over positions, or a function of a few such means.
        lengths: how many scored positions each text has; 0 is allowed.

    Raises:
        DataError: the score is neither.
    """
    if score.per_row is not None:
        per_row = score.per_row
        moments: ToRows = lambda answers, labels: per_row(answers, labels)[:, None]  # noqa: E731
        finish: Callable[[np.ndarray], np.ndarray] = _only
    elif score.moments is not None:
        moments, finish = score.moments.rows, score.moments.finish
    else:
        raise DataError(
            f"`{score.name}` must be made of means over positions to be scored text by text: give "
            "it `per_row` or `moments`"
        )

    def rows(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        found = moments(answers, labels)
        if len(found) != int(lengths.sum()):
            raise DataError(
                f"every scored position must belong to a text, but got {len(found)} positions and "
                f"texts of {int(lengths.sum())} in all"
            )
        return np.concatenate([sums(found, lengths), lengths[:, None].astype(np.float64)], axis=1)

    def ended(means: np.ndarray) -> np.ndarray:
        count = means[..., -1:]
        share = np.divide(
            means[..., :-1], count, out=np.full(means[..., :-1].shape, np.nan), where=count > 0
        )
        return finish(share)

    return replace(score, per_row=None, moments=Moments(rows=rows, finish=ended))


def sums(
    values: Float[np.ndarray, " positions moments"], lengths: Int64[np.ndarray, " texts"]
) -> Float64[np.ndarray, " texts moments"]:
    """The sum over each text's positions, which lie one text after the other."""
    before = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    ends = np.cumsum(lengths)
    return np.asarray(before[ends] - before[ends - lengths], np.float64)


def class_f1(number: int) -> Score:
    """The F1 of one class."""
    return moment_score(
        name=f"f1 of class {number}",
        higher_is_better=True,
        moments=Moments(
            rows=lambda answers, labels: _counts(answers, labels)[:, number :: answers.shape[1]],
            finish=lambda means: _f1(means)[..., 0],
        ),
        unit="share",
    )


def _counts(answers: np.ndarray, labels: np.ndarray) -> NDArray[np.float64]:
    """Hits, answers and labels of each class, `[positions, 3 classes]`."""
    logits, classes = classes_of(answers, labels)
    width = logits.shape[1]
    chosen = logits.argmax(axis=1)
    every = np.arange(len(chosen))
    found = np.zeros((len(chosen), 3 * width))
    right = chosen == classes
    found[every[right], chosen[right]] = 1
    found[every, width + chosen] = 1
    found[every, 2 * width + classes] = 1
    return found


def _f1(means: np.ndarray) -> NDArray[np.float64]:
    hits, answered, there = np.split(means, 3, axis=-1)
    both = answered + there
    # Sums of sums come back with rounding errors where a text was left out.
    known = both > 1e-12
    return np.asarray(np.divide(2 * hits, both, out=np.full(hits.shape, np.nan), where=known))


def _mean_f1(means: np.ndarray) -> NDArray[np.float64]:
    each = _f1(means)
    known = np.isfinite(each)
    total = np.where(known, each, 0.0).sum(axis=-1)
    count = known.sum(axis=-1)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.asarray(mean)


def _only(means: np.ndarray) -> NDArray[np.float64]:
    return np.asarray(means[..., 0])


# The mean of every class's F1, which is twice the hits over answers and labels of the class. No
# class is left out, however common; one that stands neither in labels nor in answers has no F1.
MACRO_F1 = moment_score(
    name="macro_f1",
    higher_is_better=True,
    moments=Moments(rows=_counts, finish=_mean_f1),
    unit="share",
)
