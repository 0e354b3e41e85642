"""How the teacher pass is made: the backend of every member, and the rows per batch.

Both can move an answer's last digits, so both are written into the store, and whoever goes on with
it, another process or another machine, does as it was begun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy.contracts import Batch, Teacher
from understudy.data.loaders import MemoryLoader
from understudy.errors import ModelError
from understudy.pipeline.language import is_language, rows_at_once, speaker, told_by
from understudy.pipeline.members import load_teacher
from understudy.pipeline.work import Work
from understudy.teachers.backends import Chosen, alike, choose, prepare
from understudy.teachers.backends.forms import Forms
from understudy.teachers.batch_size import find_batch_size
from understudy.teachers.ensemble import EnsembleTeacher
from understudy.teachers.torch_module import TorchTeacher

USUAL, SAMPLE = 256, 128
# A search for the best batch takes seconds: a pass must take longer to earn them back.
WORTH_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A teacher that is ready for its pass.

    Attributes:
        teacher: in the chosen backends.
        batch_size: rows per question.
        backends: per member the backend and its rows per call (None: whole batches).
        device: where it answers.
    """

    teacher: Teacher
    batch_size: int
    backends: tuple[tuple[str, int | None], ...]
    device: str

    @property
    def made(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "backends": [list(backend) for backend in self.backends],
            "batch_size": self.batch_size,
            "device": self.device,
        }


def device() -> str:
    """Where a teacher answers fastest."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_way(work: Work, rows: int, begun: Mapping[str, Any], layers: Sequence[str] = ()) -> Way:
    """The fastest way to ask for `rows` rows that answers as the model itself does.

    Args:
        work: the run.
        rows: how many will be asked for, all views counted.
        begun: how an unfinished pass was begun, which is kept to; empty for a new one.
        layers: that are read inside the teacher. Only the module itself has them: no other backend
            keeps its layers apart.

    Raises:
        ModelError: the backend that the recipe names cannot be had.
    """
    if begun:
        return as_begun(work, begun, layers)
    options = work.recipe.labels
    size = USUAL if options.batch_size == "auto" else options.batch_size
    if is_language(work.recipe):
        return _speaking(work, rows_at_once(work, size), device())
    if layers:
        return Way(
            teacher=_with_layers(work, layers, device()),
            batch_size=min(size, SAMPLE),
            backends=(("eager", None),),
            device=device(),
        )
    batch = sample(work, min(size, SAMPLE))
    teacher, modules = load_teacher(work)
    members = list(teacher.members) if isinstance(teacher, EnsembleTeacher) else [teacher]
    backends: list[tuple[str, int | None]] = [("predictor", None)] * len(modules)
    pace = []
    seen: list[tuple[nn.Module, Chosen]] = []
    asked = [(number, module) for number, module in enumerate(modules) if module is not None]
    # The largest first: what pays for itself in its pass may not seem to in a smaller one's.
    for number, module in sorted(asked, key=lambda entry: -_size(entry[1])):
        chosen = choose(
            module,
            output=work.task.output,
            batch=batch,
            wanted=options.backend,
            tolerance=options.tolerance,
            rows=rows,
            like=next((found for other, found in seen if alike(other, module)), None),
        )
        seen.append((module, chosen))
        members[number] = chosen.teacher
        backends[number] = (chosen.name, chosen.piece)
        pace.append(chosen.rows_per_second)
        work.progress.say(chosen.line())
    whole = members[0] if len(members) == 1 else EnsembleTeacher(members)
    seconds = rows * sum(1 / found for found in pace)
    if options.batch_size == "auto" and seconds > WORTH_SECONDS:
        ceiling = int(options.memory_gb * 1e9)
        size = find_batch_size(whole, lambda count: sample(work, count), ceiling_bytes=ceiling)
        work.progress.say(f"teacher: {size} rows per batch")
    return Way(teacher=whole, batch_size=size, backends=tuple(backends), device=device())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def as_begun(work: Work, made: Mapping[str, Any], layers: Sequence[str] = ()) -> Way:
    """The way that a manifest tells of, made again."""
    teacher, modules = load_teacher(work)
    members = list(teacher.members) if isinstance(teacher, EnsembleTeacher) else [teacher]
    backends = tuple((str(name), piece) for name, piece in made["backends"])
    where = str(made["device"])
    if where == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "these labels were begun on a GPU, and another device would change their last digits: "
            "go on where there is one, or delete the store to label again"
        )
    if is_language(work.recipe):
        return _speaking(work, int(made["batch_size"]), where)
    if layers:
        return Way(
            teacher=_with_layers(work, layers, where),
            batch_size=int(made["batch_size"]),
            backends=backends,
            device=where,
        )
    rows = sample(work, SAMPLE, where).inputs
    for number, (module, (name, piece)) in enumerate(zip(modules, backends, strict=True)):
        if module is not None:
            members[number] = prepare(
                name, Forms(module, rows), output=work.task.output, piece=piece
            )
    return Way(
        teacher=members[0] if len(members) == 1 else EnsembleTeacher(members),
        batch_size=int(made["batch_size"]),
        backends=backends,
        device=where,
    )


def _speaking(work: Work, batch_size: int, where: str) -> Way:
    """A language model tells positions, of as many rows as there is room for their logits."""
    _, modules = load_teacher(work)
    module = modules[0] if len(modules) == 1 else None
    teacher = speaker(
        work, None if module is None else module.to(where), told_by(work.recipe, live=False)
    )
    return Way(teacher=teacher, batch_size=batch_size, backends=(("eager", None),), device=where)


def _with_layers(work: Work, layers: Sequence[str], where: str) -> Teacher:
    """The module itself, read inside.

    Raises:
        ModelError: there is no module, or several.
    """
    _, modules = load_teacher(work)
    if len(modules) != 1 or modules[0] is None:
        raise ModelError(
            f"the layers {', '.join(layers)} can be read in one PyTorch teacher only: give it as "
            "`model`"
        )
    return TorchTeacher(modules[0].to(where), output=work.task.output, spots=layers)


def sample(work: Work, count: int, where: str | None = None) -> Batch:
    """So many training rows, on the device of the pass; some come twice where there are fewer."""
    material = work.teaching
    positions = np.resize(np.sort(material.splits.train), count)
    loader = MemoryLoader(
        inputs=material.inputs,
        labels=None,
        ids=material.ids,
        positions=positions,
        batch_size=count,
        pad=material.pad,
        counted=material.counted,
    )
    return on(loader.batch(positions), where or device())


def on(batch: Batch, where: str) -> Batch:
    """The batch with its rows on a device."""
    return batch if where == "cpu" else replace(batch, inputs=batch.inputs.to(where))
