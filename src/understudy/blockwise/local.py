"""Local distillation: one candidate learns what its block makes of what the block is given.

The loop is a plain one and not the engine's. The engine's student is called with inputs alone and
answers a row of numbers that its task can score; a block is called with masks and other streams,
answers maps or tokens, and has no labels. Its checkpoints would be in the way where an interrupted
pair is redone, and loading it takes longer than a small block learns.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.allocator import keep_freed_memory
from understudy.blockwise.calls import features_axis, visible
from understudy.blockwise.learning import Learning, practising, rate_factor
from understudy.blockwise.moments import Moments
from understudy.blockwise.sources import Source
from understudy.blockwise.words import Call
from understudy.data.loaders import epoch_order
from understudy.errors import DataError, ModelError, TrainingError, UnderstudyError
from understudy.folders import Stage, fingerprint
from understudy.models.weights import (
    load_into,
    read_weights,
    save_weights,
    weights_fingerprint,
)

WEIGHTS = "weights.safetensors"
# Moments need no more rows than these.
_MOST = 4096
# Of the mean variance: a feature that hardly moves is not worth more than a hundred others.
_LEAST = 0.01
# What float16 inputs leave of a perfect copy's loss.
_PERFECT = 1e-6


def distil_block(
    piece: nn.Module,
    module: nn.Module,
    source: Source,
    *,
    rows: NDArray[np.int64],
    validation: NDArray[np.int64],
    folder: Path,
    learning: Learning | None = None,
    student: Source | None = None,
    depends: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Teach a candidate in place, and leave its weights and a summary in a folder.

    The loss is the squared error in units of the variance of the block's answers, feature by
    feature, over the tokens that masks show: 1 is what the mean of the answers would have. With
    noise the goal stays what the block makes of the clean inputs, so that a candidate learns to
    put right what comes before it. The weights kept are those of the start or of the end,
    whichever is better on the held-out rows. Nothing is dropped out: the goal has no noise.

    A folder that holds the result already is not touched, and its weights are loaded; a pair that
    was interrupted is done again from the start.

    Args:
        piece: the block, of whose answers the axis of features is found.
        module: the candidate, called as the block; it is trained in place.
        source: the block's calls, by row.
        rows: positions in the source to learn from.
        validation: others, held out.
        folder: for this pair alone.
        learning: everything about optimization.
        student: the calls of the same rows in a student, of which `noise` takes the inputs.
        depends: what tells this pair from others, instead of the candidate's start weights.

    Returns:
        `loss` on the held-out rows, that of the `start`, which was `kept`, `steps`, `rows` and
        `seconds`; or `failed` with the reason, where the candidate broke or its loss was not
        finite. A failure is a result too, and is not tried again.

    Raises:
        DataError: no rows, rows that are held out as well, or beyond the source.
        RunError: the folder cannot be written.

    Paper:
        Bercovich et al. 2025, "Puzzle: Distillation-Based NAS for Inference-Optimized LLMs", on
        blockwise local distillation.
    """
    how = learning or Learning()
    told = {"start": weights_fingerprint(module)} if depends is None else depends
    stage = stage_of(source, rows=rows, validation=validation, folder=folder, learning=how,
                     student=student, depends=told)  # fmt: skip
    if stage.done():
        summary: dict[str, Any] = stage.summary()
        path = stage.path / WEIGHTS
        if path.is_file():
            load_into(module, read_weights(path), source=str(path))
        return summary
    _check(rows, validation, len(source))
    keep_freed_memory()
    work, began = stage.begin(), time.monotonic()
    pupil = _Pupil(piece, module, source, student, how)
    try:
        summary = pupil.learn(rows, validation)
        save_weights(module, work / WEIGHTS)
    except (TrainingError, ModelError, ArithmeticError) as error:
        summary = {"failed": str(error), "steps": pupil.steps}
    except UnderstudyError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        # A candidate of the user's own may break; the others go on.
        summary = {"failed": f"{type(error).__name__}: {error}", "steps": pupil.steps}
    seconds = time.monotonic() - began
    summary |= {"seconds": round(seconds, 3), "rows": len(rows)}
    stage.finish(summary, seconds=seconds)
    return summary


def stage_of(
    source: Source,
    *,
    rows: NDArray[np.int64],
    validation: NDArray[np.int64],
    folder: Path,
    learning: Learning,
    student: Source | None,
    depends: Mapping[str, Any],
) -> Stage:
    """The folder of one pair, and whether it is done."""
    return Stage(
        run=folder.parent,
        name=folder.name,
        depends={
            "candidate": dict(depends),
            "learning": asdict(learning),
            "source": source.fingerprint,
            "student": None if student is None else student.fingerprint,
            "rows": fingerprint(rows.tolist()),
            "validation": fingerprint(validation.tolist()),
        },
    )


