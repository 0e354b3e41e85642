"""Masses as whole numbers of a step that is a power of 2, dealt out so that none is lost."""

import numpy as np
from numpy.typing import NDArray

from understudy.labels.codecs.listing import Masses

COARSEST, FINEST = 10, 17
"""A step is between 2**-COARSEST and 2**-FINEST."""

FEWEST = 2
"""Steps of the smallest listed mass, so that rounding moves it by half at most."""

# A product that should be whole may lie a rounding error below it.
SLACK = 1e-12

Counts = NDArray[np.int64]


def fineness(mass: Masses, rest: Masses) -> Counts:
    """-log2 of the step of each position `[rows]`: the coarsest that shows what there is.

    Args:
        mass: of the listed classes `[rows, k]`; 0 where there is none.
        rest: of all others `[rows]`, which has half a step or more.
    """
    smallest = np.where(mass > 0, mass, 1).min(axis=1)
    smallest = np.minimum(smallest / FEWEST, np.where(rest > 0, 2 * rest, 1))
    found: Counts = np.clip(np.ceil(-np.log2(smallest)), COARSEST, FINEST).astype(np.int64)
    return found


def deal(mass: Masses, rest: Masses, fine: Counts) -> Counts:
    """Steps of each listed class and, in the last column, of the rest: `[rows, k + 1]`.

    Each gets what it is due, rounded down; the steps that are left go where rounding took most.
    So each is at most one step off, and the sum is exactly `2**fine`. The first class and a rest
    that is not 0 get one step at least.

    Args:
        mass: of the listed classes, the largest first; 0 where there is none.
        rest: of all others.
        fine: -log2 of the step.

    Paper:
        Hamilton's method of largest remainders: Balinski and Young 1982, "Fair Representation".
    """
    whole = 1 << fine
    due = np.concatenate([mass, rest[:, None]], axis=1) * whole[:, None]
    steps = np.floor(due * (1 + SLACK))
    steps[:, 0] = np.maximum(steps[:, 0], 1)
    steps[:, -1] = np.where(rest > 0, np.maximum(steps[:, -1], 1), 0)
    lost = np.where(due > 0, due - steps, -np.inf)
    left = whole - steps.sum(axis=1)
    # One step too many, if any: where nobody misses it.
    steps[np.arange(len(steps)), np.argmax(steps, axis=1)] += np.minimum(left, 0)
    rank = np.argsort(np.argsort(-lost, axis=1, kind="stable"), axis=1)
    steps += rank < left[:, None]
    found: Counts = steps.astype(np.int64)
    return found
