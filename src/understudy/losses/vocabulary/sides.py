"""What pulls at a student's logits: a whole distribution, a list of outcomes, a hard label.

Each looks at all columns once (`look`), settles what it has seen (`settle`), looks again where its
slope needs a sum over all columns (`weigh`, where `twice`), and gives its slope in the softened
logits, columns by columns (`slope`). Its `value` `[tokens]` is whole after the last of them.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from understudy.losses.vocabulary.kinds import forward_parts, measured, sloped
from understudy.losses.vocabulary.lists import compared, drawn_weights, softened_list
from understudy.losses.vocabulary.parts import Divergence, Forward, ListedLabels
from understudy.losses.vocabulary.tiles import LogSum, Places, Projection


@runtime_checkable
class Side(Protocol):
    """One pull at the logits of some tokens; `sweep` in fused.py calls it."""

    value: Tensor
    twice: bool

    def look(self, where: slice, tile: Tensor) -> None:
        """See the softened logits of these columns for the first time."""

    def settle(self) -> None:
        """All columns have been seen."""

    def weigh(self, where: slice, tile: Tensor) -> None:
        """See them again, to sum over all before the first slope."""

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """The slope in these columns, in memory of its own; written over a tile by kernels."""


@runtime_checkable
class Valued(Protocol):
    """Whoever knows a value per token in the end."""

    value: Tensor


@runtime_checkable
class Totalled(Protocol):
    """Whoever sums the exponentials of all columns; `Hard` reads it instead of summing again."""

    def total(self) -> Tensor:
        """Their logarithm, `[tokens, 1]`."""


class Stored:
    """Softened logits of a teacher that is stored in full, columns by columns."""

    def __init__(self, logits: Tensor, rows: Tensor, *, temperature: float, like: Tensor) -> None:
        self._logits, self._rows = logits, rows
        self._temperature, self._dtype = temperature, like.dtype

    def first(self, where: slice) -> Tensor:
        """The logits of these columns."""
        tile = self._logits[:, where].index_select(0, self._rows).to(self._dtype)
        return tile if self._temperature == 1 else tile / self._temperature

    again = first


class Whole:
    """A divergence from a distribution that is told in full.

    Args:
        kind: which divergence.
        goal: the teacher's softened logits.
        slopes: whether slopes will be asked for.
    """

    def __init__(self, kind: Divergence, goal: Projection | Stored, *, slopes: bool) -> None:
        self.kind, self.goal = kind, goal
        self.own, self.theirs = LogSum(), LogSum()
        self.twice = not (slopes and isinstance(kind, Forward))
        self.value = self._mean = self._own_total = self._total = torch.empty(0)

    def look(self, where: slice, tile: Tensor) -> None:
        """Sum both."""
        self.own.add(tile)
        self.theirs.add(self.goal.first(where))

    def settle(self) -> None:
        """Both are normalised from now on."""
        self._own_total, self._total = self.own.total(), self.theirs.total()
        self.value = torch.zeros_like(self._total[:, 0])
        self._mean = torch.zeros_like(self.value)

    def weigh(self, where: slice, tile: Tensor) -> None:
        """Sum the value and the mean that the slope needs."""
        value, mean = measured(self.kind, *self._logs(where, tile))
        self.value += value
        self._mean += mean

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """Of the divergence; the forward one is summed on the way."""
        if self.twice:
            return sloped(self.kind, *self._logs(where, tile), self._mean)
        value, slope = forward_parts(*self._logs(where, tile))
        self.value += value
        return slope

    def _logs(self, where: slice, tile: Tensor) -> tuple[Tensor, Tensor]:
        return self.goal.again(where) - self._total, tile - self._own_total


class Listed:
    """A divergence over the listed outcomes and one bucket of all others, as `outcome_kl`.

    At temperature 1 it also carries a `Hard` side along: both need the same exponentials.
    """

    twice = False

    def __init__(
        self,
        kind: Divergence,
        labels: ListedLabels,
        *,
        temperature: float,
        vocabulary: int,
        columns: int,
        like: Tensor,
    ) -> None:
        self.kind = kind
        self._goal = softened_list(labels, temperature, vocabulary, like)
        self._places = Places(labels.ids, columns=columns, vocabulary=vocabulary)
        self._logits = like.new_full(labels.ids.shape, -torch.inf)
        self._others = LogSum()
        self.value = self._listed = self._share = self._bucket = torch.empty(0)
        self._every = torch.empty(0)
        self.carries: Hard | None = None

    def total(self) -> Tensor:
        """The logsumexp of all columns, `[tokens, 1]`."""
        return self._every

    def look(self, where: slice, tile: Tensor) -> None:
        """Take out the listed ones, sum the others."""
        if self.carries is not None:
            self.carries.look(where, tile)
        rows, slots, spots = self._places.at(where)
        self._logits[rows, slots] = tile[rows, spots]
        others = tile.clone()
        others[rows, spots] = -torch.inf
        self._others.add(others)

    def settle(self) -> None:
        """All that is left is `[tokens, k + 1]`."""
        bucket = self._others.total()
        self._every, self.value, slope = compared(self.kind, self._goal, self._logits, bucket)
        self._listed, self._share = slope[:, :-1], slope[:, -1:]
        self._bucket = bucket.masked_fill(bucket == -torch.inf, 0.0)
        if self.carries is not None:
            self._carry(self.carries)

    def _carry(self, hard: "Hard") -> None:
        """Add what the hard side pulls by probability alone; its label's place is left to it."""
        hard.settle()
        chance = (self._logits - self._every).exp()
        self._listed = self._listed + hard.share * chance
        self._share = self._share + hard.share * (self._bucket - self._every).exp()

    def weigh(self, where: slice, tile: Tensor) -> None:
        """Nothing: the sums are over k + 1 outcomes."""

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """The bucket's, shared out by mass, and the listed ones' own."""
        # Nothing in the bucket is above its sum, and what is listed is written over.
        slope = (tile - self._bucket).clamp_(max=0).exp_().mul_(self._share)
        rows, slots, spots = self._places.at(where)
        slope[rows, spots] = self._listed[rows, slots]
        if self.carries is not None:
            self.carries.mark(where, slope)
        return slope


