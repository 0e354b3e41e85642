"""Stage `student`: start weights per seed, fresh or cut from the teacher, and a dry run."""

from pathlib import Path
from typing import Any

import torch

from understudy.contracts import Student
from understudy.errors import ExportError, ModelError, UnderstudyError
from understudy.evaluate.cost import parameters
from understudy.export.forms import Form, make_form
from understudy.export.onnx import export_onnx
from understudy.folders import read_json
from understudy.models.deployable import Deployable
from understudy.models.weights import save_weights, weights_fingerprint
from understudy.pipeline.chain import chain_marks, dry_run
from understudy.pipeline.closed_form import closed_form, closed_mark
from understudy.pipeline.cutting import Chosen, choose, latency_ms, untrained_teacher
from understudy.pipeline.fresh import begin_plain, fresh_student, regularised
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.matching import rehearse
from understudy.pipeline.members import load_teacher
from understudy.pipeline.model_marks import model_marks
from understudy.pipeline.other_layers import check_layers
from understudy.pipeline.signatures import signatures
from understudy.pipeline.teach import teach
from understudy.pipeline.token_vectors import take_token_vectors
from understudy.pipeline.work import Work
from understudy.students.lora import merged
from understudy.students.planning import plan_table

# Enough to calibrate a file that is thrown away.
FEW_ROWS = 8


def begin(work: Work) -> Loaded:
    """Do the stages `student` and `teacher`; the teacher."""
    section = work.recipe.student
    if section.blockwise is not None and work.given is None:
        raise ModelError(
            "this student is put together from blocks: run the recipe with `understudy blockwise`, "
            "or in Python with `understudy.blockwise.running.run`"
        )
    if section.takes_weights:
        rehearse_cuts(work)
        loaded = teach(work)
        if section.computed:
            closed_form(work, loaded)
        build_students(work)
        rehearse_steps(work)
        check_layers(work, loaded.module)
        return loaded
    # First, since a student that cannot be deployed is to be found before a teacher is trained.
    build_students(work)
    if work.crew.leads:
        rehearse(work, lambda: fresh_student(work, work.recipe.seed_list[0]))
    rehearse_steps(work)
    loaded = teach(work)
    check_layers(work, loaded.module)
    return loaded


def rehearse_cuts(work: Work) -> None:
    """Cut a teacher that is still to be trained, so that no hours go into one that cannot be."""
    section = work.recipe.teacher
    begun = (work.folder / "teacher" / "stage.json").is_file()
    if work.recipe.student.token_vectors is not None and not begun and work.crew.leads:
        take_token_vectors(work, begin_plain(work), rehearsal=True)
    if not work.recipe.student.from_teacher or section.training is None or begun:
        return
    if work.crew.leads:
        cuts, whole = work.recipe.student.from_teacher, untrained_teacher(work)
        chosen = choose(work, cuts, whole, seed=0, rehearsal=True)
        module = regularised(work, chosen.module)
        folder = work.folder / ".work"
        folder.mkdir(parents=True, exist_ok=True)
        try_export(work, module, folder / "dry-run.onnx")
        student = Student(module=module, provenance=chosen.provenance)
        rehearse(work, lambda: student)
        if _does_more(work):
            _try_steps(work, module, folder)


def rehearse_steps(work: Work) -> None:
    """Do the stage `rehearsal`: what the steps after the first training do, before any training.

    Raises:
        ModelError: a step that cannot be made of this student.
        ExportError: what is left at the end cannot be deployed.
    """
    if not _does_more(work):
        return
    quantized = work.recipe.quantized
    depends = student_mark(work) | {
        "chain": chain_marks(work),
        "quantized": None if quantized is None else quantized.form,
    }
    work.stage("rehearsal", depends, lambda folder: _rehearsed(work, folder))


def _does_more(work: Work) -> bool:
    return any(step.kind != "distil" for step in work.recipe.steps)


def _rehearsed(work: Work, folder: Path) -> dict[str, Any]:
    module = fresh_student(work, work.recipe.seed_list[0]).module
    assert isinstance(module, Deployable)
    return {"parameters": parameters(_try_steps(work, module, folder))}


