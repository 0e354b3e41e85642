"""Scores of one model on labelled rows, and their intervals over seeds and rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped

from understudy.errors import DataError, ModelError
from understudy.evaluate.measures import (
    absolute_errors,
    calibration_error,
    calibration_rows,
    hits,
    r2_of,
    r2_rows,
    root,
    squared_errors,
    surprise,
    top5_hits,
)
from understudy.evaluate.resampling import Interval as Interval
from understudy.evaluate.resampling import pigeonhole, resample_rows

DRAWS = 2000
OPAQUE_DRAWS = 300

# Outputs `[rows, width]` and labels `[rows]` or `[rows, width]`, to a number or to one per row.
ToNumber = Callable[[np.ndarray, np.ndarray], float]
ToRows = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """A score that is a function of means over rows, so that weights and left-out rows are cheap.

    Attributes:
        rows: outputs and labels to `[rows, moments]` float64.
        finish: means `[..., moments]` to scores `[...]`; NaN where they define none.
    """

    rows: ToRows
    finish: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One number that says how good a model is.

    Attributes:
        name: what it is called in tables and in `run.json`.
        higher_is_better: which way is up.
        value: outputs `[rows, width]` and labels to the score.
        per_row: outputs and labels to `[rows]` values whose mean is the score; None where it is
            not a mean over rows.
        moments: the way between, for a score that is a function of a few means over rows.
        unit: `share` (shown in points, hundredths), `nats`, or empty for the labels' own.
    """

    name: str
    higher_is_better: bool
    value: ToNumber
    per_row: ToRows | None = None
    moments: Moments | None = None
    unit: str = ""


def mean_score(*, name: str, higher_is_better: bool, per_row: ToRows, unit: str = "") -> Score:
    """A score that is the mean over rows of `per_row`."""
    return Score(
        name=name,
        higher_is_better=higher_is_better,
        value=lambda outputs, labels: float(np.mean(per_row(outputs, labels))),
        per_row=per_row,
        unit=unit,
    )


def moment_score(*, name: str, higher_is_better: bool, moments: Moments, unit: str = "") -> Score:
    """A score that is a function of a few means over rows."""
    return Score(
        name=name,
        higher_is_better=higher_is_better,
        value=lambda outputs, labels: float(
            moments.finish(moments.rows(outputs, labels).mean(axis=0))
        ),
        moments=moments,
        unit=unit,
    )


ACCURACY = mean_score(name="accuracy", higher_is_better=True, per_row=hits, unit="share")
TOP5 = mean_score(name="top5_accuracy", higher_is_better=True, per_row=top5_hits, unit="share")
NLL = mean_score(name="nll", higher_is_better=False, per_row=surprise, unit="nats")
CALIBRATION = moment_score(
    name="calibration_error",
    higher_is_better=False,
    moments=Moments(rows=calibration_rows, finish=calibration_error),
    unit="share",
)
R2_MOMENTS = Moments(rows=r2_rows, finish=r2_of)
R2 = moment_score(name="r2", higher_is_better=True, moments=R2_MOMENTS)
RMSE_MOMENTS = Moments(rows=squared_errors, finish=root)
RMSE = moment_score(name="rmse", higher_is_better=False, moments=RMSE_MOMENTS)
MAE = mean_score(name="mae", higher_is_better=False, per_row=absolute_errors)


def classification_scores(width: int) -> tuple[Score, ...]:
    """The scores of a classifier with `width` classes; the first is the primary one.

    Raises:
        ModelError: fewer than two classes.
    """
    if width < 2:
        raise ModelError(f"`width >= 2` must hold for a classifier, but got {width=}")
    return (ACCURACY, *((TOP5,) if width > 5 else ()), NLL, CALIBRATION)


def regression_scores() -> tuple[Score, ...]:
    """The scores of a regression; the first is the primary one."""
    return (R2, RMSE, MAE)


