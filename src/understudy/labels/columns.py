"""A store as Parquet or Arrow columns, for trainers that are not ours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from understudy.contracts import Outcomes, Ragged, Told
from understudy.errors import StoreError
from understudy.folders import make_folder, write_with
from understudy.labels.store import LabelStore

SUFFIXES = (".parquet", ".arrow")
AT_ONCE: Final = 2**26
"""Bytes of a table's part that is in memory, about: rows of a language model are large."""
FIRST: Final = 16
"""Rows that are read before it is known how large they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What of a store stands in a table. A row is a pair of id and view.

    Attributes:
        rows: in the table.
        partial: stored, but not in the table, since their id lacks another view.
        skipped: not even stored, since the teacher's answer was not finite.
    """

    rows: int
    partial: int
    skipped: int

    @property
    def left_out(self) -> int:
        """How many rows the table lacks."""
        return self.partial + self.skipped


def export_columns(store: LabelStore, path: Path, *, rows: int = 4096) -> Exported:
    """Write the rows of a store, those of ids that have every view, as rows of a table.

    Columns: `id` and `view`, then per field its numbers as a list (of lists, where a row is a
    sequence). A field that lists outcomes has three columns: `FIELD_ids`, `FIELD_logprobs` (sorted
    from the most probable down) and `FIELD_rest`, the logarithm of the mass that is not listed;
    sampled ones have `FIELD_weights` instead, which sum to 1, and `FIELD_entropy`.

    Args:
        store: to read.
        path: ends in `.parquet` or `.arrow`.
        rows: at most so many at once in memory, fewer where they are large.

    Returns:
        How many rows were written, and how many were left out and why.

    Raises:
        StoreError: another suffix, a store that is damaged, or one without any whole id.
    """
    if path.suffix not in SUFFIXES:
        raise StoreError(
            f"a store is exported to a file that ends in {' or '.join(SUFFIXES)}, but got {path}"
        )
    if not len(store.ids()):
        raise StoreError(
            f"no id of {store.folder} has all its {len(store.views)} views: label again with a "
            "teacher whose answers are finite"
        )
    make_folder(path.parent)
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        writer: Any = None
        for batch in _batches(store, rows):
            if writer is None:
                writer = _writer(part, path.suffix, batch.schema, store)
            writer.write_batch(batch)
            count += batch.num_rows
        if writer is not None:
            writer.close()

    write_with(path, write)
    return Exported(rows=count, partial=len(store) - count, skipped=store.manifest.skipped)


def _writer(part: Path, suffix: str, schema: Any, store: LabelStore) -> Any:
    told = {
        "understudy.fingerprints": str(dict(store.manifest.fingerprints)),
        "understudy.temperature": "1",
    }
    schema = schema.with_metadata(told)
    return pq.ParquetWriter(part, schema) if suffix == ".parquet" else pa.ipc.new_file(part, schema)


def _batches(store: LabelStore, rows: int) -> Iterator[Any]:
    ids = torch.from_numpy(store.ids().copy())
    for view in store.views:
        start, count = 0, min(rows, FIRST)
        while start < len(ids):
            some = ids[start : start + count]
            start += count
            views = torch.full_like(some, view)
            columns = {"id": pa.array(some.numpy()), "view": pa.array(views.numpy())}
            for name, told in store.read(some, views).items():
                columns |= _columns(name, told)
            batch = pa.RecordBatch.from_pydict(columns)
            yield batch
            # Rows of a sequence differ in length, so the number grows step by step.
            fitting = AT_ONCE * len(some) // max(batch.nbytes, 1)
            count = max(1, min(rows, fitting, 4 * count))


def _columns(name: str, told: Told) -> dict[str, Any]:
    if isinstance(told, Ragged):
        ends = torch.cat([told.lengths.new_zeros(1), told.lengths.cumsum(0)]).int().numpy()
        inner = _columns(name, told.values)
        return {key: pa.ListArray.from_arrays(pa.array(ends), v) for key, v in inner.items()}
    if isinstance(told, Outcomes):
        return _outcomes(name, told)
    return {name: _lists(told)}


def _outcomes(name: str, told: Outcomes) -> dict[str, Any]:
    order = told.log_mass.argsort(dim=1, descending=True, stable=True)
    ids, mass = told.ids.gather(1, order), told.log_mass.gather(1, order)
    listed = ids >= 0
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), listed.sum(dim=1).cumsum(0)])
    cuts = pa.array(ends.int().numpy())
    values = mass[listed].exp() if told.sampled else mass[listed]
    columns = {
        f"{name}_ids": pa.ListArray.from_arrays(cuts, pa.array(ids[listed].int().numpy())),
        f"{name}_{'weights' if told.sampled else 'logprobs'}": pa.ListArray.from_arrays(
            cuts, pa.array(values.numpy())
        ),
    }
    if told.sampled and told.entropy is not None:
        return columns | {f"{name}_entropy": pa.array(told.entropy.numpy())}
    return columns | {f"{name}_rest": pa.array(told.rest.numpy())}


def _lists(values: Tensor) -> Any:
    """`[rows, ...]` as nested lists of fixed size."""
    column = pa.array(values.reshape(-1).numpy())
    for size in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column
