"""The same rows for people's own loops: a PyTorch dataset that gives whole batches."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from understudy.contracts import Batch
from understudy.data.loaders import Shown, view_of
from understudy.data.views import Views


class RowsDataset(Dataset[Batch]):
    """Rows in memory in their views, for a `DataLoader` of PyTorch's own.

    `DataLoader` asks a dataset that has `__getitems__` for all rows of a batch at once. The answer
    is a `Batch` already, so `collate_fn` must hand it on: `RowsDataset.collate`. A row has the
    picture that `MemoryLoader` would show in the same epoch, in any order and in any worker.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> data = RowsDataset(
        ...     inputs=torch.zeros(10, 8, 8, 1), labels=torch.arange(10), ids=torch.arange(10)
        ... )
        >>> loader = DataLoader(data, batch_size=4, collate_fn=RowsDataset.collate)
        >>> data.set_epoch(0)
        >>> [batch.labels.tolist() for batch in loader]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(
        self,
        *,
        inputs: Shaped[Tensor, " rows ..."],
        labels: Shaped[Tensor, " rows ..."] | None,
        ids: Int64[Tensor, " rows"],
        positions: NDArray[np.int64] | None = None,
        views: Views | None = None,
        cycle: int | None = None,
        pool: NDArray[np.int64] | None = None,
    ) -> None:
        """Keep the arrays; worker processes share their memory.

        Args:
            inputs: raw rows, all of them.
            labels: their hard labels, or None.
            ids: their identities.
            positions: which rows the dataset has, in this order; None: all.
            views: the augmentation; the view number is the epoch, counted from 1.
            cycle: after how many epochs the first view comes again; None: never.
            pool: positions of the rows that others are mixed with; None: `positions`.

        Raises:
            ValueError: `cycle` is below 1.
        """
        self._positions = np.arange(len(inputs)) if positions is None else positions
        pool = self._positions if pool is None else pool
        self._shown = Shown(inputs=inputs, labels=labels, ids=ids, pool=pool, views=views)
        self._cycle = cycle
        view_of(np.ones(1, np.int64), cycle=cycle)  # refuses a wrong one now
        # Shared, because workers may live longer than an epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int | Sequence[int]) -> Batch:
        """A batch of one row, or of several for a loader without `batch_size`."""
        rows = np.asarray(index, np.int64)  # a number may be NumPy's or PyTorch's too
        return self.__getitems__(rows.reshape(-1))

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """A batch of these rows, in the epoch's view."""
        positions = self._positions[np.asarray(indices, np.int64)]
        presentation = np.full(len(positions), int(self._epoch) + 1, np.int64)
        return self._shown.batch(positions, view_of(presentation, cycle=self._cycle))

    def set_epoch(self, epoch: int) -> None:
        """Choose the view of all rows: call it before each epoch, counted from 0."""
        self._epoch.fill_(epoch)

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """What `DataLoader` needs as `collate_fn`: nothing is left to be put together."""
        return batch
