"""What each row says of a model, in float64, once its answer and its label are known to fit."""

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped
from scipy.special import log_softmax, softmax

from understudy.errors import DataError, ModelError

# As in Guo et al. 2017.
BINS = 15


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


def finite(outputs: Float[np.ndarray, " rows width"]) -> Float64[np.ndarray, " rows width"]:
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
    return np.asarray(logits.argmax(axis=1) == classes, dtype=np.float64)


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
    return np.asarray(ahead.sum(axis=1) < 5, dtype=np.float64)


def surprise(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows"]:
    """Negative log likelihood of the label under softmax, `[rows]`, in nats; finite, at least 0."""
    logits, classes = classes_of(outputs, labels)
    chosen = np.take_along_axis(log_softmax(logits, axis=1), classes[:, None], axis=1)
    return np.asarray(-chosen[:, 0] + 0.0)


def confidence_bins(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"], bins: int
) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
    """Confidence, hit and bin of each row, three times `[rows]`.

    Confidence is the largest softmax probability; bin `m` holds `(m/bins, (m+1)/bins]`.
    """
    logits, classes = classes_of(outputs, labels)
    confidence = softmax(logits, axis=1).max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return confidence, (logits.argmax(axis=1) == classes).astype(np.float64), place


def calibration_rows(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows bins"]:
    """Hit less confidence in the row's own bin of 15, 0 in the others, `[rows, bins]`."""
    confidence, right, place = confidence_bins(outputs, labels, BINS)
    gaps = np.zeros((len(place), BINS))
    gaps[np.arange(len(place)), place] = right - confidence
    return gaps


def calibration_error(
    means: Float64[np.ndarray, "*scores bins"],
) -> Float64[np.ndarray, "*scores"]:
    """Expected calibration error from the row means of `calibration_rows`, `[...]`, a share.

    A bin's share of the rows times its gap is the mean of its column (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", section 2).
    """
    return np.asarray(np.abs(means).sum(axis=-1))


def r2_rows(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows moments"]:
    """Squared errors, centred targets and their squares, `[rows, 3 width]`.

    Raises:
        DataError: a target is constant over the rows, so that there is nothing to explain.
    """
    answers, targets = values_of(outputs, labels)
    if (np.ptp(targets, axis=0) == 0).any():
        raise DataError(
            "R2 needs every target to vary over the scored rows, but one is constant: score more "
            "rows, or leave that target out"
        )
    # R2 does not move with the targets' origin, and centred second moments keep their digits.
    centred = targets - targets.mean(axis=0)
    return np.concatenate([(answers - targets) ** 2, centred, centred**2], axis=1)


def r2_of(means: Float64[np.ndarray, "*scores moments"]) -> Float64[np.ndarray, "*scores"]:
    """R2 from the row means of `r2_rows`, averaged over targets; NaN where a target is constant."""
    error, first, second = np.split(means, 3, axis=-1)
    spread = second - first**2
    known = spread > 1e-12 * second
    ratio = np.divide(error, spread, out=np.full_like(error, np.nan), where=known)
    return np.asarray((1.0 - ratio).mean(axis=-1))


def squared_errors(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows 1"]:
    """The squared error of each row, averaged over targets, `[rows, 1]`."""
    answers, targets = values_of(outputs, labels)
    return np.asarray(((answers - targets) ** 2).mean(axis=1, keepdims=True))


def root(means: Float64[np.ndarray, "*scores 1"]) -> Float64[np.ndarray, "*scores"]:
    """The root of a mean, `[...]`; what rounding takes below zero counts as zero."""
    return np.asarray(np.sqrt(np.maximum(means[..., 0], 0.0)))


def absolute_errors(
    outputs: Float[np.ndarray, " rows width"], labels: Shaped[np.ndarray, "*labels"]
) -> Float64[np.ndarray, " rows"]:
    """The absolute error of each row, averaged over targets, `[rows]`."""
    answers, targets = values_of(outputs, labels)
    return np.asarray(np.abs(answers - targets).mean(axis=1))
