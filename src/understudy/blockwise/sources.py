"""What blocks are given and give, row by row: recorded once in files, or recomputed when asked for.

A recording holds no more in memory than one batch of the blocks that are recorded at once, and
whoever reads it no more than the batch that is read: `ceiling` says how many bytes that is.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.blockwise.calls import rows_of
from understudy.blockwise.form import kept, parted, passing
from understudy.blockwise.recording import Differs, Reading, Writing
from understudy.blockwise.words import Call, Partition
from understudy.errors import ModelError
from understudy.folders import STAGE_FILE, Stage, fingerprint, read_json
from understudy.models.weights import weights_fingerprint
from understudy.students.blocks.chain import resting
from understudy.students.blocks.removal import first_tensor

_FLOAT = 4


@runtime_checkable
class Source(Protocol):
    """The calls of one block for any of its rows."""

    @property
    def fingerprint(self) -> str:
        """Of all that it gives."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __call__(self, index: NDArray[np.int64]) -> Call:
        """The call with these rows, in float32."""


def ceiling(partition: Partition, *, batch_size: int, at_once: int | None = None) -> int:
    """How many bytes of activations `record` holds at the most, the network's own work aside.

    Args:
        partition: what is recorded.
        batch_size: rows at a time.
        at_once: how many blocks per pass; all where it is None. Masks and other extras come on top.
    """
    sizes = [
        _FLOAT * (int(np.prod(b.takes, initial=1)) + int(np.prod(b.gives, initial=1)))
        for b in partition.blocks
    ]
    group = len(sizes) if at_once is None else at_once
    most = max((sum(sizes[at : at + group]) for at in range(0, len(sizes), group)), default=0)
    # Kept as they pass, and once more on their way into a file, one after the other.
    return batch_size * (most + max(sizes, default=0))


def record(
    network: nn.Module,
    partition: Partition,
    rows: Tensor,
    folder: Path,
    *,
    batch_size: int = 64,
    at_once: int | None = None,
    precision: str = "float16",
) -> dict[str, "Recorded"]:
    """Write what all blocks are given and give for these rows, once.

    Where a block gives what the next one is given, or the same mask goes to several, it is there
    once. A folder that holds the same already is used as it is; of one that was interrupted, the
    whole is written again.

    Args:
        network: it is left as found.
        partition: of this network.
        rows: what the network takes, `[rows, ...]`; a batch of them is in memory at a time.
        folder: where to; the name of its last part is the stage's.
        batch_size: rows per forward pass.
        at_once: how many blocks are recorded in one pass over the rows; None: all. Fewer need less
            memory and more time.
        precision: of floating-point numbers, `float16` or `float32`; whole numbers stay as they
            are.

    Raises:
        DataError: a number is too large for float16.
        ModelError: the network does not take the rows, or a block's other arguments cannot be
            written; `Recomputed` asks the network each time.
        RunError: the disk is full.
    """
    depends = {
        "network": weights_fingerprint(network),
        "partition": partition.to_data(),
        "rows": rows_fingerprint(rows),
        "precision": precision,
    }
    stage = Stage(run=folder.parent, name=folder.name, depends=depends)
    if not stage.done():
        stage.begin()
        group = len(partition.blocks) if at_once is None else max(1, at_once)
        for start in range(0, len(partition.blocks), group):
            part = replace(partition, blocks=partition.blocks[start : start + group])
            try:
                _pass(network, part, rows, stage.work, batch_size, precision, apart=False)
            except Differs:
                # What was the same for the first batch is not for all of them.
                _pass(network, part, rows, stage.work, batch_size, precision, apart=True)
        stage.finish({"rows": len(rows)}, seconds=0.0)
    return {block.name: Recorded(folder, block.name) for block in partition.blocks}


def _pass(
    network: nn.Module,
    partition: Partition,
    rows: Tensor,
    folder: Path,
    batch_size: int,
    precision: str,
    *,
    apart: bool,
) -> None:
    with Writing(folder, rows=len(rows), precision=precision, apart=apart) as writing:
        for start in range(0, len(rows), batch_size):
            writing.add(passing(network, partition, rows[start : start + batch_size]))


