"""What a model costs to run: size, arithmetic, time and memory.

An exported model is measured from its file; what cannot be exported is measured in eager PyTorch,
and the two are told apart by `runtime`, since they may not be compared.
"""

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.deployed import Deployed, Latency, available_threads, summarise, time_calls
from understudy.errors import DataError
from understudy.evaluate.operations import counting

_BATCHES = (1, 32)
_WARM_UP = 3
# Its own process, so that nothing which this one has loaded is counted. The peak is reset after
# the imports where the kernel allows it, since these reach higher than a small model ever does.
_MEMORY_SCRIPT = """
import io, sys
from contextlib import suppress
import numpy, onnxruntime
rows = numpy.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: rows})
print(peak() - before)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What was measured of one model on this machine.

    Attributes:
        runtime: `onnxruntime` for a file, `torch` for a module in eager mode.
        latencies: one per batch size and number of threads.
        bytes: the size of the file; None for a module.
        peak_memory_mb: how far loading it and answering 32 rows raise the peak of a process's
            memory, in 10^6 bytes; None where it is not known (not Linux, or not a file).
    """

    runtime: Literal["onnxruntime", "torch"]
    latencies: tuple[Latency, ...]
    bytes: int | None = None
    peak_memory_mb: float | None = None

    def median_ms(self, *, batch: int) -> float | None:
        """The median latency with the fewest threads measured, one as a rule, in milliseconds."""
        same = [latency for latency in self.latencies if latency.batch == batch]
        return min(same, key=lambda latency: latency.threads).median_ms if same else None

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON: `runtime`, `bytes`, `peak_memory_mb` and `latency_ms`.

        `latency_ms` has the medians `batch1` and `batch32` on one thread, and every measurement
        under `detail`.
        """
        latency: dict[str, Any] = {f"batch{n}": self.median_ms(batch=n) for n in _BATCHES}
        latency["detail"] = [asdict(one) for one in self.latencies]
        return {
            "runtime": self.runtime,
            "bytes": self.bytes,
            "latency_ms": latency,
            "peak_memory_mb": self.peak_memory_mb,
        }


def parameters(module: nn.Module) -> int:
    """How many parameters a module has, trainable or not; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops(module: nn.Module, example: Shaped[Tensor, " batch ..."]) -> int | None:
    """Floating-point operations to answer one row; a multiply-add counts as two.

    Counted as in `operations.Operations`. None where the module does not run here.

    Args:
        module: what to count; it is run once, in evaluation mode.
        example: raw rows, of which the first is used.
    """
    try:
        with _evaluating(module), torch.no_grad(), counting(module) as counted:
            module(example[:1])
    except (RuntimeError, NotImplementedError):
        return None
    return counted.total


def file_bytes(path: Path) -> int:
    """The size of a file in bytes."""
    return path.stat().st_size


def onnx_cost(
    path: Path,
    rows: NDArray[Any],
    *,
    seconds: float = 1.5,
    batches: Sequence[int] = _BATCHES,
    threads: Sequence[int] | None = None,
) -> Cost:
    """Measure an exported file with ONNX Runtime.

    Args:
        path: the file.
        rows: raw rows, repeated where there are fewer than a batch needs.
        seconds: for about how long in all; the memory takes half a second more.
        batches: rows per call.
        threads: threads within a call; by default one, and all that this process may use.

    Raises:
        ExportError: the file cannot be opened.
        DataError: there are no rows, or the file does not take them.
    """
    deployed = Deployed.open(path)
    settings = _settings(batches, threads)
    latencies = tuple(
        deployed.latency(
            rows, batch=batch, threads=count, seconds=seconds / len(settings), warm_up=_WARM_UP
        )
        for batch, count in settings
    )
    return Cost(
        runtime="onnxruntime",
        latencies=latencies,
        bytes=file_bytes(path),
        peak_memory_mb=_peak_memory(path, _repeated(rows, 32).astype(deployed.input_dtype)),
    )


def torch_cost(
    module: nn.Module,
    rows: Shaped[Tensor, " rows ..."],
    *,
    seconds: float = 1.5,
    batches: Sequence[int] = _BATCHES,
    threads: Sequence[int] | None = None,
) -> Cost:
    """Measure a module in eager PyTorch, for what cannot be exported.

    The module is run where it is, in evaluation mode and without gradients; its modes and the
    number of threads are as before afterwards. Arguments as in `onnx_cost`.

    Raises:
        DataError: there are no rows.
    """
    settings = _settings(batches, threads)
    usual = torch.get_num_threads()
    latencies = []
    try:
        with _evaluating(module), torch.inference_mode():
            for batch, count in settings:
                fed = rows[torch.from_numpy(_positions(len(rows), batch)).to(rows.device)]
                torch.set_num_threads(count)
                times = time_calls(
                    lambda fed=fed: _synchronised(module, fed),  # type: ignore[misc]
                    seconds=seconds / len(settings),
                    warm_up=_WARM_UP,
                )
                latencies.append(summarise(times, batch=batch, threads=count))
    finally:
        torch.set_num_threads(usual)
    return Cost(runtime="torch", latencies=tuple(latencies))


def _synchronised(module: nn.Module, rows: Tensor) -> None:
    module(rows)
    if rows.is_cuda:
        torch.cuda.synchronize(rows.device)


def _settings(batches: Sequence[int], threads: Sequence[int] | None) -> list[tuple[int, int]]:
    counts = sorted({1, available_threads()} if threads is None else set(threads))
    return [(batch, count) for count in counts for batch in batches]


def _positions(count: int, batch: int) -> NDArray[np.int64]:
    if count == 0:
        raise DataError("timing needs a row, but got 0; pass at least one")
    return np.arange(batch) % count


def _repeated(rows: NDArray[Any], batch: int) -> NDArray[Any]:
    return np.asarray(rows[_positions(len(rows), batch)])


def _peak_memory(path: Path, rows: NDArray[Any]) -> float | None:
    if not sys.platform.startswith("linux"):
        return None
    stored = io.BytesIO()
    np.save(stored, rows)
    # -P: a file of the working folder must not pass for NumPy.
    command = [sys.executable, "-P", "-c", _MEMORY_SCRIPT, str(path)]
    try:
        done = subprocess.run(
            command, input=stored.getvalue(), capture_output=True, check=True, timeout=120
        )
        return int(done.stdout) * 1024 / 1e6
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every part in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
