"""Recording a chain of blocks that lie on the disk, one at a time: no network is in memory."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from understudy.blockwise.opening import Shelved
from understudy.blockwise.recording import Writing
from understudy.blockwise.sources import Recorded, rows_fingerprint
from understudy.blockwise.words import Call
from understudy.errors import ModelError
from understudy.folders import Stage, file_checksum, read_json, write_json
from understudy.students.blocks.chain import resting


def record_chain(
    blocks: Mapping[str, Shelved],
    rows: Tensor,
    folder: Path,
    *,
    batch_size: int = 64,
    precision: str = "float16",
) -> dict[str, Recorded]:
    """Write what each block gives to what the block before it gave, loading one block at a time.

    As `sources.record`, for blocks that take the stream alone and follow each other directly; what
    stands before, between or behind them must be blocks too. What was written of a block is what
    the next one is given, so that what is lost in `precision` is lost for both, and every answer
    is to exactly the input that stands beside it.

    A block that is recorded already, from the same rows, is not loaded.

    Args:
        blocks: by name, in running order; of `opening.shelve`.
        rows: what the first block takes, `[rows, ...]`.
        folder: where to; each block has its own in it.
        batch_size: rows per forward pass.
        precision: of floating-point numbers, `float16` or `float32`.

    Raises:
        DataError: a number is too large for float16.
        ModelError: a block does not take what the block before it gave, or its file is damaged.
        RunError: the disk is full.
    """
    found: dict[str, Recorded] = {}
    before, digest = "", rows_fingerprint(rows)
    for name, shelved in blocks.items():
        depends = {
            "block": [repr(shelved.skeleton), file_checksum(shelved.path)],
            "given": digest,
            "precision": precision,
        }
        stage = Stage(run=folder, name=name, depends=depends)
        if not stage.done():
            work = stage.begin()
            given = Recorded(folder / before, before) if before else rows
            with Writing(work, rows=len(rows), precision=precision, apart=True) as writing:
                _write(writing, name, shelved, given, batch_size, precision)
            if before:
                _refer(work, name, before)
            stage.finish({"rows": len(rows)}, seconds=0.0)
        found[name] = Recorded(folder / name, name)
        before, digest = name, stage.fingerprint
    return found


def _write(
    writing: Writing,
    name: str,
    shelved: Shelved,
    given: Tensor | Recorded,
    batch_size: int,
    precision: str,
) -> None:
    # The block goes when this returns, before the next one comes.
    module = shelved.module()
    for start in range(0, len(given), batch_size):
        stop = min(start + batch_size, len(given))
        if isinstance(given, Tensor):
            stream = given[start:stop]
        else:
            stream = given(np.arange(start, stop)).gives
        gives = _answer(name, module, _rounded(stream, precision))
        writing.add({name: Call(stream=stream, gives=gives)})


def _answer(name: str, module: nn.Module, stream: Tensor) -> Tensor:
    try:
        with resting(module):
            gives: Tensor = module(stream)
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"block `{name}` does not take {list(stream.shape)}, what comes before it ({error}): "
            "make a block of what stands between them, or record the whole network with `record`"
        ) from error
    return gives


def _refer(work: Path, name: str, before: str) -> None:
    """Let the block's stream be the file with what the block before it gave."""
    path = work / f"{name}.json"
    same = {f"{name}.stream": f"../{before}/{before}.gives"}
    write_json(path, read_json(path) | {"same": same})
    (work / f"{name}.stream.npy").unlink()


def _rounded(rows: Tensor, precision: str) -> Tensor:
    """As the file will give them back."""
    if not rows.is_floating_point():
        return rows
    return rows.to(getattr(torch, precision)).float()
