"""What codecs that list outcomes share: which classes, how much they weigh, and what is left.

Everything is done in float64 and in chunks of rows, so that a vocabulary of 128,000 costs no more
memory than `CHUNK` numbers beside the logits.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.errors import StoreError

CHUNK = 2**18
# Sums below this have lost digits.
FAINT = 1e-290

Logits = NDArray[np.float32]
Masses = NDArray[np.float64]
Ids = NDArray[np.int64]


def check_classes(shape: tuple[int, ...]) -> int:
    """How many classes a distribution of this shape has.

    Raises:
        StoreError: it is not one row of two or more classes.
    """
    if len(shape) != 1 or shape[0] < 2:
        raise StoreError(
            "a codec that lists outcomes needs one row of 2 or more classes per position, but got "
            f"the shape {tuple(shape)}: use `codec: dense`"
        )
    return shape[0]


def check_fewer(name: str, count: int, shape: tuple[int, ...]) -> None:
    """Refuse to list all classes.

    Args:
        name: of the parameter that says how many are listed.
        count: how many that is.
        shape: of a position.

    Raises:
        StoreError: it is no distribution, or has not more than `count` classes.
    """
    classes = check_classes(shape)
    if count >= classes:
        raise StoreError(
            f"`{name} < classes` must hold, but got {name}={count} and {classes} classes: use "
            f"`{name}: {classes - 1}`, or `codec: dense`, which keeps every class"
        )


def chunks(values: Logits) -> Iterator[slice]:
    """Rows that are looked at together: few enough to stay in a processor's cache."""
    rows = min(4096, max(1, CHUNK // values.shape[1]))
    for start in range(0, len(values), rows):
        yield slice(start, start + rows)


def largest(values: Logits, count: int) -> Ids:
    """The classes of the `count` largest logits, the largest first, `[rows, count]`."""
    # PyTorch selects faster than NumPy; it warns of arrays that cannot be written to.
    rows = torch.from_numpy(values if values.flags.writeable else values.copy())
    found: Ids = torch.topk(rows, count, dim=1).indices.numpy()
    return found


def weigh(values: Logits, ids: Ids) -> tuple[Masses, Masses]:
    """Log-probabilities of the listed classes `[rows, k]`, and of all others together `[rows]`.

    The others are summed themselves: 1 minus the listed mass would be rounding noise, or negative,
    where nearly everything is listed.

    Args:
        values: logits `[rows, classes]`.
        ids: the classes, which the row's largest is one of.

    Raises:
        StoreError: a row has no finite logit, or an infinite one.
    """
    listed = np.take_along_axis(values, ids, axis=1).astype(np.float64)
    peak = check_peak(listed.max(axis=1))
    listed -= peak[:, None]
    others = values.astype(np.float64)
    np.put_along_axis(others, ids, -np.inf, axis=1)
    others -= peak[:, None]
    np.exp(others, out=others)
    left = others.sum(axis=1)
    total = np.log(np.exp(listed).sum(axis=1) + left)
    with np.errstate(divide="ignore"):
        rest = np.log(left)
    faint = np.flatnonzero(left < FAINT)
    if len(faint):
        rest[faint] = _sum_faint(values[faint], ids[faint]) - peak[faint]
    return listed - total[:, None], rest - total


def check_peak(peak: Masses) -> Masses:
    """The largest logit of each row, as it is given.

    Raises:
        StoreError: one is infinite: all classes of a row are ruled out, or one is certain.
    """
    lost = np.count_nonzero(~np.isfinite(peak))
    if lost:
        raise StoreError(
            f"the largest logit of a position must be finite, but {lost} positions have none that "
            "is: -inf is for classes that are ruled out, and never for all of them"
        )
    return peak


def log_sum(values: Masses) -> Masses:
    """Logarithm of the sum of exp over the last axis; -inf where all are -inf."""
    peak = values.max(axis=-1, keepdims=True, initial=-np.inf)
    # Where all are -inf the difference would be NaN.
    shift = np.where(np.isneginf(peak), 0.0, peak)
    with np.errstate(divide="ignore"):
        found: Masses = np.log(np.exp(values - shift).sum(axis=-1)) + shift[..., 0]
    return found


def smallest_unsigned(number: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds `number`."""
    return np.min_scalar_type(number)


def _sum_faint(values: Logits, ids: Ids) -> Masses:
    """What is left, where its exp is too small for float64 beside the largest."""
    others = values.astype(np.float64)
    np.put_along_axis(others, ids, -np.inf, axis=1)
    return log_sum(others)
