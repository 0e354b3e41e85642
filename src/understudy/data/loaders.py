"""Batches from rows in memory, in an order that is a function of seed and epoch alone.

No worker processes and no per-row collate: a batch is one indexing of each array. Resuming at an
epoch, or training beside another process, therefore needs no stored state.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import Batch
from understudy.data.lengths import by_length, row_lengths, trimmed
from understudy.data.views import Views


def epoch_order(
    positions: NDArray[np.int64], *, seed: int, epoch: int, length: int | None = None
) -> NDArray[np.int64]:
    """The rows of one epoch, shuffled; `length` of them, in whole rounds and a part of one.

    A control that learns from fewer rows takes as many steps as its student this way.
    """
    length = len(positions) if length is None else length
    rounds = []
    for number in range(-(-length // max(len(positions), 1))):
        generator = np.random.Generator(np.random.Philox(key=[seed, (epoch << 20) + number]))
        rounds.append(generator.permutation(positions))
    # The usual case, and one copy less of what may be many millions of numbers.
    if len(rounds) == 1:
        return rounds[0][:length]
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:length]


def view_of(presentations: NDArray[np.int64], *, cycle: int | None = None) -> NDArray[np.int64]:
    """The view in which a row is shown for the 1st, 2nd, ... time.

    Args:
        presentations: counted from 1.
        cycle: how many views there are in all, of which answers are stored: they come round and
            round. None: a new one every time.

    Raises:
        ValueError: `cycle` is below 1.
    """
    if cycle is None:
        return presentations
    if cycle < 1:
        raise ValueError(f"`cycle` must be at least 1 view, but got {cycle}: use None for no end")
    return 1 + (presentations - 1) % cycle


class Shown:
    """Rows in memory, and batches of them in any view: a function of positions and views alone."""

    def __init__(
        self,
        *,
        inputs: Shaped[Tensor, " rows ..."],
        labels: Shaped[Tensor, " rows ..."] | None,
        ids: Int64[Tensor, " rows"],
        pool: NDArray[np.int64],
        views: Views | None = None,
        pad: int | None = None,
        counted: Bool[Tensor, " rows longest"] | None = None,
    ) -> None:
        """Keep the arrays.

        Args:
            inputs: raw rows, all of them.
            labels: their hard labels, or None.
            ids: their identities.
            pool: positions of the rows that others are mixed with, in any order.
            views: the augmentation.
            pad: of rows of token ids, the id that fills them up: batches are cut to their longest
                row. None: rows keep their length.
            counted: of rows of token ids, the positions that a model is asked for; labels are one
                per position then. No view may move a token.
        """
        self._inputs, self._labels, self._ids, self._pad = inputs, labels, ids, pad
        self._counted = counted
        self._views = views or Views()
        self._pool = torch.empty(0, dtype=torch.int64)
        if self._views.mixes:
            every = torch.from_numpy(np.array(pool, np.int64))
            # By id: who is mixed with whom depends on which rows there are, not on their order.
            self._pool = every[ids[every].argsort()]

    def batch(self, positions: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> Batch:
        """One batch of these rows, as they are or in these views (0: as it is).

        Where the views mix rows, it also holds the partners, their labels and the shares.
        """
        index = torch.from_numpy(np.ascontiguousarray(positions))
        ids = self._ids[index]
        labels = None if self._labels is None else self._labels[index]
        if views is None or not self._views.random:
            inputs = self._cut(self._inputs.index_select(0, index))
            return self._asked(Batch(inputs=inputs, labels=labels, ids=ids), index)
        shown = torch.from_numpy(np.ascontiguousarray(views))
        if self._views.mixes and len(index):
            return self._mixed(index, ids, labels, shown)
        inputs = self._views(self._inputs.index_select(0, index), ids, shown)
        batch = Batch(inputs=self._cut(inputs), labels=labels, ids=ids, views=shown)
        return self._asked(batch, index)

    def _asked(self, batch: Batch, index: Int64[Tensor, " batch"]) -> Batch:
        """The batch with the positions that count, and its labels as long as its rows."""
        if self._counted is None:
            return batch
        length = batch.inputs.shape[1]
        labels = None if batch.labels is None else batch.labels[:, :length]
        return replace(batch, labels=labels, positions=self._counted[index, :length])

    def _cut(self, inputs: Shaped[Tensor, " batch ..."]) -> Shaped[Tensor, " batch ..."]:
        return inputs if self._pad is None else trimmed(inputs, self._pad)

    def _mixed(
        self,
        index: Int64[Tensor, " batch"],
        ids: Int64[Tensor, " batch"],
        labels: Tensor | None,
        shown: Int64[Tensor, " batch"],
    ) -> Batch:
        places = self._views.partners(ids, shown, count=len(self._pool))
        others = torch.where(shown == 0, index, self._pool[places])
        partners = self._ids[others]
        # Both in one go: a chain costs little more for twice the rows.
        both = self._inputs.index_select(0, torch.cat([index, others]))
        both = self._views(both, torch.cat([ids, partners]), shown.repeat(2))
        own, other = both[: len(index)], both[len(index) :]
        inputs, shares = self._views.mixed(own, other, ids, shown)
        return Batch(
            inputs=inputs,
            labels=labels,
            ids=ids,
            views=shown,
            partners=partners,
            partner_labels=None if self._labels is None else self._labels[others],
            shares=shares,
        )


class MemoryLoader:
    """The batches of one arm's epochs; Lightning tells it the epoch through `sampler`.

    A last batch of a single row is left out: batch statistics do not exist for it.
    """

    def __init__(
        self,
        *,
        inputs: Shaped[Tensor, " rows ..."],
        labels: Shaped[Tensor, " rows ..."] | None,
        ids: Int64[Tensor, " rows"],
        positions: NDArray[np.int64],
        batch_size: int,
        views: Views | None = None,
        seed: int | None = None,
        length: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        cycle: int | None = None,
        pool: NDArray[np.int64] | None = None,
        pad: int | None = None,
        counted: Bool[Tensor, " rows longest"] | None = None,
    ) -> None:
        """Batches of `positions` into the arrays.

        Args:
            inputs: raw rows, all of them.
            labels: their hard labels, or None.
            ids: their identities.
            positions: which rows this loader gives out.
            batch_size: rows per batch and process.
            views: the augmentation; the view is how often the row has come, counted from 1.
            seed: of the order; None keeps the order of `positions`.
            length: rows per epoch, where that differs from the number of positions.
            rank: this process among `ranks`; each takes its share of every epoch.
            ranks: how many processes train together.
            cycle: after how many views the first one comes again; None: never.
            pool: positions of the rows that others are mixed with; None: `positions`. Who shows
                a part of the rows only, such as a teacher going on with its answers, names all.
            pad: of rows of token ids, the id that fills them up: a batch is as long as its longest
                row, and where there is a seed, rows of like length meet.
            counted: of rows of token ids, the positions that a model is asked for.

        Raises:
            ValueError: `cycle` is below 1.
        """
        self._positions, self._views, self._seed = positions, views or Views(), seed
        self._shown = Shown(
            inputs=inputs,
            labels=labels,
            ids=ids,
            pool=positions if pool is None else pool,
            views=self._views,
            pad=pad,
            counted=counted,
        )
        self._sizes = None if pad is None else row_lengths(inputs, pad)
        self._length = len(positions) if length is None or not len(positions) else length
        self._rank, self._ranks = rank, ranks
        self._cycle = cycle
        view_of(np.ones(1, np.int64), cycle=cycle)  # refuses a wrong one now
        self.batch_size = batch_size
        self.epoch = 0

    @property
    def sampler(self) -> "MemoryLoader":
        """What Lightning calls `set_epoch` on."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def _rows(self) -> int:
        return self._length // self._ranks if self._ranks > 1 else self._length

    def __len__(self) -> int:
        full, rest = divmod(self._rows(), self.batch_size)
        return full + (rest > 1 or (rest == 1 and (full == 0 or self._seed is None)))

    def __iter__(self) -> Iterator[Batch]:
        order = self._positions
        if self._seed is not None:
            order = epoch_order(order, seed=self._seed, epoch=self.epoch, length=self._length)
        mine = order[self._rank :: self._ranks][: self._rows()]
        turns = np.arange(len(mine))
        if self._seed is not None and self._sizes is not None:
            turns = by_length(
                self._sizes[mine], batch_size=self.batch_size, seed=self._seed, epoch=self.epoch
            )
        for number in range(len(self)):
            some = turns[number * self.batch_size : (number + 1) * self.batch_size]
            yield self.batch(mine[some], self._view_numbers(some * self._ranks + self._rank))

    def _view_numbers(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """A new view at every presentation: a row that comes twice in an epoch looks different."""
        rows = max(len(self._positions), 1)
        rounds = max(-(-self._length // rows), 1)
        # Counted from 1: view 0 is the row as it is.
        return view_of(self.epoch * rounds + places // rows + 1, cycle=self._cycle)

    def batch(self, positions: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> Batch:
        """One batch of these rows, as they are or in these views (0: as it is).

        Where the views mix rows, it also holds the partners, their labels and the shares.
        """
        return self._shown.batch(positions, views)
