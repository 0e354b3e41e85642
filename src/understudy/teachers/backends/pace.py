"""How long calls take, when several arms take turns on a machine that others use too."""

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter

import torch

# Long enough for the clock and the scheduler, short enough for a user who waits.
LEAST_SECONDS = 0.15
# Neighbours on the machine rarely cost more than this from one moment to the next.
BEHIND = 2.0
# Then no further round is begun: whoever waits for a choice would rather have the work begin.
LONGEST = 15.0


def seconds_of(
    call: Callable[[], object], *, device: torch.device, least: float = LEAST_SECONDS
) -> float:
    """The mean seconds of one call, over as many as fill `least` seconds, and one at least."""
    settle(device)
    calls, started = 0, perf_counter()
    while True:
        call()
        settle(device)
        calls += 1
        spent = perf_counter() - started
        if spent >= least:
            return spent / calls


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    device: torch.device,
    rounds: int,
    least: float = LEAST_SECONDS,
) -> dict[str, float]:
    """The median seconds of a call of each arm; the arms take turns `rounds` times.

    A turn fills `least` seconds, with one call at least.
    An arm that is far behind after a round takes no part in the next, and after `LONGEST` seconds
    there is no next, so that on slow machines time is spent on what may be chosen.
    """
    started = perf_counter()
    found: dict[str, list[float]] = {name: [] for name in calls}
    running = list(calls)
    for _ in range(rounds):
        for name in running:
            found[name].append(seconds_of(calls[name], device=device, least=least))
        best = min(min(times) for times in found.values())
        if perf_counter() - started > LONGEST:
            break
        running = [name for name in running if min(found[name]) <= BEHIND * best]
    return {name: statistics.median(times) for name, times in found.items()}


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was told; a CPU already has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
