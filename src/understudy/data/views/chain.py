"""Chains of operations, replayable from (seed, id, view)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from understudy.data.views.numbers import Draws

_VERSION = 1  # of the pictures: another one where the same seed, id and view look different


@runtime_checkable
class View(Protocol):
    """One random operation. `Views` calls it with a fresh stream of random integers."""

    def __call__(
        self, rows: Shaped[Tensor, " batch ..."], draws: Callable[[], Int64[Tensor, " batch"]]
    ) -> Shaped[Tensor, " batch ..."]:
        """The rows in their new form, the same shape and type."""


@runtime_checkable
class Mixing(Protocol):
    """An operation on a row and its partner. `Views` calls it after all others."""

    def mix(
        self,
        rows: Shaped[Tensor, " batch ..."],
        partners: Shaped[Tensor, " batch ..."],
        draws: Callable[[], Int64[Tensor, " batch"]],
    ) -> tuple[Shaped[Tensor, " batch ..."], Float32[Tensor, " batch"]]:
        """The mixed rows, the same shape and type, and how much of each is its own."""


def misplaced(mixing: Sequence[bool]) -> Iterator[tuple[int, str]]:
    """Which operations of a chain stand where they must not, and the law that they break.

    Args:
        mixing: for each operation whether it mixes rows.
    """
    places = [number for number, mixes in enumerate(mixing) if mixes]
    last = len(mixing) - 1
    for place in places[:-1]:
        yield (
            place,
            f"at most one view may mix rows, but got {len(places)}: keep one, and as the last view",
        )
    if places and places[-1] != last:
        yield (
            places[-1],
            "a view that mixes rows must be the last one, but got it as number "
            f"{places[-1] + 1} of {last + 1}: move it to the end",
        )


class Views:
    """A chain of random operations. A view is a function of (seed, id, view number), no more.

    View 0 is the row as it is. Where the last operation mixes rows, a view is two pictures and
    how they are put together: `partners` says who, the chain itself shows both, `mixed` mixes.
    """

    def __init__(self, operations: Sequence[View | Mixing] = (), *, seed: int = 0) -> None:
        """Put the operations in a row.

        Args:
            operations: in the order in which they are done; at most one mixes, the last.
            seed: of all that is drawn.

        Raises:
            ValueError: an operation that mixes is not the last, or is the second of its kind.
        """
        mixing = [isinstance(operation, Mixing) for operation in operations]
        for _, law in misplaced(mixing):
            raise ValueError(law)
        self.operations = tuple(operations)
        self.seed = seed
        self._alone = [o for o in operations if not isinstance(o, Mixing)]
        self._mixing = next((o for o in operations if isinstance(o, Mixing)), None)

    @property
    def random(self) -> bool:
        """Whether another view is another picture."""
        return bool(self.operations)

    @property
    def mixes(self) -> bool:
        """Whether a view shows a row together with another one."""
        return self._mixing is not None

    def __call__(
        self,
        rows: Shaped[Tensor, " batch ..."],
        ids: Int64[Tensor, " batch"],
        views: Int64[Tensor, " batch"],
    ) -> Shaped[Tensor, " batch ..."]:
        """The given view of each row, before it is mixed."""
        if not self._alone or not len(rows):
            return rows
        draws = Draws(ids, views, seed=self.seed, operations=range(len(self._alone)))
        found = rows
        for number, operation in enumerate(self._alone):
            found = operation(found, draws.of(number))
        return _kept(found, rows, views)

    def partners(
        self, ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"], *, count: int
    ) -> Int64[Tensor, " batch"]:
        """Whom each row is mixed with: places in a pool of `count` rows, sorted by their ids.

        A row may be its own partner, if it is in the pool. View 0 has no partner; what is
        answered for it means nothing.

        Raises:
            ValueError: the pool is empty.
        """
        if count < 1:
            raise ValueError(f"a pool to mix with must hold at least one row, but got {count}")
        return self._draws(ids, views)() % count

    def mixed(
        self,
        rows: Shaped[Tensor, " batch ..."],
        partners: Shaped[Tensor, " batch ..."],
        ids: Int64[Tensor, " batch"],
        views: Int64[Tensor, " batch"],
    ) -> tuple[Shaped[Tensor, " batch ..."], Float32[Tensor, " batch"]]:
        """Rows and their partners, both in their views, as one picture each.

        Args:
            rows: after `__call__`.
            partners: after `__call__` too, in the view of the same number and by their own ids.
            ids: of `rows`.
            views: of both.

        Returns:
            The pictures, and which share of each is the row's own; 1 where nothing is mixed.
        """
        if self._mixing is None:
            return rows, torch.ones(len(rows))
        draws = self._draws(ids, views)
        draws()  # chose the partner
        found, shares = self._mixing.mix(rows, partners, draws)
        return _kept(found, rows, views), shares.masked_fill(views == 0, 1.0)

    def describe(self) -> dict[str, Any]:
        """The chain as plain data: with equal ones, equal rows and ids, all pictures are equal.

        Of operations that are neither ours nor dataclasses it holds the name alone, or what
        their own `describe()` says.
        """
        return {
            "version": _VERSION,
            "seed": self.seed,
            "operations": [_described(operation) for operation in self.operations],
        }

    def _draws(
        self, ids: Int64[Tensor, " batch"], views: Int64[Tensor, " batch"]
    ) -> Callable[[], Int64[Tensor, " batch"]]:
        """What the mixing operation draws from."""
        number = len(self._alone)
        operations = range(number, number + 1)
        return Draws(ids, views, seed=self.seed, operations=operations).of(number)


def _kept(
    found: Shaped[Tensor, " batch ..."],
    rows: Shaped[Tensor, " batch ..."],
    views: Int64[Tensor, " batch"],
) -> Shaped[Tensor, " batch ..."]:
    """What was found, but rows in view 0 as they are."""
    if views.numpy().all():
        return found
    still = (views == 0).view(-1, *[1] * (rows.ndim - 1))
    return torch.where(still, rows, found)


def _described(operation: object) -> dict[str, Any]:
    what = type(operation)
    ours = what.__module__.startswith(__package__)
    kind = what.__name__.lower() if ours else f"{what.__module__}.{what.__qualname__}"
    describe = getattr(operation, "describe", None)
    if describe is not None:
        return {"kind": kind, **describe()}
    if is_dataclass(operation) and not isinstance(operation, type):
        return {"kind": kind, **asdict(operation)}
    return {"kind": kind}
