"""Scores of one model on labelled rows, and their intervals over seeds and rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped
from scipy.special import log_softmax, softmax

from understudy.errors import DataError, ModelError

BINS = 15
OPAQUE_DRAWS = 300
CHUNK = 4_000_000

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A score and the range that its seeds and rows leave open: `low <= value <= high`."""

    value: float
    low: float
    high: float


def classes_of(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> tuple[Float64[np.ndarray, " rows width"], Int64[np.ndarray, " rows"]]:
    """Finite float64 logits and int64 labels, `[rows, width]` and `[rows]`, or a clear error.

    Raises:
        DataError: the labels are not one class in `[0, width)` per row.
        ModelError: an answer is not finite.
    """
    rows, width = outputs.shape
    if labels.shape != (rows,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"classification needs one integer label per row, but got {labels.dtype} labels of "
            f"shape {labels.shape} for {rows} rows"
        )
    if rows == 0 or labels.min() < 0 or labels.max() >= width:
        span = f"{labels.min()} to {labels.max()}" if rows else "no rows"
        raise DataError(
            f"`0 <= label < {width}` must hold for every scored row, but got {span}: score only "
            "labelled rows, with the classes that the model was made for"
        )
    return finite(outputs), labels.astype(np.int64)


def values_of(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> tuple[Float64[np.ndarray, " rows width"], Float64[np.ndarray, " rows width"]]:
    """Finite float64 answers and targets, both `[rows, width]`, or a clear error.

    Raises:
        DataError: the labels do not fit the outputs, or one is missing.
        ModelError: an answer is not finite.
    """
    targets = np.asarray(labels, dtype=np.float64)
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.shape != outputs.shape or not targets.size:
        raise DataError(
            f"regression needs one target per output, but got labels of shape {labels.shape} for "
            f"outputs of shape {outputs.shape}"
        )
    if not np.isfinite(targets).all():
        raise DataError("every scored row needs a finite target: score only labelled rows")
    return finite(outputs), targets


def finite(outputs: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Outputs as float64.

    Raises:
        ModelError: one of them is not finite.
    """
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).any(axis=-1).sum())
        raise ModelError(
            f"a model must answer with finite numbers, but {bad} rows of {outputs.shape[0]} hold "
            "NaN or infinity: it diverged, or its inputs are not scaled as in training"
        )
    return outputs.astype(np.float64)


def hits(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows"]:
    """1 where the largest output (the first of equals) is the label's, else 0, `[rows]`."""
    logits, classes = classes_of(outputs, labels)
    return (logits.argmax(axis=1) == classes).astype(np.float64)


def top5_hits(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows"]:
    """1 where the label is among the five largest outputs, else 0, `[rows]`.

    Equal outputs rank in the order of their classes, as in `hits`: a constant model gains nothing.
    """
    logits, classes = classes_of(outputs, labels)
    own = np.take_along_axis(logits, classes[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < classes[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return (ahead.sum(axis=1) < 5).astype(np.float64)


def surprise(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows"]:
    """Negative log likelihood of the label under softmax, `[rows]`, in nats; finite, at least 0."""
    logits, classes = classes_of(outputs, labels)
    chosen = np.take_along_axis(log_softmax(logits, axis=1), classes[:, None], axis=1)
    return np.asarray(-chosen[:, 0] + 0.0)


def confidence_bins(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"], bins: int
) -> tuple[
    Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]
]:
    """Confidence, hit and bin of each row, three times `[rows]`; bin `m` is `(m/bins, (m+1)/bins]`."""
    logits, classes = classes_of(outputs, labels)
    confidence = softmax(logits, axis=1).max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return confidence, (logits.argmax(axis=1) == classes).astype(np.float64), place


def _calibration_rows(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    confidence, right, place = confidence_bins(outputs, labels, BINS)
    gaps = np.zeros((len(place), BINS))
    gaps[np.arange(len(place)), place] = right - confidence
    return gaps


def _calibration_finish(means: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(means).sum(axis=-1))


def _r2_rows(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    answers, targets = values_of(outputs, labels)
    if (np.ptp(targets, axis=0) == 0).any():
        raise DataError("R2 needs targets that vary over the rows, but one of them is constant")
    # R2 does not move with the labels' origin, and a centred second moment keeps its digits.
    centred = targets - targets.mean(axis=0)
    return np.concatenate([(answers - targets) ** 2, centred, centred**2], axis=1)


def _r2_finish(means: np.ndarray) -> np.ndarray:
    error, first, second = np.split(means, 3, axis=-1)
    spread = second - first**2
    usable = spread > 1e-12 * second
    ratio = np.divide(error, spread, out=np.full_like(error, np.nan), where=usable)
    return np.asarray((1.0 - ratio).mean(axis=-1))


def _squared(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    answers, targets = values_of(outputs, labels)
    return np.asarray(((answers - targets) ** 2).mean(axis=1, keepdims=True))


def _root(means: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.maximum(means[..., 0], 0.0)))


def _absolute(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    answers, targets = values_of(outputs, labels)
    return np.asarray(np.abs(answers - targets).mean(axis=1))


def mean_score(*, name: str, higher_is_better: bool, per_row: ToRows, unit: str = "") -> Score:
    """A score that is the mean over rows of `per_row`."""
    return Score(
        name=name,
        higher_is_better=higher_is_better,
        value=lambda outputs, labels: float(per_row(outputs, labels).mean()),
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
# Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2: 15 equal-width bins.
CALIBRATION = moment_score(
    name="calibration_error",
    higher_is_better=False,
    moments=Moments(rows=_calibration_rows, finish=_calibration_finish),
    unit="share",
)
# The coefficient of determination, averaged over targets where there are several.
R2 = moment_score(
    name="r2", higher_is_better=True, moments=Moments(rows=_r2_rows, finish=_r2_finish)
)
RMSE = moment_score(
    name="rmse", higher_is_better=False, moments=Moments(rows=_squared, finish=_root)
)
MAE = mean_score(name="mae", higher_is_better=False, per_row=_absolute)


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
