"""Whose features are better for another task: two models over seeds, few-label draws and rows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import stdtrit

from understudy.errors import DataError
from understudy.evaluate.crossed import FEWEST_SEEDS, mean_squares, spread
from understudy.evaluate.sentences import Word
from understudy.evaluate.verdict import Difference, word_of

FEWEST_DRAWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison(Difference):
    """How much better one model's features are than another's, over draws of labelled rows too.

    Attributes:
        draws: how many sets of labelled rows each had a head fitted on.
        per_draw: the effect of each draw.
    """

    draws: int | None = None
    per_draw: tuple[float, ...] = ()


def compare_features(
    one: Float[np.ndarray, " seeds draws rows"],
    other: Float[np.ndarray, " other_seeds other_draws other_rows"],
    *,
    higher_is_better: bool,
    margin: float,
    level: float = 0.95,
    names: tuple[str, str] = ("student", "control"),
    score: str = "the score",
    unit: str = "",
) -> Comparison:
    """Are the first's features better? From row values of heads, paired in seed, draw and row.

    The same four words as `verdict.judge`, from the same rule: the interval is that of
    `crossed_half_width`, over seeds, draws and rows together, and fewer than three seeds decide
    nothing. A model without seeds, such as a teacher, has one line that meets every seed.

    Args:
        one: `quality.row_values` on the other task's test rows, per seed and draw.
        other: the same of the second model.
        higher_is_better: which way the score is up.
        margin: the largest difference that does not matter, in the score's unit.
        level: how sure the interval is.
        names: of both, for the sentence.
        score: its name, for the sentence.
        unit: of the score; a `share` is told in points.

    Raises:
        DataError: the tables do not fit each other, are not finite, or have fewer than two draws.
    """
    differences = _paired(one, other) * (1.0 if higher_is_better else -1.0)
    seeds, draws, rows = differences.shape
    effect = float(differences.mean())
    half = crossed_half_width(differences, level=level) if seeds > 1 else None
    low, high = (None, None) if half is None else (effect - half, effect + half)
    word = Word.UNDECIDED
    if low is not None and high is not None and seeds >= FEWEST_SEEDS:
        word = word_of(low, high, margin)
    return Comparison(
        word=word,
        sentence=_sentence(word, effect, low, high, differences.shape, names, score, unit, level),
        effect=effect,
        low=low,
        high=high,
        margin=margin,
        level=level,
        seeds=seeds,
        draws=draws,
        rows=rows,
        per_seed=tuple(float(v) for v in differences.mean(axis=(1, 2))),
        per_draw=tuple(float(v) for v in differences.mean(axis=(0, 2))),
    )


def crossed_half_width(
    values: Float[np.ndarray, " seeds draws rows"], *, level: float = 0.95
) -> float:
    """Half the length of the interval around the mean of `[seeds, draws, rows]` values.

    Seeds, draws of labelled rows and test rows are crossed random effects: other seeds, other few
    labels and other rows would each have come out a little differently, and averaging over one does
    not make more of another. The variance of the mean is `total / (seeds draws rows)` with `total`
    the sum of the three main mean squares, less those of the pairs, plus the rest's (each component
    at its expectation), and at least the largest main one. The quantile is weighted as in
    `crossed.spread`: t with `seeds - 1` degrees of freedom for the seeds' share, then `draws - 1`
    for the draws', `rows - 1` for what is left. With one seed, draws and rows alone.

    Raises:
        DataError: fewer than two draws or two rows.
    """
    seeds, draws, rows = values.shape
    if draws < FEWEST_DRAWS or rows < 2:
        raise DataError(
            "`draws >= 2` and `rows >= 2` must hold for an interval over draws of labelled rows, "
            f"but got ({draws=}, {rows=})"
        )
    table = values.astype(np.float64)
    if seeds == 1:
        found = spread(mean_squares(table[0]), seeds=draws, rows=rows, level=level)
        return float(found.half_width)
    of_seeds, of_draws, of_rows, rest = _three_way(table)
    total = max(of_seeds + of_draws + of_rows - rest, of_seeds, of_draws, of_rows)
    if total <= 0:
        return 0.0
    tail = (1.0 + level) / 2.0
    share = min(1.0, of_seeds / total)
    second = min(1.0 - share, of_draws / total)
    quantile = (
        share * stdtrit(seeds - 1, tail)
        + second * stdtrit(draws - 1, tail)
        + (1.0 - share - second) * stdtrit(rows - 1, tail)
    )
    return float(quantile * np.sqrt(total / (seeds * draws * rows)))


def _three_way(table: Float64[np.ndarray, " seeds draws rows"]) -> tuple[float, ...]:
    """Mean squares of seeds, draws and rows, and those of the pairs less the rest's."""
    sizes = np.array(table.shape)
    centred = table - table.mean()
    mains = [centred.mean(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    squares = [
        float((main**2).sum()) * float(sizes.prod() / size) / (size - 1)
        for main, size in zip(mains, sizes, strict=True)
    ]
    inner, between = centred.copy(), 0.0
    for axis, (a, b) in enumerate(((1, 2), (0, 2), (0, 1))):
        # Over the third axis: what two factors say together beyond what each says alone.
        pair = centred.mean(axis=axis) - mains[a][:, None] - mains[b][None, :]
        inner -= np.expand_dims(pair, axis)
        freedom = float((sizes[a] - 1) * (sizes[b] - 1))
        between += float((pair**2).sum()) * float(sizes[axis]) / freedom
    for axis, main in enumerate(mains):
        inner -= main.reshape([-1 if at == axis else 1 for at in range(3)])
    rest = float((inner**2).sum()) / float((sizes - 1).prod())
    return squares[0], squares[1], squares[2], between - rest


def _paired(one: np.ndarray, other: np.ndarray) -> Float64[np.ndarray, " seeds draws rows"]:
    fit = one.shape[1:] == other.shape[1:] and (
        len(one) == len(other) or 1 in (len(one), len(other))
    )
    if not fit or not one.size:
        raise DataError(
            "both models must be scored with the same seeds (or one of them with one), draws and "
            f"rows, but got [seeds, draws, rows] of {one.shape} and {other.shape}"
        )
    differences = one.astype(np.float64) - other.astype(np.float64)
    if not np.isfinite(differences).all():
        raise DataError(
            f"every row value must be finite, but {int((~np.isfinite(differences)).sum())} of "
            f"{differences.size} are not: score only rows with a label"
        )
    return np.asarray(differences)


def _sentence(
    word: Word,
    effect: float,
    low: float | None,
    high: float | None,
    shape: tuple[int, ...],
    names: tuple[str, str],
    score: str,
    unit: str,
    level: float,
) -> str:
    points = unit == "share"
    size = f"{100 * abs(effect):.2f} points" if points else f"{abs(effect):.3g} {unit}".rstrip()
    way = "better" if effect > 0 else "worse"
    seeds, draws, rows = shape
    counts = ", ".join(
        f"{many:,} {noun}{'' if many == 1 else 's'}"
        for many, noun in ((seeds, "seed"), (draws, "draw"), (rows, "row"))
    )
    reach = ""
    if low is not None and high is not None:
        ends = (f"{100 * v:+.2f}" if points else f"{v:+.3g}" for v in (low, high))
        reach = f"{100 * level:g}% interval {' to '.join(ends)}, "
    told = (
        f"a head on the {names[0]}'s features is {size} {way} in {score} than one on the "
        f"{names[1]}'s ({reach}{counts})"
    )
    opening = {
        Word.HELPED: f"The {names[0]}'s features are better for the other task",
        Word.HURT: f"The {names[0]}'s features are worse for the other task",
        Word.NO_DIFFERENCE: "The features make no difference that matters",
        Word.UNDECIDED: "Undecided",
    }[word]
    few = f". A verdict needs at least {FEWEST_SEEDS} seeds" if seeds < FEWEST_SEEDS else ""
    return f"{opening}: {told}{few}."
