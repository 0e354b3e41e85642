"""Bootstrap over a table of seeds and rows, with the same rows drawn for every seed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from understudy.errors import DataError

# Row counts held at once; 32 MB of float64, however many rows and draws there are.
CELLS = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A score and the range that its seeds and rows leave open: `low <= value <= high`."""

    value: float
    low: float
    high: float


def pigeonhole(
    moments: Float64[np.ndarray, " seeds rows moments"],
    finish: Callable[[np.ndarray], np.ndarray],
    *,
    draws: int,
    seed: int,
    level: float,
) -> Interval:
    """The mean over seeds of `finish` of the row means, and its percentile interval.

    Drawing rows is counting them, so a chunk of draws is one product of counts and moments.

    Args:
        moments: what each row adds to the means that the score is made of.
        finish: means `[..., moments]` to scores `[...]`; NaN where they define none.
        draws: how often seeds and rows are drawn again.
        seed: of the drawing, so that a report can be made twice.
        level: share of the draws that lie inside.
    """
    seeds, rows, width = moments.shape
    check_draws(draws, level)
    rng = np.random.default_rng(seed)
    flat = np.ascontiguousarray(moments.transpose(1, 0, 2).reshape(rows, seeds * width))
    size = max(1, min(draws, CELLS // rows))
    found: list[np.ndarray] = []
    for start in range(0, draws, size):
        many = min(size, draws - start)
        counts = np.empty((many, rows))
        for draw in range(many):
            counts[draw] = np.bincount(rng.integers(0, rows, rows), minlength=rows)
        scores = finish((counts @ flat / rows).reshape(many, seeds, width))
        found.append(mean_over_drawn_seeds(scores, rng))
    value = float(finish(moments.mean(axis=1)).mean())
    return percentiles(value, np.concatenate(found), level)


def resample_rows(
    score: Callable[[np.ndarray], np.ndarray], *, rows: int, draws: int, seed: int, level: float
) -> Interval:
    """The same for a score that can only be evaluated again.

    Args:
        score: row numbers to one score per seed, `[seeds]`.
        rows: how many rows there are.
        draws: how often seeds and rows are drawn again.
        seed: of the drawing.
        level: share of the draws that lie inside.
    """
    check_draws(draws, level)
    rng = np.random.default_rng(seed)
    value = float(score(np.arange(rows)).mean())
    scores = np.stack([score(rng.integers(0, rows, rows)) for _ in range(draws)])
    return percentiles(value, mean_over_drawn_seeds(scores, rng), level)


def mean_over_drawn_seeds(
    scores: Float64[np.ndarray, " draws seeds"], rng: np.random.Generator
) -> Float64[np.ndarray, " draws"]:
    """The mean over seeds, drawn with replacement where there are two or more."""
    if scores.shape[1] > 1:
        picked = rng.integers(0, scores.shape[1], scores.shape)
        scores = np.take_along_axis(scores, picked, axis=1)
    return np.asarray(scores.mean(axis=1))


def percentiles(value: float, found: Float64[np.ndarray, " draws"], level: float) -> Interval:
    """The middle `level` of what was found, stretched to hold the value itself.

    Draws in which the score is undefined (R2 of rows that all have one label) are left out. A
    score that is biased under drawing, such as a calibration error, can lie outside its own
    percentiles: hence the stretching.
    """
    known = found[np.isfinite(found)]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail]) if known.size else (value, value)
    return Interval(value=value, low=float(min(low, value)), high=float(max(high, value)))


def check_draws(draws: int, level: float) -> None:
    """Draws and level of an interval.

    Raises:
        DataError: there is no draw, or the level is not between 0 and 1.
    """
    if draws < 1 or not 0.0 < level < 1.0:
        raise DataError(
            "`draws >= 1` and `0 < level < 1` must hold for an interval, "
            f"but got ({draws=}, {level=})"
        )
