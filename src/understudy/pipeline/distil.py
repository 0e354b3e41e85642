"""Stages `student` and `distil`: fresh students, then every arm of every seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy import build
from understudy.contracts import Student, Teacher
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit
from understudy.errors import ExportError, ModelError, UnderstudyError
from understudy.evaluate.cost import parameters
from understudy.export.onnx import export_onnx
from understudy.folders import read_json, write_json
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights, save_weights, weights_fingerprint
from understudy.objective import Objective, control_objective
from understudy.pipeline.labelling import Labelled, label, live, stored_views, view_seed
from understudy.pipeline.prepare import signatures, view_marks
from understudy.pipeline.teach import Loaded, joint, validation_loader
from understudy.pipeline.work import Work, threads_for, validator
from understudy.recipe import Phase
from understudy.students.scratch import scratch

Arm = Literal["student", "control"]
HISTORY = "history.json"


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
    return {
        "student": entry.model_dump(mode="json"),
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
    return scratch(lambda: work.material.deployable(make()), seed=seed)


def distil(work: Work, loaded: Loaded) -> tuple[list[Trained], float]:
    """Do the stage `distil` for every seed and arm; the arms, and the teacher pass's seconds."""
    labelled = label(work, loaded, needed(work, loaded))
    arms: list[Trained] = []
    for seed in work.recipe.seed_list:
        arms.append(_arm(work, "student", seed, labelled, loaded))
        if work.recipe.has_control:
            arms.append(_arm(work, "control", seed, labelled, loaded))
    return arms, labelled.seconds


def needed(work: Work, loaded: Loaded) -> frozenset[str]:
    """The teacher's knowledge that the objectives of all phases need."""
    needs: frozenset[str] = frozenset()
    for phase in work.recipe.phases:
        terms = build.terms(phase.objective, work.place)
        needs |= Objective(terms, task=work.task, offers=loaded.offers).needs
    return needs


def _arm(work: Work, arm: Arm, seed: int, labelled: Labelled, loaded: Loaded) -> Trained:
    phases = work.recipe.phases
    start = read_json(work.folder / "student" / "stage.json")["summary"]["start"][str(seed)]
    depends: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "start": start,
        "student": student_mark(work),
        "views": view_marks(work),
        "phases": [_what_counts(work, phase, arm) for phase in phases],
    }
    teacher = labelled.teacher if arm == "student" else None
    if teacher is not None:
        depends["teacher"] = loaded.summary["fingerprint"]
        if not live(work):
            depends["labels"] = labelled.plan
    if stored_views(work) is not None:
        depends["stored_views"] = stored_views(work)
    if labelled.left_out:
        depends["left_out"] = list(labelled.left_out)
    name = f"distil/{arm}-{seed}"
    together = any(joint(p.training, work.crew) for p in phases if p.training is not None)
    summary = work.stage(
        name,
        depends,
        lambda folder: _train(
            work, arm, seed, teacher() if teacher else None, labelled.left_out, folder
        ),
        together=together,
    )
    return Trained(arm=arm, seed=seed, folder=work.folder / name, summary=summary)


def _what_counts(work: Work, phase: Phase, arm: Arm) -> dict[str, Any]:
    """What an arm is a function of: a control is not touched by a change of the teacher's terms."""
    data = phase.model_dump(mode="json")
    for key in ("checkpoint_seconds", "tensorboard"):
        data["training"].pop(key)
    terms = build.terms(phase.objective, work.place)
    data["objective"] = [
        entry.model_dump(mode="json")
        | {"code": signatures(entry, work.place) if entry.kind == "custom" else {}}
        for entry, term in zip(phase.objective, terms, strict=True)
        if arm == "student" or term.labels
    ]
    return data


def _train(
    work: Work,
    arm: Arm,
    seed: int,
    teacher: Teacher | None,
    left_out: Sequence[int],
    folder: Path,
) -> dict[str, Any]:
    student = fresh_student(work, seed).module
    points: list[dict[str, Any]] = []
    seconds, epoch = 0.0, 0
    for number, phase in enumerate(work.recipe.phases):
        where = folder / f"phase-{number + 1}"
        done = where / "finished.json"
        if done.is_file():
            load_into(student, read_weights(where / "weights.safetensors"), source=str(where))
        elif work.crew.leads:
            where.mkdir(parents=True, exist_ok=True)
        if not work.crew.agree(done.is_file()):
            result = _phase(work, arm, seed, teacher, left_out, student, phase, where)
            if work.crew.leads:
                save_weights(student, where / "weights.safetensors")
                write_json(done, result)
        work.crew.wait()
        result = read_json(done)
        points += [p | {"phase": number + 1, "epoch": p["epoch"] + epoch} for p in result["points"]]
        epoch, seconds = epoch + phase_epochs(phase), seconds + result["seconds"]
    if work.crew.leads:
        save_weights(student, folder / "weights.safetensors")
        write_json(folder / HISTORY, points)
        for checkpoint in folder.rglob("*.ckpt"):
            checkpoint.unlink()
    kept = result["epoch"]
    score = next((p["validation"] for p in result["points"] if p["epoch"] == kept), None)
    return {"epoch": kept, "validation": score, "seconds": seconds}


def phase_epochs(phase: Phase) -> int:
    """How many epochs a phase has at most."""
    assert phase.training is not None  # Recipe.phases fills it in
    return phase.training.epochs


def _phase(
    work: Work,
    arm: Arm,
    seed: int,
    teacher: Teacher | None,
    left_out: Sequence[int],
    student: nn.Module,
    phase: Phase,
    folder: Path,
) -> dict[str, Any]:
    training = phase.training
    assert training is not None
    material = work.material
    terms = build.terms(phase.objective, work.place)
    positions = material.splits.train
    # A row that the teacher could not answer is left out for the control too.
    positions = positions[~np.isin(material.rows.ids[positions], left_out)]
    if arm == "student":
        offers = teacher.offers if teacher is not None else frozenset()
        listed: frozenset[str] = getattr(teacher, "listed", frozenset())
        objective = Objective(terms, task=material.task, offers=offers, listed=listed)
        if not objective.needs:
            teacher = None
    else:
        objective = control_objective(terms, task=material.task)
    taught = positions if arm == "student" else material.labelled(positions)
    loader = MemoryLoader(
        inputs=material.inputs,
        labels=material.labels,
        ids=material.ids,
        positions=taught,
        batch_size=training.batch_size,
        views=build.views(work.recipe.data.views, work.place, seed=view_seed(work, seed)),
        cycle=stored_views(work),
        # Whom a row is mixed with must not depend on which rows are left out here.
        pool=material.splits.train
        if arm == "student"
        else material.labelled(material.splits.train),
        seed=seed,
        length=len(positions),
        rank=work.crew.rank if joint(training, work.crew) else 0,
        ranks=work.crew.size if joint(training, work.crew) else 1,
    )
    score = material.task.scores[0]
    title = f"{arm}, seed {seed}"
    with (
        threads_for(student, material.inputs, training.batch_size),
        work.progress.track(title, training.epochs * len(loader), "steps") as tracker,
    ):
        fitted = fit(
            name=title,
            student=student,
            objective=objective,
            teacher=teacher,
            training=training,
            loader=loader,
            validation=validation_loader(work),
            validate=validator(score),
            higher_is_better=score.higher_is_better,
            seed=seed,
            folder=folder,
            on_step=tracker,
        )
    points = [dict(point) for point in fitted.points]
    return {"points": points, "epoch": fitted.epoch, "seconds": fitted.seconds}


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
