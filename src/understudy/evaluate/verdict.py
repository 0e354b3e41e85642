"""Did the teacher help? Student against control, over seeds and rows, in one of four words."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from understudy.errors import DataError
from understudy.evaluate.crossed import FEWEST_SEEDS, MOST_ROWS, mean_squares, needed, spread
from understudy.evaluate.sentences import Word, Wording

# Fewer rows than this that differ from the others show no noise to be measured.
_FEW = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How much better one model is than another. Positive: the first is, whichever way is up.

    Attributes:
        word: the verdict. HELPED: the first is better. HURT: it is worse.
        sentence: the same for somebody who reads nothing else.
        effect: the first less the second, the mean over all that was scored.
        low: lower end of the interval; None with one seed.
        high: upper end of the interval; None with one seed.
        seeds: how many pairs of models there are.
        rows: on how many rows each was scored.
        margin: the largest difference that does not matter.
        level: how sure the interval is.
        per_seed: the effect of each seed.
    """

    word: Word
    sentence: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    rows: int | None = None
    margin: float | None = None
    level: float | None = None
    per_seed: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict(Difference):
    """What the teacher was worth: the student against its control.

    Attributes:
        degrees_of_freedom: of the t distribution that has the quantile used.
        seeds_needed: how many seeds would decide on the same rows, if effect and noise stay; None
            where no number up to 1,000 would, or where it is decided.
        rows_needed: how many rows would, where seeds alone would not.
    """

    degrees_of_freedom: float | None = None
    seeds_needed: int | None = None
    rows_needed: int | None = None


def judge(
    student_rows: Float[np.ndarray, " seeds rows"],
    control_rows: Float[np.ndarray, " control_seeds control_rows"],
    *,
    higher_is_better: bool,
    margin: float,
    level: float = 0.95,
    name: str = "the score",
    unit: str = "",
) -> Verdict:
    """Did the teacher help? From `[seeds, rows]` values of student and control, paired in both.

    Seed `s` of the student and of the control share start weights, order and views; row `n` is the
    same row. HELPED: the whole interval is above 0. HURT: below 0. NO DIFFERENCE: it holds 0, or
    touches it, and lies within +-margin. UNDECIDED: anything else, and always with fewer than three
    seeds. A claim of help or harm in the absence of both has a probability of at most 1 - level.

    Where fewer than three rows differ from all others, a share's interval is no narrower than what
    so many rows can rule out ("the rule of three", Hanley and Lippman-Hand 1983): a few rows alike
    do not prove two models equal.

    Args:
        student_rows: `quality.row_values` of the student, one line per seed.
        control_rows: the same of the control.
        higher_is_better: which way the score is up.
        margin: the largest difference that does not matter, in the score's unit.
        level: how sure the interval is.
        name: of the score, for the sentence.
        unit: of the score; a `share` is told in points.

    Raises:
        DataError: the two tables are not of one shape, finite and at least one seed by two rows, or
            margin or level is out of range.
    """
    differences = _paired(student_rows, control_rows, higher_is_better)
    if not (margin >= 0 and 0 < level < 1):
        raise DataError(
            f"`margin >= 0` and `0 < level < 1` must hold for a verdict, but got "
            f"({margin=}, {level=})"
        )
    seeds, rows = differences.shape
    effect = float(differences.mean())
    told = Wording(name=name, unit=unit, level=level, seeds=seeds, rows=rows, margin=float(margin))
    verdict = Verdict(
        word=Word.UNDECIDED,
        sentence=told.too_few(effect),
        effect=effect,
        seeds=seeds,
        rows=rows,
        margin=float(margin),
        level=level,
        seeds_needed=FEWEST_SEEDS,
        per_seed=tuple(float(one) for one in differences.mean(axis=1)),
    )
    if seeds == 1:
        return verdict
    squares = mean_squares(differences)
    found = spread(squares, seeds=seeds, rows=rows, level=level)
    few = unit == "share" and _alike(differences)
    half = max(float(found.half_width), _unseen(effect, rows, level) if few else 0.0)
    low, high = effect - half, effect + half
    verdict = replace(
        verdict, low=low, high=high, degrees_of_freedom=float(found.degrees_of_freedom)
    )
    word = word_of(low, high, margin) if seeds >= FEWEST_SEEDS else Word.UNDECIDED
    if word is not Word.UNDECIDED:
        sentence = told.decided(word, effect, low, high)
        return replace(verdict, word=word, sentence=sentence, seeds_needed=None)
    more = needed(squares, effect=effect, margin=margin, seeds=seeds, rows=rows, level=level)
    if few:
        more = None, _enough(effect, margin, rows=rows, level=level, noisy=more[1])
    if seeds >= FEWEST_SEEDS:
        verdict = replace(verdict, sentence=told.undecided(effect, low, high, *more))
    return replace(verdict, seeds_needed=more[0], rows_needed=more[1])


