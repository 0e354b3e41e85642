"""Exported labels beside the rows that they were made of, as a data set that a `Trainer` takes."""

from ast import literal_eval
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from understudy.errors import DataError, StoreError
from understudy.integrations.transformers.tokenizers import Tokenizer, vocabulary_mark

Row = Mapping[str, Any]


class StoredRows(Dataset[dict[str, Any]]):
    """Rows with the teacher's labels from a file that `understudy labels export` wrote.

    It gives what `TokenCollator` takes. Labels become tensors without a Python number in between:
    reading a batch of lists takes longer than a small student's step. An `.arrow` file is mapped, a
    `.parquet` file is read into memory.
    """

    def __init__(
        self,
        path: str | Path,
        rows: Mapping[int, Row],
        *,
        view: int = 0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Join a file with the rows that were labelled.

        Args:
            path: the file.
            rows: by id what else a row holds: `input_ids`, and `labels` or `completion_mask`.
            view: which view of each row.
            tokenizer: the rows'; compared with the mark that `label_tokens` stored, if it did.

        Raises:
            DataError: no such file, an id that `rows` lacks, or a view that is not in the file.
            StoreError: the labels were made with another tokenizer.
        """
        file = Path(path)
        if not file.is_file():
            raise DataError(
                f"the labels {file.absolute()} do not exist: write them with `understudy labels "
                "export`"
            )
        self._rows, self._batches = rows, _batches(file)
        if tokenizer is not None:
            _check_tokenizer(file, self._batches[0].schema.metadata, tokenizer)
        self._names = [n for n in self._batches[0].schema.names if n not in ("id", "view")]
        starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._starts = [int(start) for start in starts[:-1]]
        ids, views = (self._whole(name) for name in ("id", "view"))
        self._places = np.flatnonzero(views == view)
        self._ids = ids[self._places]
        _check(file, self._ids, rows, view, sorted(set(views.tolist())))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, number = int(self._places[index]), int(self._ids[index])
        which = bisect_right(self._starts, place) - 1
        batch, at = self._batches[which], place - self._starts[which]
        told = {name: _entry(batch.column(name), at) for name in self._names}
        return {"id": number, **self._rows[number], **told}

    def _whole(self, name: str) -> Any:
        return np.concatenate([batch.column(name).to_numpy() for batch in self._batches])


def _batches(path: Path) -> list[Any]:
    if path.suffix == ".arrow":
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    else:
        table = pq.read_table(path)
    return list(table.to_batches())


def _check_tokenizer(path: Path, metadata: Mapping[bytes, bytes], tokenizer: Tokenizer) -> None:
    told = literal_eval(metadata.get(b"understudy.fingerprints", b"{}").decode())
    found, wanted = told.get("vocabulary"), vocabulary_mark(tokenizer)
    if found is not None and found != wanted:
        raise StoreError(
            f"{path} was labelled with another tokenizer: the mark of its vocabulary is "
            f"{found[:12]}, that of the given one is {wanted[:12]}; label with the tokenizer that "
            "the student reads with"
        )


def _check(path: Path, ids: Any, rows: Mapping[int, Row], view: int, views: list[int]) -> None:
    if not len(ids):
        raise DataError(f"{path} has no view {view}: it has {', '.join(map(str, views))}")
    missing = [number for number in ids.tolist() if number not in rows]
    if missing:
        raise DataError(
            f"{path} tells of {len(missing)} ids that are not among the {len(rows)} rows, the "
            f"first is {missing[0]}: give the rows that were labelled, by id"
        )


def _entry(column: Any, at: int) -> Tensor:
    """One row of a column: `[tokens]`, or `[tokens, k]` filled up with -1 or -inf."""
    start, stop = column.offsets[at].as_py(), column.offsets[at + 1].as_py()
    inner = column.values
    if pa.types.is_fixed_size_list(inner.type):
        width = inner.type.list_size
        flat = inner.values.to_numpy()[start * width : stop * width]
        return torch.from_numpy(flat.reshape(-1, width).copy())
    if not pa.types.is_list(inner.type):
        return torch.from_numpy(inner.to_numpy()[start:stop].copy())
    ends = inner.offsets.to_numpy()[start : stop + 1]
    flat = inner.values.to_numpy()[ends[0] : ends[-1]]
    counts = np.diff(ends)
    most = int(counts.max(initial=0))
    if (counts == most).all():
        return torch.from_numpy(flat.reshape(-1, most).copy())
    table = np.full((len(counts), most), -1 if flat.dtype.kind == "i" else -np.inf, flat.dtype)
    table[np.arange(most) < counts[:, None]] = flat
    return torch.from_numpy(table)
