"""Stage `evaluate`: teacher, student, control and int8 file on the test rows, and the verdict.

This is the only place where test rows are read. Nothing here chooses anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from understudy.contracts import Batch
from understudy.data.lengths import shortest_first, trimmed
from understudy.deployed import Deployed
from understudy.errors import DataError
from understudy.evaluate.cost import Cost, flops, onnx_cost, parameters, torch_cost
from understudy.evaluate.quality import Score, interval, row_values
from understudy.evaluate.verdict import Verdict, gap_closed, judge, unproved
from understudy.export.forms import speed_ratio
from understudy.export.onnx import stored_parameters
from understudy.folders import read_json, write_atomic, write_json
from understudy.models.deployable import Deployable
from understudy.pipeline.deploy import STUDENT, STUDENT_INT8
from understudy.pipeline.distil import Trained, predict, trained_module
from understudy.pipeline.members import own_preprocess
from understudy.pipeline.teach import Loaded
from understudy.pipeline.work import Work
from understudy.tasks import Regression

Array = NDArray[Any]
ANSWERS, SCORES = "answers.safetensors", "evaluation.json"


def evaluate(work: Work, arms: Sequence[Trained], loaded: Loaded) -> dict[str, Any]:
    """Do the stage; everything it found, as it goes into `run.json`."""
    exported = read_json(work.folder / "export" / "stage.json")
    depends = {
        "export": exported["fingerprint"],
        "evaluate": work.recipe.evaluate.model_dump(mode="json"),
        "budget": work.recipe.budget.model_dump(mode="json"),
    }
    work.stage("evaluate", depends, lambda folder: _evaluate(work, arms, loaded, folder))
    result: dict[str, Any] = read_json(work.folder / "evaluate" / SCORES)
    return result


def _evaluate(work: Work, arms: Sequence[Trained], loaded: Loaded, folder: Path) -> dict[str, Any]:
    positions = test_rows(work)
    labels = work.material.all_labels.numpy()[positions]
    exported = read_json(work.folder / "export" / "stage.json")["summary"]
    with work.progress.track("evaluate", 8, "parts") as tracker:
        answers = {"teacher": _teacher_answers(work, loaded, positions)[None]}
        for name in ("student", "control"):
            found = [
                predict(trained_module(work, a), work, positions) for a in arms if a.arm == name
            ]
            if found:
                answers[name] = np.stack(found)
        if work.recipe.quantized is not None:
            answers["student_int8"] = np.stack(
                [
                    _file_answers(work, f"student-{seed}.int8.onnx", positions)
                    for seed in work.recipe.seed_list
                ]
            )
        tracker(2, "answers")
        write_atomic(folder / ANSWERS, save_arrays(_storable(answers, work, positions)))
        scores = {
            name: _scores(work, name, given, labels, answers["teacher"][0])
            for name, given in answers.items()
        }
        tracker(4, "scores")
        costs = _costs(work, loaded, arms, exported["seed"])
        tracker(7, "costs")
        models = {name: scores[name] | costs[name] for name in answers}
        verdict, notes = _verdict(work, answers, labels)
        tracker(8, "verdict")
    deployed = _deployed(work, answers, labels, exported["seed"])
    budget = _budget(work, models)
    verdict |= _recommend(verdict, budget)
    result = {
        "models": models,
        "deployed": deployed,
        "budget": budget,
        "verdict": verdict,
        "notes": notes,
        "parity": exported["parity"],
    }
    write_json(folder / SCORES, result)
    return {"word": verdict["word"]}


def test_rows(work: Work) -> NDArray[np.int64]:
    """The positions of the labelled test rows."""
    positions = work.material.splits.test
    kept = positions[work.material.task.labelled_rows(work.material.all_labels.numpy()[positions])]
    if not len(kept):
        raise DataError("no test row has a label, so nothing can be proved: label some test rows")
    return kept


def _storable(
    answers: Mapping[str, Array], work: Work, positions: NDArray[np.int64]
) -> dict[str, Array]:
    stored = {name: np.ascontiguousarray(v, np.float32) for name, v in answers.items()}
    return stored | {"positions": positions, "ids": work.material.rows.ids[positions]}


def _teacher_answers(work: Work, loaded: Loaded, positions: NDArray[np.int64]) -> Array:
    material, size = work.material, work.recipe.evaluate.batch_size
    order = shortest_first(material.inputs, positions, material.pad)
    found = []
    for start in range(0, len(positions), size):
        index = torch.from_numpy(positions[order[start : start + size]])
        rows = material.inputs[index]
        rows = rows if material.pad is None else trimmed(rows, material.pad)
        knowledge = loaded.teacher(Batch(inputs=rows, ids=material.ids[index]))
        found.append(knowledge.tensor(material.task.output).float().cpu().numpy())
    answers = np.concatenate(found)[np.argsort(order)]
    bad = ~np.isfinite(answers).all(axis=1)
    if bad.any() and work.recipe.labels.on_bad_rows == "skip":
        # What says nothing of a row knows nothing of it: equal probabilities, or the mean.
        task = work.material.task
        answers[bad] = task.mean if isinstance(task, Regression) else 0.0
        work.notes.append(
            f"the teacher's answer to {bad.sum()} of {len(bad)} evaluated rows was not finite; "
            "its score counts them as rows that it knows nothing of"
        )
    return answers


def _file_answers(work: Work, name: str, positions: NDArray[np.int64]) -> Array:
    session = Deployed.open(work.folder / "export" / name)
    return session.predict(work.material.rows.inputs[positions])


def _scores(work: Work, name: str, given: Array, labels: Array, teacher: Array) -> dict[str, Any]:
    """Every score of one model with its interval, and the primary one per seed."""
    task = work.material.task
    scores: list[Score] = list(task.scores)
    if name != "teacher":
        scores.extend(task.fidelity(teacher.astype(np.float64)))
    result: dict[str, Any] = {}
    for score in scores:
        found = interval(score, given.astype(np.float64), labels, draws=work.recipe.evaluate.draws)
        result[score.name] = {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "higher_is_better": score.higher_is_better,
        }
    primary = task.scores[0]
    per_seed = [primary.value(one.astype(np.float64), labels) for one in given]
    return {"scores": result, "per_seed": {primary.name: per_seed}}


def _costs(
    work: Work, loaded: Loaded, arms: Sequence[Trained], deployed: int
) -> dict[str, dict[str, Any]]:
    """What each model costs, from its file where there is one."""
    student = trained_module(
        work, next(a for a in arms if (a.arm, a.seed) == ("student", deployed))
    )
    modules: dict[str, Deployable | None] = {
        "teacher": loaded.module,
        "student": student,
        "control": student,
        "student_int8": student,
    }
    files = {
        "teacher": work.folder / "export" / "teacher.onnx",
        "student": work.folder / "export" / STUDENT,
        "control": work.folder / "export" / "control.onnx",
        "student_int8": work.folder / "export" / STUDENT_INT8,
    }
    onnx_teacher = work.recipe.teacher.onnx
    if onnx_teacher is not None:
        files["teacher"] = work.place.resolve(onnx_teacher)
    rows = work.material.timed(32)
    fed = dict.fromkeys(files, rows)
    preprocess = own_preprocess(work, work.recipe.teacher)
    if onnx_teacher is not None and preprocess is not None:
        fed["teacher"] = preprocess(torch.from_numpy(np.array(rows))).numpy()
    found = {name: _cost(work, files[name], modules[name], fed[name]) for name in files}
    if onnx_teacher is not None:
        found["teacher"]["parameters"] = stored_parameters(files["teacher"])
    elif work.recipe.teacher.ensemble:
        found["teacher"]["parameters"] = loaded.summary["parameters"]
    return found


def _cost(work: Work, path: Path, module: Deployable | None, rows: Array) -> dict[str, Any]:
    seconds = work.recipe.evaluate.latency_seconds
    cost: Cost | None = None
    if path.is_file():
        cost = onnx_cost(path, rows, seconds=seconds)
    elif module is not None:
        cost = torch_cost(module, torch.from_numpy(np.array(rows)), seconds=seconds)
    result: dict[str, Any] = {
        "parameters": None if module is None else parameters(module),
        "flops": None
        if module is None
        else flops(module, torch.from_numpy(work.material.timed(1))),
        "bytes": None,
        "latency_ms": {"batch1": None, "batch32": None, "detail": []},
        "peak_memory_mb": None,
        "runtime": None,
    }
    return result | (cost.as_dict() if cost is not None else {})


def _verdict(
    work: Work, answers: Mapping[str, Array], labels: Array
) -> tuple[dict[str, Any], list[str]]:
    primary = work.material.task.scores[0]
    rows = {
        name: np.stack([row_values(primary, one.astype(np.float64), labels) for one in given])
        for name, given in answers.items()
    }
    margin = work.recipe.evaluate.margin
    if "control" not in rows:
        verdict: Verdict = unproved("`control: false`: without a control nothing was proved")
        return _plain(verdict, None, margin), [verdict.sentence]
    better = primary.higher_is_better
    verdict = judge(
        rows["student"],
        rows["control"],
        higher_is_better=better,
        margin=margin,
        name=primary.name,
        unit=primary.unit,
    )
    gap = gap_closed(rows["teacher"], rows["student"], rows["control"], higher_is_better=better)
    return _plain(verdict, gap, margin), []


def _plain(verdict: Verdict, gap: float | None, margin: float) -> dict[str, Any]:
    data = asdict(verdict)
    return data | {"word": str(verdict.word), "gap_closed": gap, "margin": margin, "notes": []}


def _deployed(work: Work, answers: Mapping[str, Array], labels: Array, seed: int) -> dict[str, Any]:
    """The scores of the very files that are there to be deployed."""
    primary = work.material.task.scores[0]
    positions = test_rows(work)
    own = _file_answers(work, STUDENT, positions).astype(np.float64)
    at = work.recipe.seed_list.index(seed)
    int8, speedup = None, None
    if "student_int8" in answers:
        int8 = primary.value(answers["student_int8"][at].astype(np.float64), labels)
        rows = work.material.timed(32)
        folder = work.folder / "export"
        seconds = work.recipe.evaluate.latency_seconds
        speedup = speed_ratio(folder / STUDENT, folder / STUDENT_INT8, rows, seconds=seconds)
    return {
        "seed": seed,
        primary.name: primary.value(own, labels),
        f"{primary.name}_int8": int8,
        "speedup_quantized": speedup,
    }


def _budget(work: Work, models: Mapping[str, Any]) -> dict[str, Any]:
    """Every limit of the budget against what was measured."""
    limits, student = work.recipe.budget, models["student"]
    checks: list[dict[str, Any]] = []

    def check(
        name: str, limit: float | int, measured: float | int | None, *, least: bool = False
    ) -> None:
        met = measured is not None and (measured >= limit if least else measured <= limit)
        checks.append({"name": name, "limit": limit, "measured": measured, "met": met})

    if limits.parameters is not None:
        check("parameters", limits.parameters, student["parameters"])
    if limits.bytes is not None:
        check("bytes", limits.bytes, student["bytes"])
    if limits.flops is not None:
        check("flops", limits.flops, student["flops"])
    if limits.latency_ms is not None:
        latency = limits.latency_ms
        rows = work.material.timed(max(32, latency.batch))
        session = Deployed.open(work.folder / "export" / STUDENT)
        measured = session.latency(rows, batch=latency.batch, threads=latency.threads)
        name = f"latency_ms (batch {latency.batch}, {latency.threads} threads)"
        check(name, latency.value, measured.median_ms)
    if limits.accuracy_kept is not None:
        name = work.material.task.scores[0].name
        own, teacher = (models[m]["scores"][name]["value"] for m in ("student", "teacher"))
        above, below = (
            (own, teacher) if work.material.task.scores[0].higher_is_better else (teacher, own)
        )
        # A share of a score that is not positive (an R2 below 0) means nothing, so it is not met.
        kept = above / below if below > 0 and above >= 0 else None
        check("accuracy_kept", limits.accuracy_kept, kept, least=True)
    return {"checks": checks, "within": all(c["met"] for c in checks) if checks else None}


def _recommend(verdict: Mapping[str, Any], budget: Mapping[str, Any]) -> dict[str, Any]:
    """Deploy what distillation made only if it helped and fits."""
    within = budget["within"]
    return {
        "within_budget": within,
        "recommend": verdict["word"] == "HELPED" and within is not False,
    }
