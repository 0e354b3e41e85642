"""Which backend a teacher runs in: timed on the user's rows, and held to its own answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import torch
from torch import nn

from understudy.allocator import keep_freed_memory
from understudy.contracts import Batch
from understudy.errors import ModelError, did_you_mean
from understudy.teachers.backends.chosen import Chosen, Tried
from understudy.teachers.backends.forms import BACKENDS, Forms, prepare
from understudy.teachers.backends.pace import LEAST_SECONDS, interleaved, seconds_of
from understudy.teachers.backends.parity import difference
from understudy.teachers.backends.pieces import InPieces

AUTO: Final = "auto"
# In nats of log-probability, or in standard deviations of the answers: see `difference`. The order
# of float32 sums is worth 1e-5 to 1e-4 of them in a deep network, bfloat16 more than 1e-1: between
# the two lies what tells a backend that computes the same from one that does not.
TOLERANCE: Final = 1e-3
PIECES: Final = (16, 32, 64)
ROUNDS: Final = 3
# Of the pass in eager. A round of all pieces and backends takes about two seconds.
SECONDS_A_ROUND: Final = 60.0
# What is not faster by this much is not worth another last digit.
_GAIN = 1.05
# What is slower by more than this for a module is not the fastest for another of its kind.
_CLOSE = 1.1
# Three forms, a session, and the export's copies on the way to it.
_COPIES = 6


def choose(
    module: nn.Module,
    *,
    output: str,
    batch: Batch,
    wanted: str = AUTO,
    tolerance: float | int = TOLERANCE,
    rounds: int | None = None,
    rows: int | None = None,
    like: Chosen | None = None,
) -> Chosen:
    """The fastest backend whose answers are the module's own.

    Every backend is warmed up, held against eager's answers, and timed in turns with the others.
    The module is left as it is: memory format, mode, weights, and the random numbers to come.

    Args:
        module: raw rows to answers `[batch, width]`.
        output: what its answer is called as knowledge, `logits` or `values`.
        batch: rows of the usual number, on the device to be used.
        wanted: `auto`, or the one to use.
        tolerance: how far an answer may be from eager's: in nats of log-probability for logits,
            else in standard deviations of the answers.
        rounds: how often every backend is timed; medians count. None: 3 times, or as often as a
            short pass is worth.
        rows: how many rows will be asked for in all, where that is known: a backend whose making
            would take longer than it can save is not tried.
        like: what was chosen for a module that is `alike`. Then only the backends that came close
            to the fastest there are tried, in pieces of the same size.

    Raises:
        ModelError: there is no such backend, or the wanted one cannot be had or answers otherwise.
    """
    if wanted != AUTO and wanted not in BACKENDS:
        raise ModelError(
            f"a teacher's backend must be one that there is, but got `{wanted}`: "
            f"{did_you_mean(wanted, [AUTO, *BACKENDS])}"
        )
    keep_freed_memory()  # before anything is timed
    devices = [batch.inputs.device] if batch.inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        trial = _Trial(module, output=output, batch=batch, tolerance=tolerance)
        expected = trial.expect(rows)
        trial.rounds = rounds or trial.rounds
        if wanted != AUTO:
            trial.gather([wanted])
        elif like is not None:
            trial.gather(like.close(_CLOSE), like.size)
        else:
            trial.gather(trial.worth_trying(expected))
        return trial.choice(wanted)


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are made of the same kinds of layers, however many and however wide.

    Then the same backend is the fastest for both, or one that is nearly as fast.
    """
    kinds = [{type(part) for part in module.modules()} for module in (one, other)]
    return kinds[0] == kinds[1]


