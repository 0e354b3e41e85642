"""One shard: ask the teacher for its rows, and write what it says. A pure function of its number.

Whoever writes a shard, in whatever order and process, writes the same bytes: that is why a run
that was killed, or a hundred workers, end with the same store.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import Batch, Ragged, Teacher, Told, per_position
from understudy.errors import StoreError
from understudy.labels.codecs.form import Codec, Part
from understudy.labels.files import Tensors, to_pieces
from understudy.labels.layout import lay_out
from understudy.labels.manifest import Field

OnBadRows = Literal["error", "skip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """How one name of knowledge is stored.

    Attributes:
        codec: how it is written.
        reads: what it is called in the teacher's knowledge.
    """

    codec: Codec
    reads: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Portions:
    """The rows to label, cut into shards.

    Attributes:
        batches: the batches of a shard by its number, always the same.
        rows: how many rows each shard has before any is left out.
    """

    batches: Callable[[int], Iterable[Batch]]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)


def cut(
    batches: Callable[[int, int], Iterable[Batch]], *, rows: int, batch_size: int, shard_rows: int
) -> Portions:
    """Cut rows that come in batches into shards of `shard_rows` or a little more.

    A shard ends with a batch: another batch size can change an answer's last digits.

    Args:
        batches: the batches of the rows from one number to another.
        rows: how many there are.
        batch_size: rows per batch.
        shard_rows: rows per shard, rounded up to whole batches.
    """
    size = -(-shard_rows // batch_size) * batch_size
    starts = range(0, rows, size)

    def some(number: int) -> Iterable[Batch]:
        return batches(starts[number], min(starts[number] + size, rows))

    return Portions(batches=some, rows=tuple(min(size, rows - start) for start in starts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What every shard of one store is written by; it travels to workers.

    Attributes:
        keep: per field of the store.
        plan: the fingerprint that every shard carries.
        seed: of codecs that draw.
        on_bad_rows: what to do with rows whose answer is not finite.
    """

    keep: Mapping[str, Keep]
    plan: str
    seed: int = 0
    on_bad_rows: OnBadRows = "error"

    def fields(self) -> dict[str, Field]:
        """As the manifest of an unfinished store has them."""
        return {
            name: Field(codec=kept.codec.kind, parameters=kept.codec.parameters)
            for name, kept in self.keep.items()
        }


def shard_name(number: int) -> str:
    """`shard-00042.safetensors`."""
    return f"shard-{number:05d}.safetensors"


def shard_pieces(
    number: int, *, order: Order, teacher: Teacher, batches: Iterable[Batch]
) -> list[memoryview]:
    """The content of one shard, in pieces.

    Raises:
        StoreError: rows without ids, or an answer that is not finite where that is an error.
    """
    growing = _Growing(number, order)
    for batch in batches:
        growing.add(batch, teacher)
    return growing.content()


