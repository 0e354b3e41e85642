"""The choice of one option per block, written as a mixed-integer program for HiGHS."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from understudy.errors import ModelError

Number = int | float
Spot = tuple[str, str]

# HiGHS lets a row be off by 1e-6; of rows of this size that is a billionth.
_SIZE = 1000.0
# Of what `scipy.optimize.milp` answers.
_OPTIMAL, _OUT_OF_TIME, _INFEASIBLE = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One linear limit: the chosen options' weights sum to no more than `limit`.

    Attributes:
        weights: of options, by block and label; 0 for those that are not named.
        limit: the largest sum.
        stretch: by how much each unit of the slack raises the limit; 0: a hard limit.
    """

    weights: Mapping[Spot, Number]
    limit: Number
    stretch: Number = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """An answer of the solver.

    Attributes:
        labels: one per block.
        gap: how much smaller than the objective of these labels another answer could at most be;
            0 where it is proven that none is.
    """

    labels: Mapping[str, str]
    gap: float


@dataclass(frozen=True, slots=True)
class _Row:
    weights: Mapping[int, float]
    low: float
    high: float


class Program:
    """One binary number per option, of which each block has one that is 1.

    A product of two of them, which a pairwise correction needs, is a continuous number with the
    bounds of McCormick (1976). Since a block chooses just one option, the products of two blocks
    are tied together row by row and column by column as well, which is the tightest form there is:
    without other limits a chain of blocks needs no branching.
    """

    def __init__(
        self,
        labels: Mapping[str, Sequence[str]],
        *,
        requires: Iterable[tuple[Spot, Spot]] = (),
        pairs: Mapping[tuple[Spot, Spot], Number] | None = None,
    ) -> None:
        """A program without objective and limits.

        Args:
            labels: the options of each block.
            requires: the first of two options may be chosen only where the second is.
            pairs: what choosing both of two blocks' options adds; infinite where they must not be.
        """
        self._labels = labels
        spots = [(block, label) for block, names in labels.items() for label in names]
        self._spots = {spot: place for place, spot in enumerate(spots)}
        self._pairs = dict(pairs or {})
        self._products: dict[tuple[Spot, Spot], int] = {}
        for one, other in dict.fromkeys((a[0], b[0]) for a, b in self._pairs):
            for left in labels[one]:
                for right in labels[other]:
                    place = len(spots) + len(self._products)
                    self._products[(one, left), (other, right)] = place
        # The last number is the slack that stretched limits share.
        self._width = len(spots) + len(self._products) + 1
        self._fixed = [*self._choices(), *self._marginals(), *self._needs(requires)]

    def least(
        self, weights: Mapping[Spot, Number], lines: Sequence[Line], *, seconds: Number
    ) -> Solved | None:
        """The options of the smallest sum of weights and pairs; None where no choice is allowed.

        Raises:
            ModelError: the time is over before any choice was found.
        """
        objective = np.zeros(self._width)
        for spot, weight in weights.items():
            objective[self._spots[spot]] = weight
        for pair, place in self._products.items():
            value = self._pairs.get(pair, 0.0)
            objective[place] = value if np.isfinite(value) else 0.0
        return self._solve(objective, lines, seconds)

    def least_stretch(self, lines: Sequence[Line], *, seconds: Number) -> Solved | None:
        """The options that need the smallest slack in the stretched limits.

        Raises:
            ModelError: the time is over before any choice was found.
        """
        objective = np.zeros(self._width)
        objective[-1] = 1.0
        return self._solve(objective, lines, seconds)

    def _solve(
        self, objective: NDArray[np.float64], lines: Sequence[Line], seconds: Number
    ) -> Solved | None:
        rows = [*self._fixed, *(self._row(line) for line in lines)]
        scale = _SIZE / (float(np.abs(objective).max()) or 1.0)
        found = milp(
            objective * scale,
            integrality=np.arange(self._width) < len(self._spots),
            bounds=self._bounds(free=bool(objective[-1])),
            constraints=_together(rows, self._width),
            options={"mip_rel_gap": 0.0, "time_limit": float(seconds)},
        )
        if found.status == _INFEASIBLE:
            return None
        if found.x is None:
            raise ModelError(
                f"no choice of candidates was found in {seconds:g} s ({found.message}): give the "
                "solver more seconds, fewer candidates per block or fewer pairwise corrections"
            )
        chosen = dict(spot for spot, place in self._spots.items() if found.x[place] > 0.5)
        proven = found.status == _OPTIMAL or found.mip_dual_bound is None
        gap = 0.0 if proven else max(0.0, float(found.fun - found.mip_dual_bound) / scale)
        return Solved(labels=chosen, gap=gap)

    def _bounds(self, *, free: bool) -> Bounds:
        low, high = np.zeros(self._width), np.ones(self._width)
        for pair, place in self._products.items():
            if not np.isfinite(self._pairs.get(pair, 0.0)):
                high[place] = 0.0
        low[-1], high[-1] = (-np.inf, np.inf) if free else (0.0, 0.0)
        return Bounds(low, high)

    def _choices(self) -> list[_Row]:
        return [
            _Row({self._spots[block, label]: 1.0 for label in names}, 1.0, 1.0)
            for block, names in self._labels.items()
        ]

    def _marginals(self) -> list[_Row]:
        """The products with one option sum to that option."""
        sums: dict[tuple[Spot, str], dict[int, float]] = {}
        for (one, other), place in self._products.items():
            sums.setdefault((one, other[0]), {self._spots[one]: -1.0})[place] = 1.0
            sums.setdefault((other, one[0]), {self._spots[other]: -1.0})[place] = 1.0
        return [_Row(weights, 0.0, 0.0) for weights in sums.values()]

    def _needs(self, requires: Iterable[tuple[Spot, Spot]]) -> list[_Row]:
        return [
            _Row({self._spots[one]: 1.0, self._spots[other]: -1.0}, -np.inf, 0.0)
            for one, other in requires
        ]

    def _row(self, line: Line) -> _Row:
        weights = {self._spots[spot]: float(weight) for spot, weight in line.weights.items()}
        if line.stretch:
            weights[self._width - 1] = -float(line.stretch)
        size = max([abs(float(line.limit)), *map(abs, weights.values())]) or 1.0
        scaled = {place: weight * _SIZE / size for place, weight in weights.items()}
        return _Row(scaled, -np.inf, float(line.limit) * _SIZE / size)


def _together(rows: Sequence[_Row], width: int) -> LinearConstraint:
    across = [place for row in rows for place in row.weights]
    down = np.repeat(np.arange(len(rows)), [len(row.weights) for row in rows])
    values = [weight for row in rows for weight in row.weights.values()]
    matrix = csr_array((values, (down, across)), shape=(len(rows), width))
    return LinearConstraint(matrix, [row.low for row in rows], [row.high for row in rows])
