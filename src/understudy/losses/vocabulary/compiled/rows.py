"""The sides of ../sides.py by kernels: each looks at whole logits before the cap, in few passes.

Hard labels go along with the divergence. The slope is written over the logits.
"""

import torch
from torch import Tensor

from understudy.losses.vocabulary.compiled.launching import Goal, Launcher
from understudy.losses.vocabulary.lists import compared, drawn_weights, softened_list
from understudy.losses.vocabulary.parts import Forward, ListedLabels
from understudy.losses.vocabulary.tiles import Projection


class StoredRows:
    """Logits of a teacher that is stored in full, read where they lie."""

    def __init__(self, logits: Tensor, rows: Tensor) -> None:
        self._logits, self._rows = logits, rows

    def first(self, where: slice) -> Goal:
        """Those of these columns."""
        part = self._logits[:, where]
        if part.stride(1) == 1:
            return Goal(part, self._rows)
        picked = part.index_select(0, self._rows).contiguous()
        return Goal(picked, torch.arange(len(picked), device=picked.device))

    again = first


class ComputedRows:
    """Logits of a teacher's head, before its cap."""

    def __init__(self, goal: Projection) -> None:
        self._goal = goal
        self._rows = torch.arange(len(goal.hidden), device=goal.hidden.device)

    def first(self, where: slice) -> Goal:
        """Those of these columns, computed."""
        return Goal(self._goal.first(where), self._rows)

    def again(self, where: slice) -> Goal:
        """The same once more: kept, or computed again."""
        return Goal(self._goal.again(where), self._rows)


class HardRows:
    """Cross entropy with one label per token: what is known of it once all columns were seen."""

    def __init__(self, labels: Tensor, launcher: Launcher) -> None:
        self.labels, self._launcher = labels, launcher
        self._found = launcher.like.new_zeros(len(labels), 1)
        self.value = self.total = torch.empty(0)

    def look(self, where: slice, tile: Tensor) -> None:
        """Take out the label's logit."""
        self._launcher.pick(tile, where.start, self.labels.unsqueeze(1), self._found)

    def settle(self, total: Tensor, plain_sum: Tensor) -> None:
        """The value is known."""
        by, self.total = self._launcher, total
        goal = by.surely * self._found[:, 0]
        if by.evenly:
            goal = goal + by.evenly * plain_sum
        self.value = total - by.heat * goal


class WholeRows:
    """A divergence from a distribution that is told in full, hard labels, or both.

    Args:
        by: what starts the kernels.
        goal: the teacher's logits, or None.
        hard: the hard labels, or None.
        tokens: how many.
        slopes: whether slopes will be asked for.
    """

    def __init__(
        self,
        by: Launcher,
        *,
        goal: StoredRows | ComputedRows | None,
        hard: HardRows | None,
        tokens: int,
        slopes: bool,
    ) -> None:
        self._by, self._goal, self._hard = by, goal, hard
        self.twice = goal is not None and not (slopes and isinstance(by.kind, Forward))
        self._sums = _empty(by.like, tokens)
        self._totals = self._sums[0], self._sums[2]
        self.value, self._mean = by.like.new_zeros(tokens), by.like.new_zeros(tokens)

    def look(self, where: slice, tile: Tensor) -> None:
        """Sum both."""
        goal = None if self._goal is None else self._goal.first(where)
        if self._hard is not None:
            self._hard.look(where, tile)
        self._by.look(tile, goal, self._sums, hard=self._hard is not None and self._by.alone)

    def settle(self) -> None:
        """Both are normalised from now on."""
        own, theirs, hard = _totals(self._sums)
        self._totals = own, theirs
        if self._hard is not None:
            self._hard.settle(hard if self._by.alone else own, self._sums[6])

    def weigh(self, where: slice, tile: Tensor) -> None:
        """Sum the value and the mean that the slope needs."""
        if self._goal is not None:
            goal = self._goal.again(where)
            self._by.weigh(tile, goal, self._totals, self.value, self._mean)

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """Of both, in the logits before the cap."""
        self._by.slope(
            tile,
            where.start,
            goal=None if self._goal is None else self._goal.again(where),
            totals=self._totals,
            value=self.value,
            mean=self._mean,
            hard=None if self._hard is None else (self._hard.labels, self._hard.total),
        )
        return tile