class _Growing:
    """A shard while its batches come in."""

    def __init__(self, number: int, order: Order) -> None:
        self._number, self._order = number, order
        self._ids: list[NDArray[np.int64]] = []
        self._views: list[NDArray[np.int64]] = []
        self._parts: dict[str, list[dict[str, Part]]] = {name: [] for name in order.keep}
        self._lengths: dict[str, list[NDArray[np.int64]]] = {}
        self._shapes: dict[str, list[int]] = {}
        self._skipped: list[int] = []

    def add(self, batch: Batch, teacher: Teacher) -> None:
        """Ask the teacher for a batch, and encode what it says."""
        if batch.ids is None:
            raise StoreError("labels are stored by example id, but these rows have none")
        ids = batch.ids.cpu().numpy().astype(np.int64)
        views = np.zeros(len(batch), np.int64)
        if batch.views is not None:
            views = batch.views.cpu().numpy().astype(np.int64)
        knowledge = teacher(batch)
        told = {name: knowledge[kept.reads] for name, kept in self._order.keep.items()}
        if batch.positions is not None:
            told = {
                name: per_position(f"the teacher's {name}", value, batch.positions)
                for name, value in told.items()
            }
        for name, value in told.items():
            _check_rows(self._order.keep[name].reads, value, len(batch))
        good = self._good(ids, told)
        seed = (self._order.seed << 40) + (self._number << 20) + len(self._ids)
        for name, value in told.items():
            self._encode(name, value, good, seed=seed)
        self._ids.append(ids[good])
        self._views.append(views[good])

    def _good(self, ids: NDArray[np.int64], told: Mapping[str, Told]) -> NDArray[np.bool_]:
        """Which rows are answered with finite numbers only."""
        good = np.ones(len(ids), bool)
        for name, value in told.items():
            good &= _finite(value)
            if not good.all() and self._order.on_bad_rows == "error":
                bad = ids[~good]
                raise StoreError(
                    f"a teacher's {self._order.keep[name].reads} must be finite, but {len(bad)} of "
                    f"{len(ids)} rows are not (ids {', '.join(map(str, bad[:5]))}): check its "
                    "weights, its scaling of the inputs and its precision, or leave such rows out "
                    "with `labels: {on_bad_rows: skip}`"
                )
        self._skipped += ids[~good].tolist()
        return good

    def _encode(self, name: str, value: Told, good: NDArray[np.bool_], *, seed: int) -> None:
        codec = self._order.keep[name].codec
        values, lengths = _positions(value, good)
        shape = list(values.shape[1:])
        if self._shapes.setdefault(name, shape) != shape:
            raise StoreError(
                f"a teacher's {name} must have one shape, but after {self._shapes[name]} came "
                f"{shape}: give sequences of different lengths as `Ragged`"
            )
        codec.check(tuple(shape))
        try:
            self._parts[name].append(codec.encode(values, seed=seed))
        except StoreError as error:
            raise StoreError(f"{name}: {error}") from error
        if lengths is not None:
            self._lengths.setdefault(name, []).append(lengths)

    def content(self) -> list[memoryview]:
        """The whole shard."""
        tensors: Tensors = {
            "ids": np.concatenate(self._ids), "views": np.concatenate(self._views)
        }  # fmt: skip
        for name, parts in self._parts.items():
            lengths = self._lengths.get(name)
            joined = None if lengths is None else np.concatenate(lengths)
            tensors |= lay_out(name, parts, joined)
        says = {
            "plan": self._order.plan,
            "shard": self._number,
            "shapes": self._shapes,
            "ragged": sorted(self._lengths),
            "skipped": self._skipped,
        }
        return to_pieces(tensors, says)


def _check_rows(name: str, value: Told, rows: int) -> None:
    """Refuse an answer that is not one of every row: the rows would be told each other's."""
    answered = 0 if isinstance(value, Tensor) and not value.ndim else len(value)
    if answered != rows:
        raise StoreError(
            f"a teacher must answer every row, but of {rows} rows its {name} has {answered}: "
            "check what it does along the first axis"
        )
    if isinstance(value, Ragged):
        told, whole = len(value.values), int(value.lengths.sum())
        if told != whole:
            raise StoreError(
                f"the lengths of a teacher's {name} must add up to its positions, but they are "
                f"{whole} and {told}: give the positions of all rows end to end"
            )


def _positions(
    value: Told, good: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Positions `[positions, ...]` of the good rows, and how many each row has if ragged."""
    lengths = None
    if isinstance(value, Ragged):
        lengths = value.lengths.cpu().numpy().astype(np.int64)
        good, lengths = np.repeat(good, lengths), lengths[good]
        value = value.values
    if not isinstance(value, Tensor):
        raise StoreError("a store keeps what a teacher says in full, but this one lists outcomes")
    values = value.detach().to(torch.float32).cpu().numpy()
    return values if good.all() else values[good], lengths


def _finite(value: Told) -> NDArray[np.bool_]:
    tensor = value.values if isinstance(value, Ragged) else value
    if not isinstance(tensor, Tensor):
        return np.ones(len(value), bool)
    # With its width named, as a batch may be without any position; as float32, as it is stored.
    flat = tensor.reshape(len(tensor), math.prod(tensor.shape[1:])).float()
    found: NDArray[np.bool_] = flat.isfinite().all(dim=1).cpu().numpy()
    if isinstance(value, Ragged):
        rows = np.repeat(np.arange(len(value)), value.lengths.cpu().numpy())
        found = np.bincount(rows, weights=~found, minlength=len(value)) == 0
    return found