def _try_steps(work: Work, start: Deployable, folder: Path) -> Deployable:
    """Go through the steps without learning, and make the files that come out of them."""
    module = dry_run(work, start, seed=work.recipe.seed_list[0])
    path, small = folder / "dry-run.onnx", folder / "dry-run.small.onnx"
    step = work.recipe.steps[-1]
    try_export(work, module, path, keep=step.kind == "quantize")
    if step.kind == "quantize":
        rows = work.material.rows.inputs[work.material.splits.train[:FEW_ROWS]]
        make_form(path, small, Form(kind=step.form), rows=rows)
        path.unlink()
        small.unlink()
    return module


def build_students(work: Work) -> dict[str, Any]:
    """Do the stage `student`; its summary."""
    depends = student_mark(work) | {"seeds": list(work.recipe.seed_list)}
    summary: dict[str, Any] = work.stage("student", depends, lambda folder: _build(work, folder))
    limit = work.recipe.budget.parameters
    # What later steps make of it is judged at the end.
    if limit is not None and summary["parameters"] > limit and not _does_more(work):
        work.notes.append(
            f"the student has {summary['parameters']:,} parameters, the budget allows {limit:,}"
        )
        work.progress.say(f"student: {work.notes[-1]}")
    return summary


def student_mark(work: Work) -> dict[str, Any]:
    """Everything that a student's start is a function of, beside its seed."""
    section = work.recipe.student
    entry, teacher = section.model, None
    if section.takes_weights:
        # The teacher's weights are a part of such a student.
        teacher = read_json(work.folder / "teacher" / "stage.json")["summary"]["fingerprint"]
    return {
        "student": section.model_dump(mode="json"),
        "teacher": teacher,
        "code": signatures(entry, work.place) if entry and entry.kind == "custom" else {},
        "data": work.data_mark,
        # Only where there are any: other students keep the fingerprint that they have.
        **({"files": marks} if (marks := model_marks(entry, work.place)) else {}),
        **({"closed_form": closed_mark(work)} if section.computed else {}),
        **({} if work.given is None else {"given": dict(work.given.mark)}),
    }


def _build(work: Work, folder: Path) -> dict[str, Any]:
    module: Deployable | None = None
    start: dict[str, str] = {}
    plans: dict[str, Any] = {}
    first: Chosen | None = None
    for seed in work.recipe.seed_list:
        if work.recipe.student.from_teacher:
            chosen = _cut(work, seed)
            module, plans[str(seed)] = regularised(work, chosen.module), chosen.plans
            first = first or chosen
        else:
            module = fresh_student(work, seed).module  # type: ignore[assignment]
        assert module is not None
        save_weights(module, folder / f"seed-{seed}.safetensors")
        start[str(seed)] = weights_fingerprint(module)
    assert module is not None
    # A student that cannot be exported is found now, not after hours of training.
    try_export(work, module, folder / "dry-run.onnx")
    summary: dict[str, Any] = {"parameters": parameters(merged(module)), "start": start}
    if first is not None:
        summary |= {"plans": plans, "importance": first.importance, "plan": _table(work, first)}
    return summary


def _cut(work: Work, seed: int) -> Chosen:
    _, modules = load_teacher(work)
    assert modules[0] is not None  # `build.check` refuses other teachers
    return choose(work, work.recipe.student.from_teacher, modules[0], seed=seed)


def _table(work: Work, chosen: Chosen) -> dict[str, Any]:
    """What the cut student will be, before anything is trained."""
    _, modules = load_teacher(work)
    whole = modules[0]
    assert whole is not None
    rows = work.material.inputs[torch.from_numpy(work.material.splits.train[:1])]
    fed = whole.preprocess(rows)
    before_ms = latency_ms(work, whole)
    table = plan_table(
        whole.network,
        chosen.module.network,
        fed,
        before_ms=before_ms,
        provenance=chosen.provenance,
    )
    # The first line of a cut says what it leaves; `understudy plan` shows all of them.
    for line in chosen.heads:
        work.progress.say(f"student: {line}")
    work.progress.say(
        f"student: {table.parameters[0]:,} to {table.parameters[1]:,} parameters, predicted "
        f"{table.ms[0]:.3f} to {table.ms[1]:.3f} ms for one row"
    )
    return table.to_data()


def try_export(work: Work, module: Deployable, path: Path, *, keep: bool = False) -> None:
    """Ask a student for a few rows, and export it to a file that is thrown away unless kept.

    Raises:
        ModelError: it cannot answer.
        ExportError: it cannot be exported.
    """
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
        export_onnx(merged(module), rows, path, metadata={})
    except ExportError as error:
        raise ExportError(f"the student cannot be deployed as it is: {error}") from error
    if not keep:
        path.unlink()
