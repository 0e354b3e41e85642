"""Rows of texts in batches of like lengths, each as long as its longest row."""

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from understudy.deployed.lengths import lengths, rounded

# So many batches are sorted together: much of the padding goes, and the company stays random.
GROUP = 16


def trimmed(rows: Shaped[Tensor, " batch longest"], pad: int) -> Shaped[Tensor, " batch _"]:
    """The rows without columns that are padding in all of them, rounded up to a multiple of 8."""
    if not len(rows):
        return rows
    real = (rows != pad).any(dim=0)
    longest = int(real.nonzero().max()) + 1 if bool(real.any()) else 0
    return rows[:, : rounded(longest, rows.shape[1])]


def row_lengths(rows: Shaped[Tensor, " rows longest"], pad: int) -> NDArray[np.int64]:
    """How long each row is without the padding at its end."""
    return lengths(rows.numpy(), pad)


def by_length(
    sizes: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    group: int = GROUP,
) -> NDArray[np.int64]:
    """How to reorder an epoch, so that rows of like length meet; a function of its arguments alone.

    Groups of `group` batches are sorted by length, and the batches of the whole epoch are put in
    random order. A batch that is not full comes last.

    Args:
        sizes: the lengths of the epoch's rows, in their random order.
        batch_size: rows per batch.
        seed: of the order of batches.
        epoch: likewise.
        group: batches that are sorted together.

    Returns:
        Places in `sizes`, each once.
    """
    places = np.arange(len(sizes))
    full = len(sizes) // batch_size * batch_size
    step = group * batch_size
    whole = [
        part[np.argsort(sizes[part], kind="stable")]
        for part in (places[at : min(at + step, full)] for at in range(0, full, step))
    ]
    if not whole:
        return places
    batches = np.concatenate(whole).reshape(-1, batch_size)
    generator = np.random.Generator(np.random.Philox(key=[seed, (1 << 52) + epoch]))
    return np.concatenate([generator.permutation(batches).reshape(-1), places[full:]])


def shortest_first(
    rows: Shaped[Tensor, " rows ..."], positions: NDArray[np.int64], pad: int | None
) -> NDArray[np.int64]:
    """Places in `positions` from the shortest text to the longest; in order without `pad`."""
    if pad is None or not len(positions):
        return np.arange(len(positions))
    sizes = row_lengths(rows[torch.from_numpy(positions)], pad)
    return np.argsort(sizes, kind="stable")
