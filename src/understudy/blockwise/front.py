"""The whole trade-off, the least damage at every size of a limit, and how well it was predicted."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import numpy as np

from understudy.blockwise.program import Number
from understudy.blockwise.recombine import SECONDS, Choice, Menu, choose, smallest
from understudy.errors import DataError


def pareto(
    menu: Menu,
    *,
    along: str = "ms",
    points: int = 20,
    budget: Mapping[str, Number] | None = None,
    seconds: Number = SECONDS,
) -> tuple[Choice, ...]:
    """The least damaging choice at each of several limits of one cost, cheapest first.

    The limit goes in equal ratios from the smallest value that there is to that of the least
    damaging choice of all. What costs more without less damage is left out, so that there may be
    fewer choices than points; between two points there may be more.

    Args:
        menu: what there is to choose from.
        along: the cost whose limit changes; every option has it.
        points: how many limits are tried, two or more.
        budget: limits that always hold; one of `along` bounds the front.
        seconds: of the solver for each point.

    Raises:
        ValueError: fewer than two points.
        ModelError: as of `choose`.
    """
    if points < 2:
        raise ValueError(f"`points >= 2` must hold for a front, but got {points=}")
    fixed = {name: limit for name, limit in (budget or {}).items() if name != along}
    top = (budget or {}).get(along, inf)
    # With an infinite limit an option without this cost is refused as well.
    best = choose(menu, {**fixed, along: top}, seconds=seconds)
    least = smallest(menu, along, fixed, seconds=seconds)
    most = best.costs[along]
    limits = _between(least, most, points)[:-1]
    found = [choose(menu, {**fixed, along: limit}, seconds=seconds) for limit in limits]
    return undominated([*found, best], along=along)


def undominated(choices: Iterable[Choice], *, along: str) -> tuple[Choice, ...]:
    """Those of which no other has a smaller cost with no more damage, cheapest first."""
    kept: list[Choice] = []
    for one in sorted(choices, key=lambda choice: (choice.costs[along], choice.damage)):
        if not kept or one.damage < kept[-1].damage:
            kept.append(one)
    return tuple(kept)


def rank_correlation(predicted: Sequence[Number], measured: Sequence[Number]) -> float:
    """Spearman's rank correlation; equal values share their mean rank.

    Of damage that was predicted and the loss of accuracy that was measured it is 1 where the order
    is right.

    Raises:
        DataError: not the same number of both, fewer than three, not finite, or all the same.
    """
    one, other = _paired(predicted, measured, least=3)
    left, right = _ranks(one), _ranks(other)
    size = float(np.sqrt((left**2).sum() * (right**2).sum()))
    if not size > 0:
        raise DataError("ranks are undefined where all values are the same: measure other choices")
    return float((left * right).sum() / size)


def latency_error(predicted: Sequence[Number], measured: Sequence[Number]) -> float:
    """The median of `|predicted - measured| / measured`.

    Raises:
        DataError: not the same number of both, none, not finite, or measured ones not above 0.
    """
    one, other = _paired(predicted, measured, least=1)
    if not bool((other > 0).all()):
        raise DataError(f"measured times must be above 0, but the smallest is {other.min():g}")
    return float(np.median(np.abs(one - other) / other))


def _between(least: float, most: float, points: int) -> list[float]:
    """Limits from `least` to `most`, in equal ratios where they are positive."""
    if not least < most:
        return [most]
    if least > 0:
        found = [float(limit) for limit in np.geomspace(least, most, points)]
    else:
        found = [float(limit) for limit in np.linspace(least, most, points)]
    # Rounding must not leave the ends out of reach.
    return [least, *found[1:-1], most]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks less their mean; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place] - (len(values) + 1) / 2)


def _paired(
    predicted: Sequence[Number], measured: Sequence[Number], *, least: int
) -> tuple[np.ndarray, np.ndarray]:
    one, other = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if len(one) != len(other) or len(one) < least:
        raise DataError(
            f"{least} or more predicted values and as many measured ones are needed, but got "
            f"{len(one)} and {len(other)}"
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("predicted and measured values must be finite: leave out what failed")
    return one, other
