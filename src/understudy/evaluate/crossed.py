"""The mean of a table of seeds and rows, both drawn: its interval, and what would narrow it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtridf, stdtrit

FEWEST_SEEDS = 3
MOST_SEEDS = 1_000
MOST_ROWS = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanSquares:
    """Mean squares of `[..., seeds, rows]` differences, one of each per leading index.

    Attributes:
        seeds: between seed means, with `seeds - 1` degrees of freedom.
        rows: between row means, with `rows - 1`.
        residual: what neither explains, with `(seeds - 1)(rows - 1)`.
    """

    seeds: Float64[np.ndarray, "*tests"]
    rows: Float64[np.ndarray, "*tests"]
    residual: Float64[np.ndarray, "*tests"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How uncertain a mean effect is.

    Attributes:
        half_width: half the length of its interval.
        degrees_of_freedom: of the t distribution that has the quantile used.
    """

    half_width: Float64[np.ndarray, "*tests"]
    degrees_of_freedom: Float64[np.ndarray, "*tests"]


def mean_squares(differences: Float64[np.ndarray, "*tests seeds rows"]) -> MeanSquares:
    """The two-way table without replication, `[..., seeds, rows]` to three mean squares each.

    Needs two seeds and two rows.
    """
    seeds, rows = differences.shape[-2:]
    centred = differences - differences.mean(axis=(-2, -1), keepdims=True)
    total = np.einsum("...sn,...sn->...", centred, centred)
    by_seed = rows * (centred.mean(axis=-1) ** 2).sum(axis=-1)
    by_row = seeds * (centred.mean(axis=-2) ** 2).sum(axis=-1)
    # Rounding alone can take the rest below zero.
    rest = np.maximum(total - by_seed - by_row, 0.0)
    return MeanSquares(
        seeds=np.asarray(by_seed / (seeds - 1)),
        rows=np.asarray(by_row / (rows - 1)),
        residual=np.asarray(rest / ((seeds - 1) * (rows - 1))),
    )


def spread(squares: MeanSquares, *, seeds: int, rows: int, level: float) -> Spread:
    """The interval's half width, with seeds and rows as crossed random effects.

    The variance of the mean is `total / (seeds rows)` with `total` = MS_seeds + MS_rows -
    MS_residual, at least the larger of MS_seeds and MS_rows. Satterthwaite's degrees of freedom
    claim too much where a few seeds happen to agree, so the quantile is the weighted one of
    Cochran and Cox ("Experimental Designs", 1957): that of t with `seeds - 1` degrees of freedom
    for the share MS_seeds / `total`, that with `rows - 1` for the rest.
    """
    floor = np.maximum(squares.seeds, squares.rows)
    total = np.maximum(squares.seeds + squares.rows - squares.residual, floor)
    share = np.divide(squares.seeds, total, out=np.ones_like(total), where=total > 0)
    tail = (1.0 + level) / 2.0
    quantile = share * stdtrit(seeds - 1, tail) + (1.0 - share) * stdtrit(rows - 1, tail)
    return Spread(
        half_width=np.asarray(quantile * np.sqrt(total / (seeds * rows))),
        degrees_of_freedom=np.asarray(stdtridf(tail, quantile)),
    )


def needed(
    squares: MeanSquares, *, effect: float, margin: float, seeds: int, rows: int, level: float
) -> tuple[int | None, int | None]:
    """How many seeds would decide on the same rows, or else how many rows with the same seeds.

    Both as if the effect and the noise stayed exactly as measured, which makes them an even chance
    rather than a promise. None where no number up to 1,000 seeds or 10 million rows would.
    """
    residual = squares.residual
    of_a_seed = np.maximum(squares.seeds - residual, 0.0) / rows
    of_a_row = np.maximum(squares.rows - residual, 0.0) / seeds
    fewest = max(seeds, FEWEST_SEEDS)

    def decides(more_seeds: int, more_rows: int) -> bool:
        expected = MeanSquares(
            seeds=np.asarray(residual + more_rows * of_a_seed),
            rows=np.asarray(residual + more_seeds * of_a_row),
            residual=residual,
        )
        half = spread(expected, seeds=more_seeds, rows=more_rows, level=level).half_width
        return bool(abs(effect) > half or abs(effect) + half <= margin)

    enough = _first(lambda many: decides(many, rows), max(seeds + 1, FEWEST_SEEDS), MOST_SEEDS)
    if enough is not None:
        return enough, None
    return None, _first(lambda many: decides(fewest, many), rows + 1, MOST_ROWS)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from `low` to `high` that holds, where all larger ones do as well."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