def row_values(
    score: Score,
    outputs: Float[np.ndarray, " rows width"],
    labels: Shaped[np.ndarray, "*labels"],
) -> Float64[np.ndarray, " units"]:
    """What each row says of the score, `[rows]`: the unit of a paired comparison.

    Where the rows of a score of moments are fewer than the answers (`by_row`), it is those rows.

    A mean over rows gives its rows. Any other score gives jackknife pseudo-values, rows times the
    score less (rows - 1) times the score without the row: they vary as its rows do (Tukey 1958).
    They are moved together so that their mean is the score itself: a difference of means is then
    the difference of the scores that are shown, also where a class has its only word in one row.
    Closed form where the score has moments; otherwise one evaluation per row.

    Raises:
        DataError: too few rows, or the score is undefined without one of them.
    """
    if score.per_row is not None:
        return score.per_row(outputs, labels)
    # A score of moments may have fewer rows than answers: texts of several positions each.
    moments = None if score.moments is None else score.moments.rows(outputs, labels)
    rows = len(outputs) if moments is None else len(moments)
    if rows < 2:
        raise DataError(f"`rows >= 2` must hold to see what a row is worth, but got {rows=}")
    if score.moments is not None and moments is not None:
        without = score.moments.finish((moments.sum(axis=0) - moments) / (rows - 1))
    else:
        every = np.arange(rows)
        kept = (np.delete(every, row) for row in every)
        without = np.array([score.value(outputs[rest], labels[rest]) for rest in kept])
    undefined = np.flatnonzero(~np.isfinite(without))
    if undefined.size:
        raise DataError(
            f"`{score.name}` must be defined without any one row, but row {undefined[0]} cannot be "
            "spared: score more rows"
        )
    value = score.value(outputs, labels)
    found = np.asarray(rows * value - (rows - 1) * without)
    return np.asarray(found + (value - found.mean()))


def interval(
    score: Score,
    outputs: Float[np.ndarray, " seeds rows width"],
    labels: Shaped[np.ndarray, "*labels"],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = 0.95,
) -> Interval:
    """The score's mean over seeds, with a two-way bootstrap interval over seeds and rows.

    Rows are drawn with replacement, the same ones for every seed, and so are the seeds where there
    are two or more; with one seed the interval knows nothing of other seeds. A score without
    `per_row` and `moments` is evaluated again for each draw, at most 300 times.

    Raises:
        DataError: outputs and labels do not fit, or there are none.
    """
    if len(outputs) == 0:
        raise DataError("`seeds >= 1` must hold to score a model, but got seeds=0")
    if score.per_row is not None:
        rows = np.stack([score.per_row(one, labels) for one in outputs])
        return score_interval(rows, draws=draws, seed=seed, level=level)
    if score.moments is not None:
        moments = np.stack([score.moments.rows(one, labels) for one in outputs])
        return pigeonhole(moments, score.moments.finish, draws=draws, seed=seed, level=level)
    return resample_rows(
        lambda kept: np.array([score.value(one[kept], labels[kept]) for one in outputs]),
        rows=outputs.shape[1],
        draws=min(draws, OPAQUE_DRAWS),
        seed=seed,
        level=level,
    )


def score_interval(
    row_values: Float[np.ndarray, " seeds rows"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of `[seeds, rows]` values, with a two-way bootstrap interval over seeds and rows.

    The pigeonhole bootstrap of Owen 2007, "The pigeonhole bootstrap", section 3: rows and seeds
    are drawn independently and the table is read at the drawn crossings. It is a little too wide
    for the noise of single cells, and too narrow for that of the seeds where they are two or three;
    a claim about the teacher therefore rests on `verdict.judge`, not on this.

    Raises:
        DataError: there is no value, or one is not finite.
    """
    if not row_values.size or not np.isfinite(row_values).all():
        raise DataError(
            "an interval needs finite values of at least one seed and one row, but got "
            f"[seeds, rows] of {row_values.shape}, {int((~np.isfinite(row_values)).sum())} of them "
            "not finite"
        )
    table = row_values.astype(np.float64)[:, :, None]
    return pigeonhole(table, lambda means: means[..., 0], draws=draws, seed=seed, level=level)
