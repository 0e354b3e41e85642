"""Stage `layers`: which layers the terms compare, found by a dry run of student and teacher."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy import build
from understudy.build import Matched
from understudy.contracts import Batch, Student
from understudy.errors import ModelError
from understudy.features.hooks import capture
from understudy.models.deployable import Deployable, inner
from understudy.objective import Objective
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.members import member_module
from understudy.pipeline.shared_words import by_words, words_known, words_line
from understudy.pipeline.work import Work
from understudy.recipe import Phase
from understudy.teachers.torch_module import TorchTeacher

ROWS = 2
Found = tuple[tuple[Matched | None, ...], ...]


def match_layers(
    work: Work, loaded: Loaded, student: Callable[[], Student], depends: Mapping[str, Any]
) -> Found:
    """Do the stage where a term compares layers; per phase and term what was found.

    Args:
        work: the run.
        loaded: the teacher.
        student: gives any seed's, with its provenance; called where the stage is not done yet.
        depends: everything that the student is a function of.
    """
    phases = work.recipe.phases
    if not any(build.reads_layers(entry) for phase in phases for entry in phase.objective):
        return tuple((None,) * len(phase.objective) for phase in phases)
    summary = work.stage(
        "layers",
        {
            **depends,
            "teacher": loaded.summary["fingerprint"],
            "terms": [
                [entry.model_dump(mode="json") for entry in phase.objective] for phase in phases
            ],
        },
        lambda folder: _match(work, loaded, student(), folder),
    )
    work.notes.extend(summary["notes"])
    return tuple(
        tuple(None if found is None else Matched.from_data(found) for found in phase)
        for phase in summary["phases"]
    )


def rehearse(work: Work, student: Callable[[], Student]) -> None:
    """Match once with a teacher that is still to be trained, so that no hours go into it in vain.

    Raises:
        ModelError: layers that are not there, or that cannot be compared.
    """
    section = work.recipe.teacher
    begun = (work.folder / "teacher" / "stage.json").is_file()
    reads = any(build.reads_layers(e) for phase in work.recipe.phases for e in phase.objective)
    if section.training is None or begun or not reads:
        return
    module, learner = member_module(work, section), student()
    for phase in work.recipe.phases:
        _phase(work, module, learner, phase, say=False)


def _match(work: Work, loaded: Loaded, student: Student, folder: Path) -> dict[str, Any]:
    del folder
    phases = work.recipe.phases
    found = [_phase(work, loaded.module, student, phase) for phase in phases]
    notes = []
    if any(by_words(entry) for phase in phases for entry in phase.objective):
        notes.append(words_line(work, work.material.splits.train))
    return {"phases": found, "notes": notes}


def _phase(
    work: Work, module: Deployable | None, student: Student, phase: Phase, *, say: bool = True
) -> list[Any]:
    found: list[Matched | None] = []
    for entry in phase.objective:
        if not build.reads_layers(entry):
            found.append(None)
            continue
        if module is None:
            raise ModelError(
                f"`{entry.kind}` compares layers inside the teacher, but this one offers its "
                "answer only: give it as a PyTorch `model`"
            )
        few = torch.from_numpy(work.material.splits.train[:ROWS])
        rows, theirs = work.material.inputs[few], work.teaching.inputs[few]
        matched = build.match(
            entry,
            student=student.module,
            teacher=module,
            rows=rows,
            told=partial(_told, module, theirs),
            provenance=student.provenance,
        )
        if say:
            work.progress.say(f"{entry.kind}: {matched.line()}")
        found.append(matched)
    if module is not None and any(matched is not None for matched in found):
        _try(work, module, student, phase, found)
    return [None if matched is None else matched.to_data() for matched in found]


def _try(
    work: Work, module: Deployable, student: Student, phase: Phase, found: Sequence[Matched | None]
) -> None:
    """Compare a few rows: what does not fit is found before the teacher is asked for all of them.

    Raises:
        ModelError: an adapter that cannot bridge two layers, or a loss that refuses them.
    """
    material = work.material
    positions = torch.from_numpy(material.splits.train)
    known: dict[str, Any] = {"ids": material.ids[positions], "answers": material.task.width}
    known |= words_known(work, [phase], material.splits.train)
    plain = build.terms(phase.objective, work.place, matched=found)
    terms = build.with_adapters(phase.objective, plain, matched=found, known=known, seed=0)
    inside = sorted({pair.teacher for term in terms for pair in term.pairs})
    teacher = TorchTeacher(module, output=material.task.output, spots=inside)
    pad = None if material.tokens is None else material.tokens.pad
    objective = Objective(terms, task=material.task, offers=teacher.offers).eval()
    few = positions[:ROWS]
    batch = Batch(
        inputs=material.inputs[few],
        labels=material.labels[few],
        ids=material.ids[few],
        teacher_inputs=None if material.teaching is None else work.teaching.inputs[few],
    )
    told = teacher(batch)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for term in objective.terms:
            spots = [pair.student for pair in term.pairs]
            try:
                with capture(inner(student.module), spots) as captured:
                    answers = student.module.eval()(batch.inputs)
                alone = Objective([term], task=material.task, offers=teacher.offers, pad=pad)
                alone.means(answers, told, batch, epoch=0.0, epochs=1, features=captured.found())
            except (ValueError, RuntimeError) as error:
                raise ModelError(f"`{term.name}` cannot compare these layers: {error}") from error


def _told(module: Deployable, rows: Tensor, spots: Sequence[str]) -> Mapping[str, Tensor]:
    """What the teacher computes inside for a few rows."""
    return build.captured(module, spots, rows)
