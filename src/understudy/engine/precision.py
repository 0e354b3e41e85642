"""In which numbers a student learns: float32, or with its layers in bfloat16 where that is faster.

In mixed precision layers compute in bfloat16; weights, their updates, batch statistics and all
losses stay in float32 (Micikevicius et al. 2018, section 3; bfloat16 needs no loss scaling). What
is faster depends on processor and network, so it is timed.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from understudy.objective import AnyObjective, answer
from understudy.recipe import Training
from understudy.teachers.backends.arithmetic import without_bfloat16
from understudy.teachers.backends.pace import interleaved

AUTO: Final = "auto"
# As Lightning's Trainer calls them.
LIGHTNING: Final[Mapping[str, str]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
# What is not faster by this much is not worth fewer digits.
_GAIN = 1.1
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Picked:
    """A precision, and how it was come by.

    Attributes:
        precision: `float32` or `bfloat16`.
        rows_per_second: of forward and backward pass in each that was timed; empty where nothing
            was.
        why: what was in the way of timing; empty where it was timed.
    """

    precision: str
    rows_per_second: Mapping[str, float]
    why: str = ""

    def line(self) -> str:
        """One line for the log."""
        if not self.rows_per_second:
            return f"precision: {self.precision} ({self.why})"
        pace = ", ".join(f"{name} {pace:,.0f}" for name, pace in self.rows_per_second.items())
        return f"precision: {self.precision} (rows/s forward and back: {pace})"


def pick(student: nn.Module, objective: AnyObjective, rows: Tensor, training: Training) -> Picked:
    """The precision that `training.precision: auto` comes to for this student on this machine.

    A copy is timed: the student, its statistics and the global random state are left as they are.

    Args:
        student: raw rows to answers.
        objective: says what it is asked.
        rows: a batch of the usual size, in main memory.
        training: its `trainer` may name an accelerator.
    """
    device = _device(training)
    if device is None:
        return Picked(precision="float32", rows_per_second={}, why="only CPU and CUDA are timed")
    if (why := without_bfloat16(device)) is not None:
        return Picked(precision="float32", rows_per_second={}, why=why)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            copy: nn.Module = deepcopy(student).to(device).train()
            calls = {name: _pass(copy, objective, rows.to(device), name) for name in LIGHTNING}
            for call in calls.values():
                call()
        except Exception as error:  # whatever copying a student, or bfloat16 in it, meets
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Picked(precision="float32", rows_per_second={}, why=why)
        seconds = interleaved(calls, device=device, rounds=_ROUNDS)
    pace = {name: len(rows) / found for name, found in seconds.items()}
    best = "bfloat16" if pace["bfloat16"] > _GAIN * pace["float32"] else "float32"
    return Picked(precision=best, rows_per_second=pace)


def _device(training: Training) -> torch.device | None:
    """Where Lightning will train."""
    asked = str(training.trainer.get("accelerator", AUTO))
    if asked in (AUTO, "gpu", "cuda") and torch.cuda.is_available():
        which = training.trainer.get("devices")
        first = which[0] if isinstance(which, list) and which else 0
        return torch.device("cuda", int(first))
    if asked == "cpu" or (asked == AUTO and not torch.backends.mps.is_available()):
        return torch.device("cpu")
    return None


def _pass(
    student: nn.Module, objective: AnyObjective, rows: Tensor, precision: str
) -> Callable[[], None]:
    half = precision == "bfloat16"

    def call() -> None:
        student.zero_grad()
        with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=half):
            found = answer(objective, student, rows)
        numbers: Tensor = found if isinstance(found, Tensor) else found.hidden
        # As far as time goes, one mean is as good as any loss.
        numbers.float().square().mean().backward()  # type: ignore[no-untyped-call]

    return call
