"""How many rows a teacher is asked at once: as many as still make it faster, and fit."""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from understudy.allocator import give_back_freed_memory
from understudy.contracts import Batch, Teacher
from understudy.errors import ModelError, UnderstudyError
from understudy.teachers.backends.pace import seconds_of

# A doubling that brings less is noise, and costs memory.
NOTICEABLE = 1.05
_ROUNDS = 3
_PROC = Path("/proc/self")


def find_batch_size(
    teacher: Teacher,
    make_batch: Callable[[int], Batch],
    *,
    ceiling_bytes: int,
    start: int = 16,
    largest: int = 1024,
) -> int:
    """The batch, a power of two, beyond which a doubling gains no more than 5 % rows per second.

    Doubles from `start`. A doubling is not even tried where twice the memory of the batch before
    would pass the ceiling: on a CPU, memory that is not there ends the process. Where `start`
    itself passes the ceiling or is out of memory, it is halved until it fits.

    Args:
        teacher: asked for one warm-up and several timed batches of every size.
        make_batch: that many rows, real ones of the data.
        ceiling_bytes: what the process may grow by while a batch is answered: its resident
            memory on a CPU, allocated memory on a GPU.
        start: the first size, rounded down to a power of two.
        largest: none above this is tried.

    Raises:
        ModelError: not even a single row fits.
        ValueError: a size or the ceiling is below 1, or `start > largest`.
    """
    if not 1 <= start <= largest or ceiling_bytes < 1:
        raise ValueError(
            "`1 <= start <= largest` and `ceiling_bytes >= 1` must hold, but got "
            f"{start=}, {largest=}, {ceiling_bytes=}"
        )
    meter = _Meter(make_batch(1).inputs.device)
    size = 1 << (start.bit_length() - 1)
    pace, grown = _measure(teacher, make_batch, size, meter)
    while pace is None or grown > ceiling_bytes:
        if size == 1:
            raise ModelError(
                f"the teacher must answer one row within {ceiling_bytes / 1e6:,.0f} MB, but it "
                f"needs {'more than there is' if pace is None else f'{grown / 1e6:,.0f} MB'}: "
                "allow it more memory, or take a smaller teacher"
            )
        size //= 2
        pace, grown = _measure(teacher, make_batch, size, meter)
    while 2 * size <= largest and 2 * grown <= ceiling_bytes:
        found, grown = _measure(teacher, make_batch, 2 * size, meter)
        if found is None or grown > ceiling_bytes or found < NOTICEABLE * pace:
            break
        size, pace = 2 * size, found
    return size


def _measure(
    teacher: Teacher, make_batch: Callable[[int], Batch], size: int, meter: "_Meter"
) -> tuple[float | None, int]:
    """Rows per second (None: out of memory), and bytes above what there was before the search."""
    try:
        batch = make_batch(size)
        meter.reset()
        call = partial(teacher, batch)
        call()
        times = [seconds_of(call, device=meter.device) for _ in range(_ROUNDS)]
    except (MemoryError, RuntimeError, UnderstudyError) as error:
        if not _out_of_memory(error):
            raise
        return None, meter.grown()
    return size / statistics.median(times), meter.grown()


def _out_of_memory(error: BaseException) -> bool:
    """Whether this, or what it was raised from, says that there is no more memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # PyTorch on a CPU and ONNX Runtime have no class for it.
    said = str(error).lower()
    if any(words in said for words in ("allocate memory", "bad allocation", "bad_alloc")):
        return True
    return error.__cause__ is not None and _out_of_memory(error.__cause__)


class _Meter:
    """The most memory that was held since `reset`, above what was held when it was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        give_back_freed_memory()  # or a batch would grow into what an earlier stage has left
        self.reset()
        self._before = self._peak()

    def reset(self) -> None:
        """Forget earlier peaks, where the system can: elsewhere only what passes them is seen."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            (_PROC / "clear_refs").write_text("5")
        except OSError:
            return

    def grown(self) -> int:
        """Bytes."""
        return max(self._peak() - self._before, 0)

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = _PROC / "status"
        if status.exists():
            line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
            return 1024 * int(line.split()[1])
        return _lifetime_peak()


def _lifetime_peak() -> int:
    """The most memory this process ever held, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(found if sys.platform == "darwin" else 1024 * found)