def _alike(differences: Float64[np.ndarray, " seeds rows"]) -> bool:
    """Whether (nearly) all rows have one and the same difference, so that they show no noise."""
    each = differences.mean(axis=0)
    return int((np.abs(each - np.median(each)) > 1e-12).sum()) < _FEW


def _unseen(effect: float, rows: int, level: float) -> float:
    """How far a mean of differences from -1 to 1 may be off through rows of which none was seen."""
    most = 1.0 - (1.0 - level) ** (1.0 / rows)
    return float(most * (1.0 + abs(effect)))


def _enough(
    effect: float, margin: float, *, rows: int, level: float, noisy: int | None
) -> int | None:
    """How many rows alike would decide: that the effect is no 0, or that it is within the margin.

    Args:
        effect: of the rows there are.
        margin: the largest difference that does not matter.
        rows: how many there are.
        level: how sure the interval is.
        noisy: how many it takes for the noise that was seen.
    """
    least = max(abs(effect), margin - abs(effect)) / (1.0 + abs(effect))
    if least <= 0:
        return None
    unseen = math.log1p(-level) / math.log1p(-min(least, 0.5))
    # Half a row more: at the bound itself rounding could leave it undecided.
    found = max(rows + 1, math.floor(unseen + 0.5) + 1, noisy or 0)
    return found if found <= MOST_ROWS else None


def gap_closed(
    teacher_rows: Float[np.ndarray, "*teacher_rows"],
    student_rows: Float[np.ndarray, " seeds rows"],
    control_rows: Float[np.ndarray, " control_seeds control_rows"],
    *,
    higher_is_better: bool,
    level: float = 0.95,
) -> float | None:
    """The share of the way from control to teacher that the student went, 1 being all of it.

    It can be below 0 or above 1. None unless the teacher is clearly better than the control, the
    interval of their difference being above 0: a share of nothing says nothing.

    Args:
        teacher_rows: `[rows]` or `[1, rows]`; the teacher is one model and not drawn again.
        student_rows: `[seeds, rows]`.
        control_rows: `[seeds, rows]`.
        higher_is_better: which way the score is up.
        level: how sure the interval of teacher less control is.

    Raises:
        DataError: the tables do not fit each other.
    """
    gained = _paired(student_rows, control_rows, higher_is_better)
    seeds, rows = gained.shape
    if teacher_rows.shape not in ((rows,), (1, rows)):
        raise DataError(
            f"the teacher needs one value for each of the {rows} rows, but has the shape "
            f"{teacher_rows.shape}"
        )
    teacher = np.broadcast_to(teacher_rows, (seeds, rows))
    missing = _paired(teacher, control_rows, higher_is_better)
    if seeds < 2:
        return None
    half = spread(mean_squares(missing), seeds=seeds, rows=rows, level=level).half_width
    gap = float(missing.mean())
    return float(gained.mean()) / gap if gap - float(half) > 0 else None


def unproved(reason: str) -> Verdict:
    """UNDECIDED for want of a comparison: no control was trained, no row has a label.

    Args:
        reason: why, as the end of a sentence, without a full stop.
    """
    return Verdict(word=Word.UNDECIDED, sentence=f"Undecided: {reason}.")


def word_of(low: float, high: float, margin: float) -> Word:
    """The word for an interval of a difference; whether seeds are enough for one is not asked."""
    if low > 0:
        return Word.HELPED
    if high < 0:
        return Word.HURT
    return Word.NO_DIFFERENCE if -margin <= low and high <= margin else Word.UNDECIDED


def _paired(
    one: np.ndarray, other: np.ndarray, higher_is_better: bool
) -> Float64[np.ndarray, " seeds rows"]:
    """How much better `one` is than `other`, `[seeds, rows]`."""
    if one.shape != other.shape or one.shape[0] < 1 or one.shape[1] < 2:
        raise DataError(
            "student and control must be scored with the same seeds on the same rows, at least two "
            f"of them, but got [seeds, rows] of {one.shape} and {other.shape}"
        )
    differences = one.astype(np.float64) - other.astype(np.float64)
    if not np.isfinite(differences).all():
        raise DataError(
            f"every row value must be finite, but {int((~np.isfinite(differences)).sum())} of "
            f"{differences.size} are not: score only rows with a label"
        )
    return differences if higher_is_better else -differences
