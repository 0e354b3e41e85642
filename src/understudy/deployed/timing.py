"""How long a call takes: median and tail, never a mean."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

_FEWEST, _MOST = 5, 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """The time of one call with `batch` rows on `threads` threads, over `runs` calls.

    Attributes:
        median_ms: half of the calls took longer than these milliseconds.
        p95_ms: one call in twenty took longer than these milliseconds.
        batch: rows per call.
        threads: threads within the call.
        runs: how many calls were timed, after those for warming up.
    """

    median_ms: float
    p95_ms: float
    batch: int
    threads: int
    runs: int


def available_threads() -> int:
    """How many processors this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def time_calls(call: Callable[[], object], *, seconds: float, warm_up: int) -> list[float]:
    """The milliseconds of each call, for about `seconds` and at least five calls.

    The calls for warming up come before and are not counted.
    """
    for _ in range(warm_up):
        call()
    times: list[float] = []
    end = perf_counter() + seconds
    while len(times) < _MOST and (len(times) < _FEWEST or perf_counter() < end):
        start = perf_counter()
        call()
        times.append((perf_counter() - start) * 1e3)
    return times


def summarise(times: list[float], *, batch: int, threads: int) -> Latency:
    """Median and 95th percentile of the milliseconds of calls."""
    median, p95 = np.percentile(times, [50, 95])
    return Latency(
        median_ms=float(median), p95_ms=float(p95), batch=batch, threads=threads, runs=len(times)
    )
