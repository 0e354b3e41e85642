"""Ask a teacher once for every row and store what it says; go on where a killed run stopped."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from understudy.contracts import Batch, Teacher
from understudy.errors import StoreError
from understudy.folders import file_checksum, make_folder, write_atomic, write_json
from understudy.labels.codec import DENSE, encode_dense
from understudy.labels.store import MANIFEST, Manifest, Shard, read_manifest


def record(
    *,
    teacher: Teacher,
    batches: Callable[[int], Iterable[Batch]],
    needs: frozenset[str],
    folder: Path,
    fingerprints: Mapping[str, str],
    shard_rows: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write what `teacher` knows of every batch into a label store.

    Args:
        teacher: asked once per batch.
        batches: the batches from a row number on, always in the same order.
        needs: the names of the knowledge to keep.
        folder: the store; an unfinished one with the same fingerprints goes on.
        fingerprints: what the labels are a function of.
        shard_rows: rows per file.
        on_rows: called with the number of rows done, those of an earlier run included.

    Raises:
        StoreError: rows without ids, or a row that says two things.
    """
    make_folder(folder)
    shards = _finished(folder, fingerprints)
    done = sum(shard.rows for shard in shards)
    on_rows(done)
    fields: dict[str, dict[str, Any]] = {}
    for arrays in _cut(_answers(teacher, batches(done), needs), shard_rows):
        fields = {
            name: {"codec": DENSE, "shape": list(value.shape[1:])}
            for name, value in arrays.items()
            if name not in ("ids", "views")
        }
        shards.append(_write_shard(folder, len(shards), arrays))
        _write_manifest(folder, fields, fingerprints, shards, complete=False)
        done += shards[-1].rows
        on_rows(done)
    if not fields and shards:
        fields = {name: dict(entry) for name, entry in read_manifest(folder).fields.items()}
    return _write_manifest(folder, fields, fingerprints, shards, complete=True)


def _answers(
    teacher: Teacher, batches: Iterable[Batch], needs: frozenset[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    for batch in batches:
        if batch.ids is None:
            raise StoreError("labels are stored by example id, but these rows have none")
        knowledge = teacher(batch)
        views = np.zeros(len(batch), np.int64) if batch.views is None else batch.views.numpy()
        answer: dict[str, NDArray[Any]] = {"ids": batch.ids.numpy(), "views": views}
        for name in sorted(needs):
            answer[name] = encode_dense(knowledge[name].float().cpu().numpy())
        yield answer


def _cut(
    answers: Iterable[dict[str, NDArray[Any]]], rows: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Regroup batches into shards of exactly `rows` rows, the last one shorter."""
    waiting: dict[str, NDArray[Any]] = {}
    for answer in answers:
        waiting = {
            name: np.concatenate([waiting[name], value]) if waiting else value
            for name, value in answer.items()
        }
        while len(waiting["ids"]) >= rows:
            yield {name: value[:rows] for name, value in waiting.items()}
            waiting = {name: value[rows:] for name, value in waiting.items()}
    if waiting and len(waiting["ids"]):
        yield waiting


def _write_shard(folder: Path, number: int, arrays: dict[str, NDArray[Any]]) -> Shard:
    name = f"shard-{number:05d}.safetensors"
    path = folder / name
    write_atomic(path, save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    return Shard(
        file=name,
        rows=len(arrays["ids"]),
        bytes=path.stat().st_size,
        sha256=file_checksum(path),
    )


def _write_manifest(
    folder: Path,
    fields: Mapping[str, Mapping[str, Any]],
    fingerprints: Mapping[str, str],
    shards: list[Shard],
    *,
    complete: bool,
) -> Manifest:
    manifest = Manifest(
        fields=fields, fingerprints=fingerprints, shards=tuple(shards), complete=complete
    )
    write_json(folder / MANIFEST, manifest.to_data())
    return manifest


def _finished(folder: Path, fingerprints: Mapping[str, str]) -> list[Shard]:
    """The shards of an interrupted run that are whole, up to the first that is not."""
    if not (folder / MANIFEST).is_file():
        return []
    manifest = read_manifest(folder)
    if dict(manifest.fingerprints) != dict(fingerprints):
        return []
    whole: list[Shard] = []
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file() or file_checksum(path) != shard.sha256:
            break
        whole.append(shard)
    return whole
