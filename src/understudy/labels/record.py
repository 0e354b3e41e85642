"""Ask a teacher once for every row and store what it says; go on where a killed run stopped."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from understudy.contracts import Batch, Teacher
from understudy.errors import StoreError
from understudy.folders import (
    file_checksum,
    make_folder,
    remove_parts,
    write_atomic,
    write_json,
)
from understudy.labels.codec import DENSE, encode_dense, map_tensors
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
        folder: the store; an unfinished one with the same fingerprints and needs goes on.
        fingerprints: what the labels are a function of.
        shard_rows: rows per file, and what the last batch in it has more: a run that goes on
            asks the teacher for the same batches, since another batch size can change last digits.
        on_rows: called with the number of rows done, those of an earlier run included.

    Raises:
        StoreError: no rows, rows without ids or in a random view, or an id that stands twice.
    """
    make_folder(folder)
    remove_parts(folder)
    shards = _finished(folder, fingerprints, needs)
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
    if not shards:
        raise StoreError("there is no row to label: give the teacher at least one")
    if not fields:
        fields = {name: dict(entry) for name, entry in read_manifest(folder).fields.items()}
    _check_ids(folder, shards)
    _remove_others(folder, shards)
    return _write_manifest(folder, fields, fingerprints, shards, complete=True)


def _answers(
    teacher: Teacher, batches: Iterable[Batch], needs: frozenset[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    for batch in batches:
        if batch.ids is None:
            raise StoreError("labels are stored by example id, but these rows have none")
        knowledge = teacher(batch)
        if batch.views is not None and bool((batch.views != 0).any()):
            raise StoreError(
                "a store holds view 0 of each row, but got rows in another view: "
                "random views need `labels: {use: live}`"
            )
        ids = batch.ids.cpu().numpy().astype(np.int64)
        answer: dict[str, NDArray[Any]] = {"ids": ids, "views": np.zeros(len(batch), np.int64)}
        for name in sorted(needs):
            answer[name] = encode_dense(knowledge[name].float().cpu().numpy())
        yield answer


def _cut(
    answers: Iterable[dict[str, NDArray[Any]]], rows: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Join batches until they have `rows` rows or more; the last shard may have fewer."""
    waiting: list[dict[str, NDArray[Any]]] = []
    count = 0
    for answer in answers:
        waiting.append(answer)
        count += len(answer["ids"])
        if count >= rows:
            yield _joined(waiting)
            waiting, count = [], 0
    if count:
        yield _joined(waiting)


def _joined(answers: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


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


def _check_ids(folder: Path, shards: list[Shard]) -> None:
    every = np.concatenate([map_tensors(folder / shard.file)["ids"] for shard in shards])
    ids, counts = np.unique(every, return_counts=True)
    twice = ids[counts > 1]
    if len(twice):
        raise StoreError(
            f"an id stands for one row, but {len(twice)} ids came more than once (ids "
            f"{', '.join(map(str, twice[:5]))}): give every row an id of its own"
        )


def _remove_others(folder: Path, shards: list[Shard]) -> None:
    """Remove shards that an earlier store left in this folder."""
    known = {shard.file for shard in shards}
    for path in folder.glob("shard-*.safetensors"):
        if path.name not in known:
            path.unlink()


def _finished(folder: Path, fingerprints: Mapping[str, str], needs: frozenset[str]) -> list[Shard]:
    """The shards of an interrupted run that are whole, up to the first that is not."""
    if not (folder / MANIFEST).is_file():
        return []
    manifest = read_manifest(folder)
    same = dict(manifest.fingerprints) == dict(fingerprints) and set(manifest.fields) == needs
    if not same:
        return []
    whole: list[Shard] = []
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file() or file_checksum(path) != shard.sha256:
            break
        whole.append(shard)
    return whole
