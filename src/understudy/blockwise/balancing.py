"""Dividing a row of things into neighbouring runs that weigh about the same."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

Number = int | float


def balanced(
    costs: Sequence[Number], parts: int, *, allowed: Callable[[int, int], bool]
) -> list[tuple[int, int]] | None:
    """The division into `parts` runs whose heaviest run is lightest.

    Among those, the one with the least sum of squared costs. Found by dynamic programming, first
    for the heaviest run, then for the squares, in O(parts x things^2).

    Args:
        costs: of each thing, none negative.
        parts: how many runs, from 1 to the number of things.
        allowed: whether the things from `start` up to, not including, `end` may be one run.

    Returns:
        The runs as `(start, end)`; None where no allowed division has so many parts.
    """
    count = len(costs)
    sums = [0.0, *accumulate(map(float, costs))]
    fit = {(i, j) for i in range(count) for j in range(i + 1, count + 1) if allowed(i, j)}

    def weight(start: int, end: int) -> float:
        return sums[end] - sums[start] if (start, end) in fit else math.inf

    heaviest, _ = _best(count, parts, weight, max)
    if math.isinf(heaviest):
        return None
    # Sums of floats in another order differ in their last digits.
    most = heaviest * (1 + 1e-9)

    def square(start: int, end: int) -> float:
        cost = weight(start, end)
        return cost * cost if cost <= most else math.inf

    return _best(count, parts, square, lambda one, other: one + other)[1]


def _best(
    count: int,
    parts: int,
    cost: Callable[[int, int], float],
    join: Callable[[float, float], float],
) -> tuple[float, list[tuple[int, int]]]:
    """The least joint cost of so many runs, and the runs."""
    best = [[math.inf] * (count + 1) for _ in range(parts + 1)]
    cut = [[0] * (count + 1) for _ in range(parts + 1)]
    best[0][0] = 0.0
    for part in range(1, parts + 1):
        for end in range(part, count + 1):
            for start in range(part - 1, end):
                if math.isinf(best[part - 1][start]):
                    continue
                total = join(best[part - 1][start], cost(start, end))
                if total < best[part][end]:
                    best[part][end], cut[part][end] = total, start
    runs, end = [], count
    for part in range(parts, 0, -1):
        runs.append((cut[part][end], end))
        end = cut[part][end]
    return best[parts][count], runs[::-1]
