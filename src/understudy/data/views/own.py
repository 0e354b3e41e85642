"""A transform of the user's own as a view: it draws from the global generators, which are seeded.

Nothing is known of such a transform but what it does, so it is tried on the first rows it meets:
one that cannot be replayed is refused before anything is trained on it.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from understudy.errors import DataError

_TRIED = 16  # rows of the first batch that are transformed twice


class Own:
    """Any transform that draws from `torch`, `numpy.random` or `random`, as a replayable view.

    The transform is called on one row at a time, a tensor as the source gives it (an image
    `[height, width, channels]`, a row of a table `[columns]`), and returns a tensor or a NumPy
    array of the same shape and type. Before each call the three global generators are seeded
    from the row's own draw; after each batch they are as they were, whatever happened. They
    belong to the whole process: while a batch is made, no other thread may draw from them.

    With `batched` it is called as `transform(rows, seeds)`, rows `[batch, ...]` and one
    non-negative 63-bit integer for each, and must make of each row what it would make of it
    alone: its random numbers come from the seeds, not from a generator.

    On the first batch up to 16 rows are transformed twice (with `batched` the last row once more
    on its own), and two different pictures are refused.

    Example:
        >>> from understudy.data.views import Views
        >>> def noisy(image):
        ...     return image + torch.randint(0, 3, image.shape, dtype=image.dtype)
        >>> views = Views([Own(noisy)])
        >>> rows, ones = torch.zeros(2, 4, 4, 1, dtype=torch.uint8), torch.ones(2).long()
        >>> first = views(rows, torch.tensor([7, 8]), ones)
        >>> bool((views(rows, torch.tensor([8, 7]), ones) == first.flip(0)).all())
        True
    """

    def __init__(self, transform: Callable[..., Any], *, batched: bool = False) -> None:
        """Keep the transform.

        Args:
            transform: of one row; with `batched` of rows and seeds.
            batched: whether it is called once per batch.
        """
        self.transform = transform
        self.batched = batched
        self._tried = False

    def describe(self) -> dict[str, Any]:
        """Its name; its code and what that was made with are for the caller to add."""
        return {"kind": "custom", "transform": _name(self.transform), "batched": self.batched}

    def __call__(
        self,
        rows: Shaped[Tensor, " batch ..."],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> Shaped[Tensor, " batch ..."]:
        """The transformed rows.

        Raises:
            DataError: the transform fails, changes shape or type, or cannot be replayed.
        """
        seeds = draws()
        with _generators_kept():
            found = self._all(rows, seeds)
            if not self._tried:
                self._try(rows, seeds, found)
        return found

    def _all(
        self, rows: Shaped[Tensor, " batch ..."], seeds: Int64[Tensor, " batch"]
    ) -> Shaped[Tensor, " batch ..."]:
        if self.batched:
            return self._made(rows, int(seeds[0]), seeds)
        pairs = zip(rows, seeds.tolist(), strict=True)
        return torch.stack([self._made(row, seed) for row, seed in pairs])

    def _try(
        self,
        rows: Shaped[Tensor, " batch ..."],
        seeds: Int64[Tensor, " batch"],
        found: Shaped[Tensor, " batch ..."],
    ) -> None:
        if self.batched:
            if len(rows) == 1:  # nothing to compare it with: the next batch is tried
                return
            again, first = self._all(rows[-1:], seeds[-1:]), found[-1:]
        else:
            # From the last to the first: what a row owes to those before it shows as well.
            last = slice(0, _TRIED)
            again = self._all(rows[last].flip(0), seeds[last].flip(0)).flip(0)
            first = found[last]
        if not np.array_equal(_bytes(again), _bytes(first)):
            raise DataError(self._law())
        self._tried = True

    def _law(self) -> str:
        if self.batched:
            return (
                "a row in one view must be one picture, but the batched "
                f"`{_name(self.transform)}` made two of the same row and seed, in a batch and "
                "alone: let it draw for each row from that row's seed only"
            )
        return (
            f"a row in one view must be one picture, but `{_name(self.transform)}` made two of the "
            "same row, with torch, NumPy and `random` seeded alike: let it draw from their global "
            "generators only (`np.random.default_rng()` without a seed, or a library's own "
            "generator, cannot be replayed), and keep nothing between calls"
        )

    def _made(self, row: Tensor, seed: int, *more: Tensor) -> Tensor:
        _seed(seed)
        name = _name(self.transform)
        try:
            made = self.transform(row.clone(), *more)
        except Exception as error:  # whatever the user's own code raises
            text = str(error).partition("\n")[0]
            raise DataError(
                f"the transform `{name}` must take {_form(row)}, but it fails there: "
                f"{type(error).__name__}: {text}: correct it, or remove this view"
            ) from error
        if isinstance(made, np.ndarray):
            made = torch.from_numpy(np.array(made))
        if not isinstance(made, Tensor):
            raise DataError(
                f"a transform must return a tensor or a NumPy array, but `{name}` returned "
                f"{type(made).__name__}: convert it at its end"
            )
        if made.shape != row.shape or made.dtype != row.dtype:
            raise DataError(
                f"a view must keep shape and type of its row, but `{name}` made {_form(made)} of "
                f"{_form(row)}: bring them back at its end"
            )
        return made.detach()


def _form(row: Tensor) -> str:
    return f"{str(row.dtype).removeprefix('torch.')} {list(row.shape)}"


def _name(transform: Callable[..., Any]) -> str:
    named = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}.{named.__qualname__}"


def _bytes(rows: Tensor) -> Any:
    # Bits, not numbers: NaN differs from itself.
    return rows.contiguous().view(torch.uint8).numpy()


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 (the global one is meant)
    random.seed(seed)


@contextmanager
def _generators_kept() -> Iterator[None]:
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