class Drawn:
    """The estimate of the forward divergence from sampled outcomes, as `sampled_kl`."""

    twice = False

    def __init__(
        self, labels: ListedLabels, *, vocabulary: int, columns: int, like: Tensor
    ) -> None:
        self._weights, self._entropy = drawn_weights(labels, like)
        self._places = Places(labels.ids, columns=columns, vocabulary=vocabulary)
        self._logits = like.new_zeros(labels.ids.shape)
        self._all = LogSum()
        self.value = self._total = self._weight = torch.empty(0)

    def look(self, where: slice, tile: Tensor) -> None:
        """Take out the drawn ones, sum all."""
        rows, slots, spots = self._places.at(where)
        self._logits[rows, slots] = tile[rows, spots]
        self._all.add(tile)

    def settle(self) -> None:
        """The value is known."""
        self._total = self._all.total()
        self._weight = self._weights.sum(dim=1, keepdim=True)
        surprise = self._weights * (self._total - self._logits)
        self.value = surprise.sum(dim=1) - self._entropy

    def weigh(self, where: slice, tile: Tensor) -> None:
        """Nothing: the slope needs no further sum."""

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """The student's probabilities, less the weights that were drawn."""
        slope = (tile - self._total).exp_().mul_(self._weight)
        rows, slots, spots = self._places.at(where)
        slope.index_put_((rows, spots), -self._weights[rows, slots], accumulate=True)
        return slope


class Hard:
    """Cross entropy with one label per token, at temperature 1.

    Args:
        labels: int64 `[tokens]`.
        smoothing: the share of a label that is spread evenly over all columns.
        temperature: what the logits that are shown were divided by.
        share: what the slope, one in the logits that are shown, is multiplied by.
        total: the sum of the same logits, where somebody else takes it.
        vocabulary: how many columns there are.
        columns: how many are shown at a time.
        like: a tensor of the precision that is computed in.
    """

    twice = False

    def __init__(
        self,
        labels: Tensor,
        *,
        smoothing: float,
        temperature: float,
        share: float,
        total: Totalled | None,
        vocabulary: int,
        columns: int,
        like: Tensor,
    ) -> None:
        self._even, self._sure = smoothing / vocabulary, 1 - smoothing
        self._temperature, self.share = temperature, share
        self._places = Places(labels.unsqueeze(1), columns=columns, vocabulary=vocabulary)
        self._own = LogSum() if total is None else None
        self._sum: Totalled = total or self._own or LogSum()
        self._goal = like.new_zeros(len(labels), 1)
        self.value = self._total = torch.empty(0)

    def look(self, where: slice, tile: Tensor) -> None:
        """Take out the label's logit, sum all."""
        logits = tile if self._temperature == 1 else tile * self._temperature
        if self._own is not None:
            self._own.add(logits)
        rows, _, spots = self._places.at(where)
        self._goal[rows, 0] += self._sure * logits[rows, spots]
        if self._even:
            self._goal += self._even * logits.sum(dim=1, keepdim=True)

    def settle(self) -> None:
        """The value is known."""
        self._total = self._sum.total()
        self.value = (self._total - self._goal)[:, 0]

    def weigh(self, where: slice, tile: Tensor) -> None:
        """Nothing: the slope needs no further sum."""

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """The student's probabilities, less the smoothed label."""
        logits = tile if self._temperature == 1 else tile * self._temperature
        slope = (logits - self._total).exp_()
        if self.share != 1:
            slope.mul_(self.share)
        self.mark(where, slope)
        return slope

    def mark(self, where: slice, slope: Tensor) -> None:
        """Take the smoothed label off a slope that has the student's probabilities, in place."""
        if self._even:
            slope -= self._even * self.share
        rows, _, spots = self._places.at(where)
        slope[rows, spots] -= self._sure * self.share