class ListedRows:
    """A divergence from a list of outcomes, or its estimate from draws; and hard labels.

    Of the student only the listed logits are needed, and one sum: over all others, or over all
    columns for draws. What is listed is made -inf where that sum is taken.

    Args:
        by: what starts the kernels.
        kind: which divergence.
        labels: the list, of these tokens.
        hard: the hard labels, or None.
        vocabulary: how many columns there are.
    """

    twice = False

    def __init__(
        self,
        by: Launcher,
        labels: ListedLabels,
        *,
        hard: HardRows | None,
        vocabulary: int,
    ) -> None:
        self._by, self._hard, self._ids = by, hard, labels.ids
        self._drawn, like, tokens = labels.sampled, by.like, len(labels.ids)
        self._logits = like.new_full(self._ids.shape, 0.0 if self._drawn else -torch.inf)
        self._absent = torch.full_like(self._logits, -torch.inf)
        self._sums, self._hard_sums = _empty(like, tokens), _empty(like, tokens)
        if self._drawn:
            self._weights, self._entropy = drawn_weights(labels, like)
        else:
            self._goal = softened_list(labels, by.heat, vocabulary, like)
        self.value = self._pool = self._share = self._puts = torch.empty(0)

    def look(self, where: slice, tile: Tensor) -> None:
        """Take out the listed ones, sum the others."""
        by = self._by
        by.pick(tile, where.start, self._ids, self._logits)
        if self._hard is not None:
            self._hard.look(where, tile)
            if by.alone:
                by.look(tile, None, self._hard_sums, hard=True)
        if not self._drawn:
            by.put(tile, where.start, self._ids, self._absent)
        by.look(tile, None, self._sums, hard=False, pooling=not self._drawn)

    def settle(self) -> None:
        """All that is left is `[tokens, k + 1]`."""
        self._pool, _, _ = _totals(self._sums)
        every = self._settle_draws() if self._drawn else self._settle_list()
        if self._hard is not None:
            alone = _totals(self._hard_sums)[2] if self._by.alone else every
            self._hard.settle(alone, self._hard_sums[6])
            if not self._drawn:
                self._puts = self._puts + self._hard_slope(self._hard)
        if self._by.own_peak is not None:
            self._puts = self._puts * (1 - (self._logits / self._by.own_peak).square())
        self._puts = self._puts.contiguous()

    def weigh(self, where: slice, tile: Tensor) -> None:
        """Nothing: the sums are over k + 1 outcomes."""

    def slope(self, where: slice, tile: Tensor) -> Tensor:
        """The pool's, shared out by mass, and the listed ones' own."""
        self._by.slope(
            tile,
            where.start,
            goal=None,
            totals=(self._pool, self._pool),
            value=self.value,
            mean=self._share,
            hard=None if self._hard is None else (self._hard.labels, self._hard.total),
        )
        self._by.put(tile, where.start, self._ids, self._puts, added=self._drawn)
        return tile

    def _settle_list(self) -> Tensor:
        kind = self._by.kind
        assert kind is not None
        bucket = self._pool.unsqueeze(1)
        every, self.value, slope = compared(kind, self._goal, self._logits, bucket)
        self._puts, self._share = slope[:, :-1], slope[:, -1].contiguous()
        self._pool = self._pool.masked_fill(self._pool == -torch.inf, 0.0)
        return every[:, 0]

    def _settle_draws(self) -> Tensor:
        surprise = self._weights * (self._pool.unsqueeze(1) - self._logits)
        self.value = surprise.sum(dim=1) - self._entropy
        self._share, self._puts = self._weights.sum(dim=1), -self._weights
        return self._pool

    def _hard_slope(self, hard: HardRows) -> Tensor:
        by = self._by
        chance = (self._logits * by.heat - hard.total.unsqueeze(1)).exp()
        label = self._ids == hard.labels.unsqueeze(1)
        return by.share * (chance - by.evenly - by.surely * label.to(chance.dtype))


def _empty(like: Tensor, tokens: int) -> Tensor:
    """The sums of nothing: three peaks, each with its sum, and a plain sum."""
    sums = like.new_zeros(7, tokens)
    sums[[0, 2, 4]] = -torch.inf
    return sums


def _totals(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logsumexps of the student, the teacher, and the student at temperature 1."""
    own, theirs, hard = (sums[at] + sums[at + 1].log() for at in (0, 2, 4))
    return own, theirs, hard
