"""What a recipe's student will be, before anything is trained: `understudy plan`."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy import build
from understudy.contracts import Progress, Silent
from understudy.errors import ModelError
from understudy.evaluate.cost import flops, parameters
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights
from understudy.pipeline.crew import Crew
from understudy.pipeline.cutting import choose, latency_ms
from understudy.pipeline.fresh import begin_plain
from understudy.pipeline.members import member_module
from understudy.pipeline.prepare import load, prepare
from understudy.pipeline.student import try_export
from understudy.pipeline.work import Work
from understudy.recipe import Cut, Recipe, Source
from understudy.students.planning import plan_table

# Operations that a plan may spend on comparing parts of a network, and the fewest rows of that.
_WORK, _FEWEST = 3e11, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What was found out.

    Attributes:
        lines: for people: what goes, what stays, and the table.
        data: the same as plain data.
        notes: what the plan does not know yet.
    """

    lines: list[str]
    data: dict[str, Any]
    notes: list[str]


def plan(recipe: Recipe, place: Source, *, progress: Progress | None = None) -> Planned:
    """Cut the teacher as the recipe says, try to export what is left, and tell what it costs.

    Nothing is trained and nothing is kept. A teacher that the recipe trains is cut with the weights
    it starts from: the shapes are those of the run, but which blocks are important is not known.

    Raises:
        ModelError: a cut that cannot be made, with what can.
        ExportError: a student that cannot be deployed.
        DataError: rows that cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="understudy-plan-") as folder:
        work = Work(
            recipe=recipe,
            place=place,
            folder=Path(folder),
            progress=progress or Silent(),
            crew=Crew(),
            load=load,
        )
        if recipe.student.blockwise is not None:
            raise ModelError(
                "a student that is put together from blocks is planned by measuring them: run "
                "`understudy blockwise RECIPE --until candidates`"
            )
        prepare(work)
        if not recipe.student.from_teacher:
            return _fresh(work)
        whole, notes = _teacher(work)
        cuts, told = _quick(recipe.student.from_teacher, whole, work.material.inputs[:1])
        notes += told
        chosen = choose(
            work,
            cuts,
            whole,
            seed=recipe.seed_list[0],
            rehearsal=recipe.teacher.training is not None,
        )
        path = Path(folder) / "plan.onnx"
        try_export(work, chosen.module, path)
        rows = work.material.inputs[torch.from_numpy(work.material.splits.train[:1])]
        table = plan_table(
            whole.network,
            chosen.module.network,
            whole.preprocess(rows),
            before_ms=latency_ms(work, whole),
            provenance=chosen.provenance,
        )
        data = {"plans": chosen.plans, "importance": chosen.importance, "table": table.to_data()}
        notes += _later(recipe)
        return Planned(lines=[*chosen.lines, *table.lines()], data=data, notes=notes)


def _quick(cuts: Sequence[Cut], whole: Deployable, row: Tensor) -> tuple[Sequence[Cut], list[str]]:
    """Cuts of a large network, planned on fewer rows than in the run, and without factors."""
    operations = flops(whole, row)
    most = max(_FEWEST, int(_WORK / operations)) if operations else None
    found: list[Cut] = []
    notes: list[str] = []
    for cut in cuts:
        rows = build.calibration_rows(cut)
        if most is None or rows <= most:
            found.append(cut)
            continue
        update: dict[str, Any] = {"rows": most}
        if cut.kind == "depth":
            importance = cut.importance.model_copy(update={"rows": most})
            update = {"importance": importance, "scale": False}
        found.append(cut.model_copy(update=update))
        notes.append(
            f"{cut.kind} is planned on {most} rows here and on {rows} in the run, which may choose "
            "otherwise among parts that matter alike"
        )
    return found, notes


def _teacher(work: Work) -> tuple[Deployable, list[str]]:
    section = work.recipe.teacher
    whole, notes = member_module(work, section), []
    if section.weights is not None:
        path = work.place.resolve(section.weights)
        load_into(whole.network, read_weights(path), source=str(path))
    elif section.training is not None:
        notes.append(
            "the teacher is trained in the run: shapes and costs are as they will be, but which "
            "parts matter most is not known before"
        )
    return whole, notes


def _fresh(work: Work) -> Planned:
    """A student that is not cut: its size, work and time."""
    module = begin_plain(work)
    try_export(work, module, work.folder / "plan.onnx")
    count, milliseconds = parameters(module), latency_ms(work, module)
    operations = flops(module, torch.from_numpy(work.material.timed(1)))
    shown = "-" if operations is None else f"{operations / 1e6:,.2f}"
    line = (
        f"the student is a fresh network of {count:,} parameters, {shown} MFLOPs and "
        f"{milliseconds:.3f} ms for one row on one thread (measured, untrained)"
    )
    data = {"parameters": count, "flops": operations, "ms": milliseconds}
    notes = _later(work.recipe)
    if work.recipe.student.reused_head is not None:
        notes.append("`reused_head` adds a projector and the teacher's last layer to it in the run")
    return Planned(lines=[line], data=data, notes=notes)


def _later(recipe: Recipe) -> list[str]:
    """What the steps of the run change, of which the plan shows nothing."""
    smaller = [
        step.kind
        for step in recipe.steps
        if step.kind in ("cut", "quantize") or getattr(step, "structure", "") == "channels"
    ]
    if not smaller:
        return []
    return [f"this is the student at its start; {', '.join(smaller)} in `steps` make it smaller"]
