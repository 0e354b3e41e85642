"""Many pairs of block and candidate: one after the other, in local processes, or with Ray.

A worker has its own number of threads and takes the next pair that is not done. It is told
nothing but the pair, and says nothing but the summary: weights lie in the pair's folder. A worker
that dies loses the pair that it was at, which is given to another one.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy.blockwise.form import Piece
from understudy.blockwise.learning import Learning
from understudy.blockwise.local import distil_block, stage_of
from understudy.blockwise.making import make
from understudy.blockwise.sources import Source
from understudy.blockwise.words import Call, Candidate
from understudy.contracts import Progress, Silent
from understudy.errors import ModelError
from understudy.models.weights import weights_fingerprint

Engine = Literal["serial", "process", "ray"]
Summary = dict[str, Any]
# How often a pair is begun before it is held to be what kills its workers.
TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """What the candidates of one block are made of and learn from.

    Attributes:
        piece: the block.
        call: how it was called, the same that its candidates were planned with.
        source: its calls, by row.
        rows: positions in the source to learn from.
        validation: others, held out.
        neighbour: the block that a `shared` candidate takes its weights from.
        student: the calls of the same rows in a student, for noise.
    """

    piece: Piece
    call: Call
    source: Source
    rows: NDArray[np.int64]
    validation: NDArray[np.int64]
    neighbour: nn.Module | None = None
    student: Source | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Material that is in memory already, and travels with every pair: for small networks."""

    material: Material

    def __call__(self) -> Material:
        """The material."""
        return self.material


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One candidate of one block.

    Attributes:
        block: its name.
        candidate: what learns.
        open: loads the material; called where the pair is worked at, so that blocks are loaded one
            at a time. It must be something that can be pickled.
        folder: in which the pair has its own, `name`.
        learning: how it learns.
    """

    block: str
    candidate: Candidate
    open: Callable[[], Material]
    folder: Path
    learning: Learning

    @property
    def name(self) -> str:
        """Of the pair and its folder."""
        return pair_name(self.block, self.candidate.label)


def pair_name(block: str, label: str) -> str:
    """Of a pair and its folder."""
    return re.sub(r"[^\w.-]+", "_", f"{block}--{label}")


def distil_pair(pair: Pair) -> Summary:
    """Make a pair's candidate and teach it, unless its folder holds the result.

    Returns:
        As `distil_block`; `failed` also where the candidate cannot be made.

    Raises:
        UnderstudyError: what would fail all other pairs too.
    """
    material = pair.open()
    data = pair.candidate.to_data()
    neighbour = material.neighbour if pair.candidate.kind == "shared" else None
    depends = {
        # What was measured of it changes from time to time, and nothing of what it learns.
        "candidate": {name: data[name] for name in ("kind", "label", "settings")},
        "piece": weights_fingerprint(material.piece),
        "neighbour": None if neighbour is None else weights_fingerprint(neighbour),
        "block": pair.block,
    }
    task: dict[str, Any] = {
        "rows": material.rows,
        "validation": material.validation,
        "folder": pair.folder / pair.name,
        "learning": pair.learning,
        "student": material.student,
        "depends": depends,
    }
    stage = stage_of(material.source, **task)
    if stage.done():
        summary: Summary = stage.summary()
        return summary
    try:
        module = make(
            pair.candidate, material.piece, material.call, pair.learning.seed, neighbour=neighbour
        )
    except ModelError as error:
        return {"failed": str(error), "steps": 0, "seconds": 0.0, "rows": len(material.rows)}
    return distil_block(material.piece, module, material.source, **task)


def distil_all(
    pairs: Sequence[Pair],
    *,
    workers: int = 1,
    threads: int = 1,
    engine: Engine = "serial",
    progress: Progress | None = None,
) -> dict[str, Summary]:
    """Teach all candidates; what is done already is not done again.

    The result is the same with every engine and number of workers, but for the seconds.

    Args:
        pairs: with different names.
        workers: processes; `serial` has one, this.
        threads: of PyTorch, in each.
        engine: `serial`, `process` on this machine, or `ray`: on the machines of a Ray that runs
            or that RAY_ADDRESS names, else one that is started here. Every machine must see the
            folders.
        progress: where it shows itself.

    Returns:
        By the pairs' names what `distil_pair` says. A pair whose worker died three times has
        `failed`.

    Raises:
        UnderstudyError: what a worker raised, as it raised it.
        RuntimeError: a defect, with the worker's own traceback.
        ValueError: a number that makes no sense, or two pairs of one name.
    """
    _check(pairs, workers, threads, engine)
    shown = progress or Silent()
    found: dict[str, Summary] = {}
    with shown.track("local distillation", len(pairs), "pairs") as tracker:

        def done(pair: Pair, summary: Summary) -> None:
            found[pair.name] = summary
            if "failed" in summary:
                shown.say(f"{pair.name} is left out: {summary['failed']}")
            tracker(len(found), pair.name)

        if engine == "serial":
            _alone(pairs, threads, done)
        elif pairs:
            from understudy.blockwise.crews import Processes, ray_crew

            count = min(workers, len(pairs))
            crews: dict[str, Callable[[int, int], AbstractContextManager[Crew]]]
            crews = {"process": Processes, "ray": ray_crew}
            with crews[engine](count, threads) as crew:
                _shared_out(pairs, crew, count, done)
    return {pair.name: found[pair.name] for pair in pairs}


@runtime_checkable
class Crew(Protocol):
    """Workers by number."""

    def give(self, worker: int, pair: Pair) -> None:
        """A pair for an idle worker."""

    def hear(self) -> tuple[int, str | None]:
        """Which worker has ended its pair, and what it says; None: it died, and is there anew."""


def _shared_out(
    pairs: Sequence[Pair], crew: Crew, workers: int, done: Callable[[Pair, Summary], None]
) -> None:
    waiting = deque(range(len(pairs)))
    idle = deque(range(workers))
    busy: dict[int, int] = {}
    begun: Counter[int] = Counter()
    while waiting or busy:
        while waiting and idle:
            worker, number = idle.popleft(), waiting.popleft()
            busy[worker] = number
            begun[number] += 1
            crew.give(worker, pairs[number])
        worker, said = crew.hear()
        if worker not in busy:
            # It died before it was given anything.
            continue
        number = busy.pop(worker)
        idle.append(worker)
        if said is not None:
            done(pairs[number], json.loads(said))
        elif begun[number] < TRIES:
            waiting.appendleft(number)
        else:
            done(pairs[number], {
                "failed": f"its worker died {TRIES} times: most often memory is full, so use a "
                "smaller `batch_size` or fewer `workers`",
                "steps": 0,
            })  # fmt: skip


def _alone(pairs: Sequence[Pair], threads: int, done: Callable[[Pair, Summary], None]) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for pair in pairs:
            done(pair, distil_pair(pair))
    finally:
        torch.set_num_threads(usual)


def _check(pairs: Sequence[Pair], workers: int, threads: int, engine: str) -> None:
    for name, value in {"workers": workers, "threads": threads}.items():
        if value < 1:
            raise ValueError(f"`{name} >= 1` must hold, but got {value}: use {name}: 1")
    if engine == "serial" and workers > 1:
        raise ValueError(f"`serial` has one worker, but got workers={workers}: use `process`")
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"pairs must have different names, but {twice[0]} is there twice")