class _Pupil:
    """A candidate, and what it learns from."""

    def __init__(
        self,
        piece: nn.Module,
        module: nn.Module,
        source: Source,
        student: Source | None,
        how: Learning,
    ) -> None:
        self._piece, self._module = piece, module
        self._source, self._student, self._how = source, student, how
        self._variance = self._spread = torch.ones(())
        self.steps = 0

    def learn(self, rows: NDArray[np.int64], validation: NDArray[np.int64]) -> dict[str, Any]:
        """Train, and say how good it is."""
        self._look(rows[:_MOST])
        start = best = self._held_out(validation)
        kept = "start"
        learned = [p for p in self._module.parameters() if p.requires_grad]
        if learned and self._how.epochs and start > _PERFECT:
            before = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
            self._train(learned, rows)
            end = self._held_out(validation)
            if end < start:
                best, kept = end, "end"
            else:
                self._module.load_state_dict(before)
        return {"loss": best, "start": start, "kept": kept, "steps": self.steps}

    def _train(self, learned: list[nn.Parameter], rows: NDArray[np.int64]) -> None:
        how = self._how
        optimizer = torch.optim.AdamW(
            learned, lr=float(how.learning_rate), weight_decay=float(how.weight_decay)
        )
        # A last batch of one row has no batch statistics.
        per_epoch = max(1, len(rows) // how.batch_size + (len(rows) % how.batch_size > 1))
        total = per_epoch * how.epochs
        with practising(self._module), torch.random.fork_rng(devices=[]):
            for epoch in range(how.epochs):
                torch.manual_seed((how.seed << 24) + epoch)
                order = epoch_order(rows, seed=how.seed, epoch=epoch)
                for number in range(per_epoch):
                    for group in optimizer.param_groups:
                        group["lr"] = float(how.learning_rate) * rate_factor(self.steps, total)
                    index = order[number * how.batch_size : (number + 1) * how.batch_size]
                    loss = self._loss(self._noisy(self._source(index), index))
                    if not bool(torch.isfinite(loss)):
                        raise TrainingError(
                            f"the loss must be finite, but in step {self.steps + 1} of {total} it "
                            f"is {loss.item()}: lower the learning rate, or leave this one out"
                        )
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    if how.clip:
                        nn.utils.clip_grad_norm_(learned, float(how.clip))
                    optimizer.step()
                    self.steps += 1

    def _noisy(self, call: Call, index: NDArray[np.int64]) -> Call:
        size = float(self._how.noise)
        stream = call.stream
        if not size or not stream.is_floating_point():
            return call
        if self._student is None:
            stream = stream + size * self._spread * torch.randn(stream.shape, dtype=stream.dtype)
        else:
            other = self._student(index).stream
            chosen = torch.rand(len(stream)) < size
            stream = torch.where(chosen.reshape(-1, *[1] * (stream.ndim - 1)), other, stream)
        return Call(stream=stream, args=call.args, kwargs=call.kwargs, gives=call.gives)

    def _loss(self, call: Call) -> Tensor:
        wrong, count = self._wrong(call)
        return wrong / count

    def _wrong(self, call: Call) -> tuple[Tensor, int]:
        """The sum of the squared errors in units of the variance, and of how many numbers."""
        made = self._module(call.stream, *call.args, **call.kwargs)
        if made.shape != call.gives.shape:
            raise ValueError(f"it gives {list(made.shape)} instead of {list(call.gives.shape)}")
        wrong = (made.float() - call.gives).square() / self._variance
        seen = visible(call)
        wrong = wrong if seen is None else wrong[seen]
        return wrong.sum(), max(1, wrong.numel())

    def _held_out(self, rows: NDArray[np.int64]) -> float:
        self._module.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for index in _portions(rows, self._how.batch_size):
                wrong, numbers = self._wrong(self._source(index))
                total, count = total + float(wrong), count + numbers
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss on held-out rows must be finite, but after {self.steps} steps it is "
                f"{total}"
            )
        return total / count

    def _look(self, rows: NDArray[np.int64]) -> None:
        """Variances of what the block gives and is given, feature by feature."""
        gives, takes = Moments(), Moments()
        for index in _portions(rows, self._how.batch_size):
            call = self._source(index)
            seen = visible(call)
            axis = features_axis(self._piece, call.gives.ndim)
            gives.add(call.gives, axis, seen)
            if call.stream.is_floating_point():
                takes.add(call.stream, features_axis(self._piece, call.stream.ndim), None)
        variance = gives.variance()
        floor = _LEAST * variance.mean()
        if not float(floor) > 0:
            raise TrainingError("the block gives the same numbers for all rows, or none at all")
        self._variance = gives.shaped(variance.clamp(min=floor)).float()
        if takes.count:
            self._spread = takes.shaped(takes.variance().sqrt()).float()


def _portions(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _check(rows: NDArray[np.int64], validation: NDArray[np.int64], count: int) -> None:
    if len(rows) < 2 or not len(validation):
        raise DataError(
            "two rows to learn from and a held-out one must be there at the least, but got "
            f"{len(rows)} and {len(validation)}: give more rows"
        )
    both = np.intersect1d(rows, validation)
    if len(both):
        raise DataError(
            f"held-out rows may not be learned from, but {len(both)} are in both (first: "
            f"{both[0]}): take them out of one"
        )
    most = int(max(rows.max(), validation.max()))
    if most >= count or min(rows.min(), validation.min()) < 0:
        raise DataError(f"rows must be from 0 to {count - 1}, but got {most}: record more of them")
