"""`run`: a recipe to a `RunRecord`, stage by stage, going on where an earlier run stopped."""

import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from understudy import __version__, build
from understudy.contracts import Progress, Silent
from understudy.errors import RunError
from understudy.folders import Lock, fingerprint, make_folder, read_json, write_atomic
from understudy.pipeline.crew import Crew, muster
from understudy.pipeline.deploy import STUDENT, STUDENT_INT8, export
from understudy.pipeline.distil import Trained, distil, layers, needed
from understudy.pipeline.judge import evaluate
from understudy.pipeline.labelling import label
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.mapping import feature_map, importance_of
from understudy.pipeline.other_task import other_rows
from understudy.pipeline.pictures import pictures
from understudy.pipeline.portioning import live
from understudy.pipeline.prepare import load, prepare
from understudy.pipeline.questions import questions
from understudy.pipeline.stepping import step_rows
from understudy.pipeline.student import begin
from understudy.pipeline.transferring import transfer
from understudy.pipeline.without_labels import control_of
from understudy.pipeline.work import Work
from understudy.recipe import Recipe, Source, Training, loads, to_data, to_yaml
from understudy.report.page import write_report
from understudy.report.record import RunRecord

Until = Literal["labels", "export", "evaluate", "report"]
RECORD, REPORT = "run.json", "report.html"


def run(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
    until: Until = "report",
    place: Source | None = None,
) -> RunRecord:
    """Run a recipe, or go on with a run that stopped.

    Args:
        recipe: a file, or a recipe that was built in Python.
        out: the run's folder; `runs/NAME` beside the current folder by default.
        settings: changes of the recipe, `section.field=value`.
        progress: where long stages show themselves.
        until: the last stage that is wanted.
        place: where a recipe built in Python came from.

    Returns:
        What `run.json` holds; empty where `until` stops before the evaluation.

    Raises:
        RecipeError: every mistake of the recipe, before anything runs.
        UnderstudyError: whatever else the user can fix; finished stages stay.
    """
    with opened(recipe, out=out, settings=settings, progress=progress, place=place) as work:
        if work.crew.leads:
            write_recipe(work)
        prepare(work)
        other_rows(work)
        questions(work)
        return complete(work, begin(work), until)


@contextmanager
def opened(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
    place: Source | None = None,
) -> Iterator[Work]:
    """A run's folder, locked, and what its stages stand on; arguments as of `run`.

    Raises:
        RecipeError: every mistake of the recipe.
    """
    if isinstance(recipe, Recipe):
        place = place or Source()
        if settings:
            recipe, _ = loads(to_yaml(recipe), settings, name=place.name, folder=place.folder)
        build.check(recipe, place)
    else:
        recipe, place = build.checked(Path(recipe), settings)
    folder = Path(out) if out is not None else Path("runs") / _name(recipe, place)
    phases = [phase.training for phase in recipe.phases if phase.training is not None]
    crew = muster(_trainings(recipe), phases)
    make_folder(folder)
    with Lock(folder) if crew.leads else nullcontext():
        yield Work(
            recipe=recipe,
            place=place,
            folder=folder,
            progress=progress if progress is not None and crew.leads else Silent(),
            crew=crew,
            load=load,
        )


def _name(recipe: Recipe, place: Source) -> str:
    return recipe.name or Path(place.name).stem


def _trainings(recipe: Recipe) -> list[Training]:
    found = [phase.training for phase in recipe.phases] + [recipe.teacher.training]
    return [training for training in found if training is not None]


def write_recipe(work: Work) -> None:
    """Leave the recipe in the run's folder."""
    head = f"# {work.place.name}; relative paths start from {work.place.folder.absolute()}\n"
    write_atomic(work.folder / "recipe.yaml", head + to_yaml(work.recipe))