class _Trial:
    """Backends in comparison: those that are ready, and what is known of all."""

    def __init__(
        self,
        module: nn.Module,
        *,
        output: str,
        batch: Batch,
        tolerance: float | int,
    ) -> None:
        rows = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        self._output, self._batch = output, batch
        self.rounds, self._least = ROUNDS, LEAST_SECONDS
        self._tolerance = tolerance
        self._forms = Forms(module, rows)
        self._room = _room(module)
        self._size: int | None = None
        try:
            eager = prepare("eager", self._forms, output=output)
        except ModelError as error:
            raise ModelError(f"the teacher cannot answer these rows: {error}") from error
        self._expected = eager(batch).tensor(output)
        self._ready = {"eager": eager}
        self._tried = {"eager": Tried(difference=0.0)}

    def expect(self, rows: int | None) -> float:
        """Seconds of the whole pass in eager; infinite where nobody knows its length.

        A short pass is timed less often and for a shorter while, so that choosing takes a small
        part of it.
        """
        if rows is None:
            return inf
        seconds = self._seconds("eager") * rows / len(self._batch)
        rounds = seconds / SECONDS_A_ROUND
        self.rounds = max(1, min(ROUNDS, int(rounds)))
        self._least = LEAST_SECONDS * min(1.0, rounds)
        return seconds

    def worth_trying(self, seconds: float) -> list[str]:
        """What could pay for itself in a pass that takes so long in eager."""
        worth = []
        for name, backend in BACKENDS.items():
            out = backend.hopeless(self._forms.device) if backend.hopeless else None
            if seconds < backend.pays_from:
                out = f"the whole pass takes {seconds:.0f} s in eager"
            if out is None:
                worth.append(name)
            else:
                self._tried[name] = Tried(out=out)
        return worth

    def gather(self, names: Sequence[str], size: int | None = 0) -> None:
        """Make ready what can be had, in pieces of a size (None: whole batches; 0: find out)."""
        copied = [name for name in names if name != "eager"]
        if self._room is not None:
            self._tried |= {name: Tried(out=self._room) for name in copied}
        elif copied:
            self._size = self._piece() if size == 0 else size
            for name in copied:
                self._tried[name] = self._try(name, self._size)

    def choice(self, wanted: str) -> Chosen:
        """Time what is ready and take the fastest, or the wanted one."""
        pace = self._pace(self._ready)
        for name, found in pace.items():
            self._tried[name] = replace(self._tried[name], rows_per_second=found)
        fit = [name for name in self._ready if self._tried[name].out is None]
        if wanted == AUTO:
            best = max(fit, key=lambda name: pace[name] * (_GAIN if name == "eager" else 1.0))
        elif wanted in fit:
            best = wanted
        else:
            tried = self._tried[wanted]
            more = "" if tried.difference is None else ", or allow a larger difference"
            raise ModelError(
                f"the teacher cannot run in the backend `{wanted}`: {tried.out}; use `{AUTO}`{more}"
            )
        return Chosen(
            teacher=self._ready[best],
            name=best,
            piece=self._ready[best].piece,
            rows_per_second=pace[best],
            difference=self._tried[best].difference or 0.0,
            tried=self._tried,
            size=self._size,
        )

    def _try(self, name: str, piece: int | None) -> Tried:
        try:
            teacher = prepare(name, self._forms, output=self._output, piece=piece)
        except ModelError as error:
            return Tried(out=str(error))
        found = teacher(self._batch).tensor(self._output)
        self._ready[name] = teacher
        apart = difference(found, self._expected, output=self._output)
        out = None if apart <= self._tolerance else f"differs by {apart:.2g}"
        return Tried(difference=apart, out=out)

    def _piece(self) -> int | None:
        """Rows whose maps stay in the cache: a matter of module and machine, not of backend."""
        if self._forms.device.type != "cpu" or len(self._batch) <= min(PIECES):
            return None
        try:
            sizes = self._sizes("channels_last")
        except ModelError:  # no convolutions, or no copy
            sizes = self._sizes("eager")
        pace = self._pace(sizes)
        best = max(pace, key=lambda size: pace[size] * (_GAIN if size == "whole" else 1.0))
        return None if best == "whole" else int(best)

    def _sizes(self, name: str) -> dict[str, InPieces]:
        smaller = [piece for piece in PIECES if piece < len(self._batch)]
        return {
            str(piece or "whole"): prepare(name, self._forms, output=self._output, piece=piece)
            for piece in (None, *smaller)
        }

    def _seconds(self, name: str) -> float:
        teacher = self._ready[name]
        return seconds_of(partial(teacher, self._batch), device=self._forms.device)

    def _pace(self, teachers: Mapping[str, InPieces]) -> dict[str, float]:
        calls = {name: partial(teacher, self._batch) for name, teacher in teachers.items()}
        seconds = interleaved(
            calls, device=self._forms.device, rounds=self.rounds, least=self._least
        )
        return {name: len(self._batch) / found for name, found in seconds.items()}


def _room(module: nn.Module) -> str | None:
    """Why the module cannot be copied, where its copies would crowd the memory."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    free = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
    size = _COPIES * sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
    available = 1024 * int(free.split()[1])
    if size <= available / 2:
        return None
    return (
        f"{_COPIES} copies of its weights would take {size / 1e9:.1f} GB, more than half of the "
        f"{available / 1e9:.1f} GB that are free"
    )
