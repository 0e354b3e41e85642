"""Stages `student` and `distil`: fresh students, then every arm of every seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy import build
from understudy.contracts import Student
from understudy.errors import ExportError, ModelError, UnderstudyError
from understudy.evaluate.cost import parameters
from understudy.export.onnx import export_onnx
from understudy.folders import read_json
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights, save_weights, weights_fingerprint
from understudy.objective import Objective
from understudy.pipeline.labelling import Labelled, label, live, stored_views
from understudy.pipeline.matching import Found, match_layers, rehearse
from understudy.pipeline.members import load_teacher
from understudy.pipeline.prepare import signatures, view_marks
from understudy.pipeline.teach import Loaded, joint, teach
from understudy.pipeline.training import Arm, Lesson, train, what_counts
from understudy.pipeline.work import Work
from understudy.students.reused_head import reused_head
from understudy.students.scratch import scratch


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """One finished arm of one seed.

    Attributes:
        arm: `student` or `control`.
        seed: which.
        folder: holds `weights.safetensors`, `history.json` and the phases' logs.
        summary: epochs, seconds, validation score.
    """

    arm: Arm
    seed: int
    folder: Path
    summary: dict[str, Any]


def begin(work: Work) -> Loaded:
    """Do the stages `student` and `teacher`; the teacher."""
    if work.recipe.student.reused_head is None:
        # First, since a student that cannot be deployed is to be found before a teacher is trained.
        build_students(work)
        if work.crew.leads:
            rehearse(work, lambda: fresh_student(work, work.recipe.seed_list[0]))
        return teach(work)
    loaded = teach(work)
    build_students(work)
    return loaded


def build_students(work: Work) -> dict[str, Any]:
    """Do the stage `student`: start weights per seed, and a dry run of the export."""
    depends = student_mark(work) | {"seeds": list(work.recipe.seed_list)}
    summary: dict[str, Any] = work.stage("student", depends, lambda folder: _build(work, folder))
    limit = work.recipe.budget.parameters
    if limit is not None and summary["parameters"] > limit:
        work.notes.append(
            f"the student has {summary['parameters']:,} parameters, the budget allows {limit:,}"
        )
        work.progress.say(f"student: {work.notes[-1]}")
    return summary


def student_mark(work: Work) -> dict[str, Any]:
    """Everything that a fresh student is a function of, beside its seed."""
    entry = work.recipe.student.model
    reused = work.recipe.student.reused_head
    head = None
    if reused is not None:
        # The teacher's last layer is a part of such a student.
        teacher = read_json(work.folder / "teacher" / "stage.json")["summary"]["fingerprint"]
        head = {**reused.model_dump(mode="json"), "teacher": teacher}
    return {
        "student": entry.model_dump(mode="json"),
        "reused_head": head,
        "code": signatures(entry, work.place) if entry.kind == "custom" else {},
        "data": work.data_mark,
    }


def _build(work: Work, folder: Path) -> dict[str, Any]:
    module: Deployable | None = None
    start = {}
    for seed in work.recipe.seed_list:
        module = fresh_student(work, seed).module  # type: ignore[assignment]
        assert module is not None
        save_weights(module, folder / f"seed-{seed}.safetensors")
        start[str(seed)] = weights_fingerprint(module)
    assert module is not None
    # A student that cannot be exported is found now, not after hours of training.
    rows = work.material.inputs[work.material.splits.train[:4]]
    try:
        with torch.no_grad():
            module.eval()(rows)
    except UnderstudyError:
        raise
    except Exception as error:  # whatever a network of the user's raises
        raise ModelError(
            f"the student cannot answer raw rows of shape {list(rows.shape[1:])}: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}: "
            "check its arguments"
        ) from error
    try:
        export_onnx(module, rows, folder / "dry-run.onnx", metadata={})
    except ExportError as error:
        raise ExportError(f"the student cannot be deployed as it is: {error}") from error
    (folder / "dry-run.onnx").unlink()
    return {"parameters": parameters(module), "start": start}


def fresh_student(work: Work, seed: int) -> Student:
    """The student of a seed with its start weights; the control starts from the same."""
    make = build.network(
        work.recipe.student.model, work.material.facts, work.place, where="the student's model"
    )
    student = scratch(lambda: work.material.deployable(make()), seed=seed)
    reused = work.recipe.student.reused_head
    if reused is None:
        return student
    _, modules = load_teacher(work)
    if len(modules) != 1 or modules[0] is None:
        raise ModelError("`reused_head` needs one teacher that is a PyTorch `model`")
    whole = student.module
    assert isinstance(whole, Deployable)
    rows = work.material.inputs[torch.from_numpy(work.material.splits.train[:2])]
    made = reused_head(
        whole.network, modules[0].network, whole.preprocess(rows), seed=seed, **reused.model_dump()
    )
    whole.network = made.module
    return Student(module=whole, provenance=made.provenance)


def distil(work: Work, loaded: Loaded) -> tuple[list[Trained], float]:
    """Do the stage `distil` for every seed and arm; the arms, and the teacher pass's seconds."""
    found = layers(work, loaded)
    labelled = label(work, loaded, needed(work, loaded, found))
    arms: list[Trained] = []
    for seed in work.recipe.seed_list:
        arms.append(_arm(work, "student", seed, labelled, loaded, found))
        if work.recipe.has_control:
            arms.append(_arm(work, "control", seed, labelled, loaded, found))
    return arms, labelled.seconds