def complete(work: Work, loaded: Loaded, until: Until = "report") -> RunRecord:
    """Every stage behind `teacher` and `student`.

    Args:
        work: the run, whose `begin` is done.
        loaded: its teacher.
        until: the last stage that is wanted.
    """
    empty = RunRecord({"format": 1})
    if until == "labels":
        if live(work):
            work.progress.say(
                "labels: the teacher is asked in training, at every step; set `labels.views: 4` to "
                "store four views of each row"
                if work.recipe.labels.use != "live"
                else "labels: `use: live`, so the teacher is asked in training"
            )
        label(work, loaded, needed(work, loaded, layers(work, loaded)))
        return empty
    arms, pass_seconds = distil(work, loaded)
    export(work, arms, loaded)
    if until == "export":
        return empty
    found = evaluate(work, arms, loaded)
    found["transfer"] = transfer(work, arms, loaded)
    found["steps"] = step_rows(work, arms, found)
    if not work.crew.leads:
        work.crew.wait()
        return empty
    finished = _finished(work)
    if finished is not None and until == "report":
        work.progress.say(f"{work.folder} is finished, nothing to do")
    else:
        finished = RunRecord(_record(work, arms, loaded, found, pass_seconds))
        # The report first: a record without its report is never taken for a finished run.
        (work.folder / REPORT).unlink(missing_ok=True)
        if until == "report":
            write_report(finished, work.folder / REPORT)
        finished.save(work.folder / RECORD)
        shutil.rmtree(work.folder / ".work", ignore_errors=True)
    work.crew.wait()
    return finished


def _mark(work: Work) -> str:
    """The fingerprint of every stage, and of what the recipe says beside them."""
    return fingerprint([work.stages, work.recipe.name, list(work.recipe.seed_list)])


def _finished(work: Work) -> RunRecord | None:
    """The record of a run whose every stage was done already, for this very recipe, else None."""
    if work.worked or not all((work.folder / f).is_file() for f in (RECORD, REPORT)):
        return None
    try:
        record = RunRecord.load(work.folder / RECORD)
    except RunError:
        return None
    return record if record.data.get("mark") == _mark(work) else None


def _record(
    work: Work,
    arms: Sequence[Trained],
    loaded: Loaded,
    found: dict[str, Any],
    pass_seconds: float,
) -> dict[str, Any]:
    """Everything that `run.json` holds."""
    facts = read_json(work.folder / "data" / "data.json")
    models = {key: dict(value) for key, value in found["models"].items()}
    seconds = {arm: _mean([a.summary["seconds"] for a in arms if a.arm == arm])
               for arm in ("student", "control")}  # fmt: skip
    for key, model in models.items():
        arm = "student" if key.startswith("student") else key
        teaching = pass_seconds if arm == "student" else None
        trained = loaded.summary["seconds"] or None if arm == "teacher" else seconds.get(arm)
        model["seconds"] = {"training": trained, "teacher_pass": teaching}
    return {
        "format": 1,
        "mark": _mark(work),
        "name": _name(work.recipe, work.place),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "understudy": __version__,
        "environment": environment(),
        "recipe": to_data(work.recipe),
        "recipe_fingerprint": fingerprint(to_data(work.recipe)),
        "task": facts["task"] | {"output": work.material.task.output},
        "primary": found["primary"],
        "control": control_of(work),
        "rows": facts["counts"],
        "seeds": list(work.recipe.seed_list),
        "models": models,
        "deployed": found["deployed"],
        "budget": found["budget"],
        "verdict": found["verdict"],
        "parity": found["parity"],
        "transfer": found["transfer"],
        "vectors": found.get("vectors"),
        "samples": found.get("samples", []),
        "steps": found["steps"],
        "quantized": None if work.recipe.quantized is None else work.recipe.quantized.form,
        **_cut(work),
        "feature_map": feature_map(work, arms, loaded),
        **pictures(work, arms),
        "files": {
            "onnx": str(work.folder / "export" / STUDENT),
            "onnx_int8": str(work.folder / "export" / STUDENT_INT8)
            if work.recipe.quantized is not None
            else None,
            "report": str(work.folder / REPORT),
            "run": str(work.folder / RECORD),
        },
        "warnings": list(dict.fromkeys([*work.notes, *found["notes"]])),
    }


def _cut(work: Work) -> dict[str, Any]:
    """What was planned of a student that is cut from its teacher."""
    summary = read_json(work.folder / "student" / "stage.json")["summary"]
    return {
        "plan": summary.get("plan"),
        "importance": importance_of(summary),
        **({} if work.given is None else work.given.summary),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def environment() -> dict[str, Any]:
    """What the numbers of a run were measured on and with."""
    import lightning
    import onnxruntime

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
    }


__all__ = ["Crew", "environment", "run"]
