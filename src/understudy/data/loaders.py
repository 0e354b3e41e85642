"""Batches from rows in memory, in an order that is a function of seed and epoch alone.

No worker processes and no per-row collate: a batch is one indexing of each array. Resuming at an
epoch, or training beside another process, therefore needs no stored state.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import Batch
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
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:length]


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
    ) -> None:
        """Batches of `positions` into the arrays.

        Args:
            inputs: raw rows, all of them.
            labels: their hard labels, or None.
            ids: their identities.
            positions: which rows this loader gives out.
            batch_size: rows per batch and process.
            views: the augmentation; view number = epoch.
            seed: of the order; None keeps the order of `positions`.
            length: rows per epoch, where that differs from the number of positions.
            rank: this process among `ranks`; each takes its share of every epoch.
            ranks: how many processes train together.
        """
        self._inputs, self._labels, self._ids = inputs, labels, ids
        self._positions, self._views, self._seed = positions, views or Views(), seed
        self._length = len(positions) if length is None or not len(positions) else length
        self._rank, self._ranks = rank, ranks
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
        views = self._view_numbers(len(order))
        mine = slice(self._rank, None, self._ranks)
        order, views = order[mine][: self._rows()], views[mine][: self._rows()]
        for number in range(len(self)):
            rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield self.batch(order[rows], views[rows])

    def _view_numbers(self, length: int) -> NDArray[np.int64]:
        """A new view at every presentation: a row that comes twice in an epoch looks different."""
        rounds = -(-length // max(len(self._positions), 1))
        within = np.arange(length) // max(len(self._positions), 1)
        return self.epoch * max(rounds, 1) + within + 1  # view 0 is the row as it is

    def batch(self, positions: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> Batch:
        """One batch of these rows, as they are or in these views."""
        index = torch.from_numpy(np.ascontiguousarray(positions))
        inputs, ids = self._inputs[index], self._ids[index]
        shown = None
        if self._views.random and views is not None:
            shown = torch.from_numpy(np.ascontiguousarray(views))
            inputs = self._views(inputs, ids, shown)
        labels = None if self._labels is None else self._labels[index]
        return Batch(inputs=inputs, labels=labels, ids=ids, views=shown)