class Recorded:
    """The calls of one block from the files of `record`; they are mapped, not loaded.

    Only the folder and the block's name go to another process.
    """

    def __init__(self, folder: Path, block: str) -> None:
        """Read the recording of a block when it is first asked for.

        Args:
            folder: of `record`.
            block: its name.
        """
        self.folder, self.block = folder.resolve(), block
        self._reading: Reading | None = None

    @property
    def fingerprint(self) -> str:
        """Of the network, the rows, the precision and the block.

        Raises:
            RunError: there is no recording.
        """
        stage = read_json(self.folder / STAGE_FILE)
        return fingerprint([stage["fingerprint"], self.block])

    def __len__(self) -> int:
        return self._open().rows

    def __call__(self, index: NDArray[np.int64]) -> Call:
        """The call with these rows.

        Raises:
            RunError: there is no recording.
        """
        return self._open()(index)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "block": self.block, "_reading": None}

    def _open(self) -> Reading:
        if self._reading is None:
            self._reading = Reading(self.folder, self.block)
        return self._reading


class _Enough(BaseException):
    """The block has run; what comes behind it is not needed."""


class Recomputed:
    """The calls of one block by running the network up to its end, each time anew.

    Nothing is written, and of activations there is one batch in memory; the network is, too.
    """

    def __init__(self, network: nn.Module, partition: Partition, block: str, rows: Tensor) -> None:
        """Hold the network and the rows.

        Args:
            network: it is left as found.
            partition: of this network.
            block: the name of a block.
            rows: what the network takes, `[rows, ...]`.

        Raises:
            ModelError: there is no such block.
        """
        self._network, self._block, self._rows = network, partition[block], rows
        self._fingerprint = fingerprint(
            [weights_fingerprint(network), self._block.to_data(), rows_fingerprint(rows)]
        )

    @property
    def fingerprint(self) -> str:
        """Of the network, the rows and the block."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, index: NDArray[np.int64]) -> Call:
        """The call with these rows.

        Raises:
            ModelError: the block does not run with these rows.
        """
        seen: dict[str, Any] = {}

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            stream, others, named = parted(module, args, kwargs)
            # Copies, as the block may write over what it is given.
            seen["given"] = kept(stream), kept(others), kept(named)

        def after(_: nn.Module, _args: Any, made: Any) -> None:
            seen["made"] = kept(first_tensor(made))
            raise _Enough

        network, paths = self._network, self._block.paths
        hooks: list[Any] = [
            network.get_submodule(paths[0]).register_forward_pre_hook(before, with_kwargs=True),
            network.get_submodule(paths[-1]).register_forward_hook(after),
        ]
        try:
            with resting(network):
                network(self._rows[torch.from_numpy(index)])
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        if "given" not in seen or seen.get("made") is None:
            raise ModelError(
                f"block `{self._block.name}` does not run with these rows: divide the network anew"
            )
        stream, args, kwargs = seen["given"]
        return Call(stream=stream, args=args, kwargs=kwargs, gives=seen["made"])


class Held:
    """The calls of one block for rows that are in memory."""

    def __init__(self, call: Call) -> None:
        """Hold a call of all rows."""
        self.call = call

    @property
    def fingerprint(self) -> str:
        """Of the stream and of what was made of it."""
        return fingerprint([rows_fingerprint(self.call.stream), rows_fingerprint(self.call.gives)])

    def __len__(self) -> int:
        return len(self.call.stream)

    def __call__(self, index: NDArray[np.int64]) -> Call:
        """The call with these rows."""
        return rows_of(self.call, torch.from_numpy(index))


def rows_fingerprint(rows: Tensor) -> str:
    """16 hex digits over the type, the shape and the numbers of a tensor."""
    digest = hashlib.sha256(f"{rows.dtype}{list(rows.shape)}".encode())
    for part in torch.split(rows.detach(), 1024):
        digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
