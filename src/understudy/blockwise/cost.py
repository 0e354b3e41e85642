"""What a block or a candidate costs: operations, bytes, and measured time where it is deployed."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.blockwise.form import Call, Partition, passing, piece, replaced
from understudy.deployed import Deployed, summarise, time_calls
from understudy.errors import ModelError
from understudy.evaluate.operations import counting
from understudy.export.onnx import export_onnx
from understudy.students.blocks.chain import resting

_WARM_UP = 3
# Bounds of how many times as long a block takes inside its network.
_SLOWEST, _FASTEST = 0.3, 4.0
Number = int | float


def measured(
    module: nn.Module,
    call: Call,
    *,
    threads: int = 1,
    batch: int = 1,
    seconds: Number = 0.3,
    runtime: Literal["onnxruntime", "torch"] = "onnxruntime",
) -> float:
    """Milliseconds of one call of a block or a candidate by itself; the median.

    Other arguments than the stream are constants: those of the first row, for every row.

    Args:
        module: takes `(stream, *args, **kwargs)` and gives the stream, rows first.
        call: how it is called; its rows are repeated where a batch needs more.
        threads: within a call.
        batch: rows per call.
        seconds: for about how long.
        runtime: what it is run with. Times of two runtimes may not be compared.

    Raises:
        ExportError: it has no ONNX form; `torch` measures it all the same.
    """
    alone = Alone(module, call)
    stream = call.stream if len(call.stream) > 1 else torch.cat([call.stream, call.stream])
    if runtime == "torch":
        return _torch_ms(alone, stream, threads=threads, batch=batch, seconds=seconds)
    # The exporter wants rows of numbers, and the file float32.
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(alone, stream[:2], Path(folder) / "piece.onnx", metadata={})
        rows = stream.detach().cpu().to(_exported(stream.dtype)).numpy()
        latency = Deployed.open(path).latency(
            rows, batch=batch, threads=threads, seconds=float(seconds), warm_up=_WARM_UP
        )
    return latency.median_ms


class Alone(nn.Module):
    """A block or a candidate as a module of one argument, the stream.

    Args:
        module: takes `(stream, *args, **kwargs)`.
        call: whose other arguments become constants; a tensor with a row for every row of the
            stream is taken by its first row.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self.args = call.args
        self.kwargs = dict(call.kwargs)
        self.rows = len(call.stream)

    def forward(self, stream: Tensor) -> Tensor:
        """What the module makes of the stream."""
        args = tuple(self._fitted(value, stream) for value in self.args)
        kwargs = {name: self._fitted(value, stream) for name, value in self.kwargs.items()}
        made: Tensor = self.module(stream, *args, **kwargs)
        return made

    def _fitted(self, value: Any, stream: Tensor) -> Any:
        if isinstance(value, Tensor):
            floats = value.is_floating_point()
            value = value.to(stream.dtype) if floats else value
            if value.ndim and len(value) == self.rows:
                return value[:1].expand(stream.shape[0], *value.shape[1:])
            return value
        if isinstance(value, (tuple, list)):
            return type(value)(self._fitted(item, stream) for item in value)
        if isinstance(value, Mapping):
            return {name: self._fitted(item, stream) for name, item in value.items()}
        return value


def flops_of(module: nn.Module, call: Call) -> int:
    """Operations for one row of a block or a candidate; a multiply-add counts as two.

    Products, convolutions and attention are counted, and recurrent layers by their formula.

    Raises:
        ModelError: it does not take the call.
    """
    alone = Alone(module, call)
    try:
        with resting(module), counting(alone) as counted:
            alone(call.stream[:1])
    except Exception as error:  # whatever the candidate's own forward raises
        raise ModelError(
            f"{type(module).__name__} does not take what its block is given, "
            f"{list(call.stream.shape)} ({error}): correct its sizes"
        ) from error
    return counted.total


def timed(
    network: nn.Module,
    partition: Partition,
    rows: Tensor,
    *,
    threads: int = 1,
    batch: int = 1,
    seconds: Number = 0.3,
) -> Partition:
    """The partition with the latency per call of each block as it is deployed, by ONNX Runtime.

    A block by itself pays for a call of its own, and finds its weights in the caches, where other
    weights have been in the network. So each is timed by itself, and all by what the network takes
    less without those that can be left out: `Partition.inside` is the way from one to the other,
    for candidates too. The rest is what the network takes beyond its blocks.

    Args:
        network: it is left as found.
        partition: of this network.
        rows: what the network takes as its one argument, two rows or more.
        threads: within a call.
        batch: rows per call.
        seconds: for about how long each.

    Raises:
        ExportError: a block or the network has no ONNX form.
    """
    calls = passing(network, partition, rows[: max(2, min(len(rows), batch))])
    settings: dict[str, Any] = {"threads": threads, "batch": batch, "seconds": seconds}
    whole = measured(network, Call(stream=rows, gives=rows), **settings)
    alone = {
        block.name: measured(piece(network, block), calls[block.name], **settings)
        for block in partition.blocks
    }
    like = [block.name for block in partition.blocks if block.takes == block.gives]
    rest = partition.rest
    if like:
        idle = measured(_Passed(), calls[like[0]], **settings)
        without = replaced(network, partition, {name: _Passed() for name in like})
        left = measured(without, Call(stream=rows, gives=rows), **settings)
        own = sum(max(0.0, alone[name] - idle) for name in like)
        pace = (whole - left) / own if own > 0 else 1.0
        # Beyond these it is the clock that is wrong.
        rest = replace(rest, call_ms=idle, pace=min(max(pace, _SLOWEST), _FASTEST))
    found = replace(partition, rest=rest)
    blocks = tuple(replace(block, ms=found.inside(alone[block.name])) for block in partition.blocks)
    left = whole - sum(block.ms or 0.0 for block in blocks)
    return replace(found, blocks=blocks, rest=replace(rest, ms=left))


class _Passed(nn.Module):
    """A block that is left out, whatever else it is called with."""

    def forward(self, stream: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        del args, kwargs
        return stream


def _torch_ms(
    module: nn.Module, stream: Tensor, *, threads: int, batch: int, seconds: Number
) -> float:
    fed = stream[torch.arange(batch) % len(stream)]
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with resting(module):
            times = time_calls(lambda: module(fed), seconds=float(seconds), warm_up=_WARM_UP)
    finally:
        torch.set_num_threads(usual)
    return summarise(times, batch=batch, threads=threads).median_ms


def _exported(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else dtype
