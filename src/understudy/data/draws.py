"""Rows drawn by a hash of (seed, id), each class by its exact share."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.data.rows import Rows
from understudy.data.views import draw

_BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Draws:
    """Chooses rows by the hash of their ids."""

    ids: NDArray[np.int64]
    seed: int

    def take(
        self,
        pool: NDArray[np.int64],
        strata: NDArray[np.int64],
        count: int,
        stream: int,
        *,
        at_least: int = 0,
    ) -> NDArray[np.int64]:
        """`count` rows of the pool, each stratum by its share (and `at_least` so many), sorted."""
        ids = torch.from_numpy(self.ids[pool])
        hashes = draw(ids, torch.zeros_like(ids), seed=self.seed, stream=stream).numpy()
        codes, members = np.unique(strata[pool], return_inverse=True)
        quotas = shares(np.bincount(members, minlength=len(codes)), count, at_least=at_least)
        order = np.lexsort((self.ids[pool], hashes, members))
        starts = np.concatenate([[0], np.cumsum(np.bincount(members, minlength=len(codes)))])
        taken = [order[start : start + quota] for start, quota in zip(starts, quotas, strict=False)]
        return np.sort(pool[np.concatenate([np.empty(0, np.int64), *taken])])


def shares(sizes: NDArray[np.int64], count: int, *, at_least: int = 0) -> NDArray[np.int64]:
    """`count` divided among groups in proportion to their sizes, by largest remainders.

    Whole-number arithmetic, so that equal shares are equal everywhere; ties go to the larger
    group, then to the earlier one. `at_least` raises small shares at the cost of the largest.
    """
    total = int(sizes.sum())
    if total == 0:
        return np.zeros_like(sizes)
    quotas, remainders = np.divmod(sizes * count, total)
    order = np.lexsort((np.arange(len(sizes)), -sizes, -remainders))
    quotas[order[: count - int(quotas.sum())]] += 1
    floor = np.minimum(at_least, sizes)
    surplus = int(np.maximum(floor - quotas, 0).sum())
    quotas = np.maximum(quotas, floor)
    for _ in range(surplus):
        richest = int(np.argmax(quotas - floor))
        if quotas[richest] <= floor[richest]:
            break
        quotas[richest] -= 1
    return quotas


def strata_of(rows: Rows) -> NDArray[np.int64]:
    """The class of each row, or the tenth of its first target; -1 where it is unlabelled."""
    if rows.labels is None:
        return np.full(len(rows), -1, np.int64)
    if rows.labels.dtype.kind == "i":
        # A text whose words have classes is of none itself.
        words = rows.labels.ndim > 1
        return np.where(rows.labelled, 0, -1) if words else rows.labels.astype(np.int64)
    known = np.flatnonzero(rows.labelled)
    order = known[np.lexsort((rows.ids[known], rows.labels[known, 0]))]
    bins = np.full(len(rows), -1, np.int64)
    bins[order] = np.arange(len(order)) * min(_BINS, max(len(order), 1)) // max(len(order), 1)
    return bins