def layers(work: Work, loaded: Loaded) -> Found:
    """The layers that the terms of every phase compare."""

    def student() -> Student:
        return fresh_student(work, work.recipe.seed_list[0])

    return match_layers(work, loaded, student, student_mark(work))


def needed(work: Work, loaded: Loaded, found: Found) -> frozenset[str]:
    """The teacher's knowledge that the objectives of all phases need, layers included."""
    needs: frozenset[str] = frozenset()
    codec = build.codec(work.recipe.labels.codec)
    listed = loaded.offers if codec.listed and not live(work) else frozenset[str]()
    for phase, matched in zip(work.recipe.phases, found, strict=True):
        terms = build.terms(phase.objective, work.place, matched=matched)
        inside = {pair.teacher for term in terms for pair in term.pairs}
        offers = loaded.offers | inside
        needs |= Objective(terms, task=work.task, offers=offers, listed=listed).needs
    return needs


def _arm(
    work: Work, arm: Arm, seed: int, labelled: Labelled, loaded: Loaded, found: Found
) -> Trained:
    start = read_json(work.folder / "student" / "stage.json")["summary"]["start"][str(seed)]
    depends: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "start": start,
        "student": student_mark(work),
        "views": view_marks(work),
        "phases": [what_counts(work, phase, arm) for phase in work.recipe.phases],
    }
    teacher = labelled.teacher if arm == "student" else None
    if teacher is not None:
        depends["teacher"] = loaded.summary["fingerprint"]
        depends["layers"] = [[None if m is None else m.to_data() for m in p] for p in found]
        if not live(work):
            depends["labels"] = labelled.plan
    if stored_views(work) is not None:
        depends["stored_views"] = stored_views(work)
    if labelled.left_out:
        depends["left_out"] = list(labelled.left_out)
    name = f"distil/{arm}-{seed}"
    together = any(joint(p.training, work.crew) for p in work.recipe.phases if p.training)
    summary = work.stage(
        name,
        depends,
        lambda folder: train(
            Lesson(
                work=work,
                arm=arm,
                seed=seed,
                student=fresh_student(work, seed).module,
                teacher=teacher() if teacher else None,
                layers=found,
                left_out=labelled.left_out,
            ),
            folder,
        ),
        together=together,
    )
    return Trained(arm=arm, seed=seed, folder=work.folder / name, summary=summary)


def trained_module(work: Work, arm: Trained) -> Deployable:
    """The module of a finished arm, in evaluation mode."""
    module = fresh_student(work, arm.seed).module
    load_into(module, read_weights(arm.folder / "weights.safetensors"), source=str(arm.folder))
    return module.eval()  # type: ignore[return-value]


def predict(module: nn.Module, work: Work, positions: NDArray[Any]) -> NDArray[Any]:
    """Answers of a module to rows, `[rows, width]` float32."""
    answers = []
    with torch.inference_mode():
        for start in range(0, len(positions), work.recipe.evaluate.batch_size):
            index = torch.from_numpy(positions[start : start + work.recipe.evaluate.batch_size])
            answers.append(module(work.material.inputs[index]).float().numpy())
    return np.concatenate(answers)
