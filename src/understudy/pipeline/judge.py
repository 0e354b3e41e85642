"""Stage `evaluate`: teacher, student, control and int8 file on the test rows, and the verdict.

This is the only place where test rows are read. Nothing here chooses anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays
from torch import Tensor, nn

from understudy.contracts import Batch, Teacher
from understudy.deployed import Deployed
from understudy.errors import DataError
from understudy.evaluate.quality import Score, interval, row_values
from understudy.evaluate.verdict import Verdict, gap_closed, judge, unproved
from understudy.export.forms import speed_ratio
from understudy.folders import read_json, write_atomic, write_json
from understudy.pipeline.asking import asked, of_file, predict, truth
from understudy.pipeline.costing import costs_of
from understudy.pipeline.deploy import STUDENT, STUDENT_INT8
from understudy.pipeline.distil import Trained, trained_module
from understudy.pipeline.language import is_language
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.questions import STAGE as QUESTIONS
from understudy.pipeline.reference import reference, teachers_vectors
from understudy.pipeline.without_labels import WHY, labelled, primary_score, told_verdict
from understudy.pipeline.work import Work
from understudy.pipeline.worth import worth
from understudy.pipeline.writing import samples
from understudy.tasks import Regression

Array = NDArray[Any]
UNTRAINED = (
    "the control is the network that the student began as, without any training: vectors have no "
    "labels that it could learn from"
)
ANSWERS, SCORES = "answers.safetensors", "evaluation.json"


def evaluate(work: Work, arms: Sequence[Trained], loaded: Loaded) -> dict[str, Any]:
    """Do the stage; everything it found, as it goes into `run.json`."""
    exported = read_json(work.folder / "export" / "stage.json")
    depends = {
        "export": exported["fingerprint"],
        "evaluate": work.recipe.evaluate.model_dump(mode="json"),
        "budget": work.recipe.budget.model_dump(mode="json"),
    }
    if QUESTIONS in work.stages:  # the very files that vectors are judged by
        depends["questions"] = work.stages[QUESTIONS]
    work.stage("evaluate", depends, lambda folder: _evaluate(work, arms, loaded, folder))
    result: dict[str, Any] = read_json(work.folder / "evaluate" / SCORES)
    return result


def _evaluate(work: Work, arms: Sequence[Trained], loaded: Loaded, folder: Path) -> dict[str, Any]:
    positions = test_rows(work)
    labels = truth(work, positions).labels
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
        costs = costs_of(work, loaded, arms, exported["seed"])
        tracker(7, "costs")
        models = {name: scores[name] | costs[name] for name in answers}
        primary = primary_score(work, answers["teacher"][0], labels)
        held, own = labels, _file_answers(work, STUDENT, positions)
        vectors = worth(work, arms, loaded)
        if vectors is not None and vectors.score is not None:
            primary, answers = vectors.score, dict(vectors.answers)
            held, own = vectors.labels, vectors.own
            for name, found in vectors.record["pairs"]["models"].items():
                models[name]["scores"] |= {primary.name: found | {"higher_is_better": True}}
                models[name]["per_seed"] |= {primary.name: found["per_seed"]}
        verdict, notes = _verdict(work, answers, held, primary)
        tracker(8, "verdict")
    deployed = _deployed(work, answers, held, exported["seed"], primary, own)
    budget = _budget(work, models, primary)
    verdict |= _recommend(verdict, budget)
    if not work.recipe.task.has_labels and work.has_control:
        verdict["notes"] = [*verdict["notes"], UNTRAINED]
    result = {
        "models": models,
        "deployed": deployed,
        "budget": budget,
        "verdict": verdict,
        "primary": {
            "name": primary.name,
            "higher_is_better": primary.higher_is_better,
            "unit": primary.unit,
        },
        "vectors": None if vectors is None else vectors.record,
        "notes": notes,
        "parity": exported["parity"],
        "samples": _samples(work, arms, loaded, exported["seed"]),
    }
    write_json(folder / SCORES, result)
    return {"word": verdict["word"]}


def _samples(
    work: Work, arms: Sequence[Trained], loaded: Loaded, seed: int
) -> list[dict[str, Any]]:
    """What the models of a language model's run write; nothing of another's."""
    if not is_language(work.recipe):
        return []
    models: dict[str, nn.Module | None] = {"teacher": loaded.module}
    models |= {arm.arm: trained_module(work, arm) for arm in arms if arm.seed == seed}
    return samples(work, models)


def test_rows(work: Work) -> NDArray[np.int64]:
    """The positions of the labelled test rows; of a run without any label, all of them."""
    positions = work.material.splits.test
    if not work.recipe.task.has_labels:
        return positions
    kept = positions[work.material.task.labelled_rows(work.material.all_labels.numpy()[positions])]
    if not len(kept) and work.unlabelled:
        return positions
    if not len(kept):
        raise DataError("no test row has a label, so nothing can be proved: label some test rows")
    return kept


def _storable(
    answers: Mapping[str, Array], work: Work, positions: NDArray[np.int64]
) -> dict[str, Array]:
    stored = {name: np.ascontiguousarray(v, np.float32) for name, v in answers.items()}
    return stored | {"positions": positions, "ids": work.material.rows.ids[positions]}


def _teacher_answers(work: Work, loaded: Loaded, positions: NDArray[np.int64]) -> Array:
    if not work.recipe.task.has_labels:
        return reference(work, positions)  # asked already, in its own tokens
    teacher, output = loaded.teacher, work.material.task.output
    ask = partial(_answer, teacher, output)
    if work.material.teaching is None:
        answers = asked(work, positions, ask)
    else:  # in its own tokens
        answers = teachers_vectors(work, ask, positions)
    bad = np.asarray(~np.isfinite(answers).all(axis=1))
    if bad.any() and work.recipe.labels.on_bad_rows == "skip":
        # What says nothing of a row knows nothing of it: equal probabilities, or the mean.
        task = work.material.task
        answers[bad] = task.mean if isinstance(task, Regression) else 0.0
        work.notes.append(
            f"the teacher's answer to {bad.sum()} of {len(bad)} evaluated rows was not finite; "
            "its score counts them as rows that it knows nothing of"
        )
    return answers


def _answer(teacher: Teacher, output: str, batch: Batch) -> Tensor:
    return teacher(batch).tensor(output)


def _file_answers(work: Work, name: str, positions: NDArray[np.int64]) -> Array:
    session = Deployed.open(work.folder / "export" / name)
    return of_file(session, work, positions)


def _scores(work: Work, name: str, given: Array, labels: Array, teacher: Array) -> dict[str, Any]:
    """Every score of one model with its interval, and the primary one per seed."""
    task = work.material.task
    scores: list[Score] = list(task.scores) if labelled(work, labels) else []
    if name != "teacher" or not work.recipe.task.has_labels:
        scores.extend(task.fidelity(teacher.astype(np.float64)))
    result: dict[str, Any] = {}
    for score in scores:
        rows = truth(work, test_rows(work)).rows(score)
        found = interval(rows, given.astype(np.float64), labels, draws=work.recipe.evaluate.draws)
        result[score.name] = {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "higher_is_better": score.higher_is_better,
        }
    primary = primary_score(work, teacher, labels)
    per_seed = [primary.value(one.astype(np.float64), labels) for one in given]
    return {"scores": result, "per_seed": {primary.name: per_seed}}


def _verdict(
    work: Work, answers: Mapping[str, Array], labels: Array, primary: Score
) -> tuple[dict[str, Any], list[str]]:
    by_text = truth(work, test_rows(work)).rows(primary)
    if work.unlabelled:
        tested = len(test_rows(work))
        verdict, beside = told_verdict(work, answers, labels, by_text, tested=tested)
        data = _plain(verdict, None, work.recipe.evaluate.margin)
        return data | {"against_teacher": beside}, [WHY]
    rows = {
        name: np.stack([row_values(by_text, one.astype(np.float64), labels) for one in given])
        for name, given in answers.items()
    }
    margin = work.recipe.evaluate.margin
    if "control" not in rows:
        verdict = unproved("`control: false`: without a control nothing was proved")
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


def _deployed(
    work: Work,
    answers: Mapping[str, Array],
    labels: Array,
    seed: int,
    primary: Score,
    own: Array,
) -> dict[str, Any]:
    """The scores of the very files that are there to be deployed, which answer with `own`."""
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
        primary.name: primary.value(own.astype(np.float64), labels),
        f"{primary.name}_int8": int8,
        "speedup_quantized": speedup,
    }


def _budget(work: Work, models: Mapping[str, Any], primary: Score) -> dict[str, Any]:
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
        name = primary.name
        told = [models[m]["scores"].get(name, {}).get("value") for m in ("student", "teacher")]
        above, below = told if primary.higher_is_better else told[::-1]
        # A share of a score that is not positive (an R2 below 0) means nothing, so it is not met;
        # neither is one of a score that nothing is known of, without labels.
        known = above is not None and below is not None
        kept = above / below if known and below > 0 and above >= 0 else None
        check("accuracy_kept", limits.accuracy_kept, kept, least=True)
    return {"checks": checks, "within": all(c["met"] for c in checks) if checks else None}


def _recommend(verdict: Mapping[str, Any], budget: Mapping[str, Any]) -> dict[str, Any]:
    """Deploy what distillation made only if it helped and fits."""
    within = budget["within"]
    return {
        "within_budget": within,
        "recommend": verdict["word"] == "HELPED" and within is not False,
    }
