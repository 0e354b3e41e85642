"""What the report draws beyond scores: curves, confusion, calibration, classes, single rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from understudy.evaluate.fidelity import confusion, reliability
from understudy.evaluate.quality import row_values
from understudy.evaluate.verdict import judge
from understudy.folders import read_json
from understudy.pipeline.asking import truth
from understudy.pipeline.by_class import by_class
from understudy.pipeline.distil import Trained
from understudy.pipeline.judge import ANSWERS
from understudy.pipeline.training import HISTORY
from understudy.pipeline.work import Work
from understudy.report.gallery import choose_rows, png_data_uri
from understudy.tasks import Classification, PerToken, TokenClassification

Array = NDArray[Any]
MOST_CLASSES, MOST_POINTS, MOST_ROWS = 200, 400, 24


def pictures(work: Work, arms: Sequence[Trained]) -> dict[str, Any]:
    """The fields of `run.json` that only the report needs."""
    stored = load_file(work.folder / "evaluate" / ANSWERS)
    positions = stored.pop("positions")
    stored.pop("ids")
    told = truth(work, positions)
    labels = told.labels
    answers = {name: value.astype(np.float64) for name, value in stored.items()}
    per_token = isinstance(work.material.task, PerToken)
    classes = isinstance(work.material.task, Classification | TokenClassification)
    known = bool(work.material.task.labelled_rows(labels).all())
    return {
        "curves": [_curve(arm) for arm in arms],
        "confusion": _confusion(answers, labels) if classes and known else None,
        "calibration": _calibration(answers, labels) if classes and known else None,
        "scatter": None if classes or per_token or not known else _scatter(answers, labels),
        "slices": by_class(work, answers, told)
        if per_token and classes
        else _slices(work, answers, labels)
        if classes
        else [],
        "gallery": _gallery(work, answers, labels, positions) if classes and not per_token else [],
    }


def _curve(arm: Trained) -> dict[str, Any]:
    points = read_json(arm.folder / HISTORY)
    keys = ("epoch", "step", "training_loss", "validation")
    return {"arm": arm.arm, "seed": arm.seed, "points": [{k: p[k] for k in keys} for p in points]}


def _confusion(answers: Mapping[str, Array], labels: Array) -> dict[str, Any] | None:
    """Counts over all seeds of each arm together."""
    if next(iter(answers.values())).shape[-1] > MOST_CLASSES:
        return None
    return {
        name: np.sum([confusion(one, labels) for one in given], axis=0).tolist()
        for name, given in answers.items()
        if name != "student_int8"
    }


def _calibration(answers: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    result = {}
    for name, given in answers.items():
        every = np.concatenate(list(given))
        table = reliability(every, np.tile(labels, len(given)))
        result[name] = [{"confidence": c, "accuracy": a, "rows": n} for c, a, n in table]
    return result


def _scatter(answers: Mapping[str, Array], labels: Array) -> dict[str, Any]:
    """Label against prediction of the first target and seed, a sample of rows."""
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), MOST_POINTS)).astype(int)
    return {
        name: np.stack([labels[chosen, 0], given[0][chosen, 0]], axis=1).round(6).tolist()
        for name, given in answers.items()
        if name in ("student", "control", "teacher")
    }


def _slices(work: Work, answers: Mapping[str, Array], labels: Array) -> list[dict[str, Any]]:
    """Student minus control within every class, with the verdict's own interval."""
    if "control" not in answers:
        return []
    task = work.material.task
    assert isinstance(task, Classification)
    score = task.scores[0]
    rows = {
        name: np.stack([row_values(score, one, labels) for one in answers[name]])
        for name in ("student", "control")
    }
    found = []
    for number, name in enumerate(task.classes):
        here = labels == number
        if here.sum() < 2:
            continue
        student, control = rows["student"][:, here], rows["control"][:, here]
        verdict = judge(
            student,
            control,
            higher_is_better=score.higher_is_better,
            margin=work.recipe.evaluate.margin,
        )
        found.append(
            {
                "name": name,
                "rows": int(here.sum()),
                "student": float(student.mean()),
                "control": float(control.mean()),
                "difference": verdict.effect,
                "low": verdict.low,
                "high": verdict.high,
            }
        )
    return found


def _gallery(
    work: Work, answers: Mapping[str, Array], labels: Array, positions: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Rows whose soft labels say most, with the mean probabilities over seeds."""
    task = work.material.task
    shares = {name: task.readable(given).mean(axis=0) for name, given in answers.items()}
    control = shares.get("control", shares["student"])
    chosen = choose_rows(
        shares["teacher"], labels, shares["student"], control, count=MOST_ROWS,
        classes=task.classes if isinstance(task, Classification) else None,
    )  # fmt: skip
    rows = work.material.rows
    gallery = []
    for at, why in chosen:
        raw = rows.inputs[positions[at]]
        gallery.append(
            {
                "id": int(rows.ids[positions[at]]),
                "label": task.classes[int(labels[at])]
                if isinstance(task, Classification) and labels[at] >= 0
                else None,
                "image": png_data_uri(_pixels(raw, rows.inputs)) if rows.form == "image" else None,
                "values": None if rows.form == "image" else _values(work, int(positions[at])),
                "why": why,
                **{n: shares[n][at].round(4).tolist() for n in ("teacher", "student")},
                "control": shares["control"][at].round(4).tolist() if "control" in shares else None,
            }
        )
    return gallery


def _pixels(raw: Array, every: Array) -> NDArray[np.uint8]:
    """An image in 0..255, whatever range the source has (scikit-learn's digits stop at 16)."""
    low, high = 0.0, float(every[: min(len(every), 2000)].max())
    scaled = (raw.astype(np.float64) - low) * (255.0 / max(high, 1e-9))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _values(work: Work, at: int) -> dict[str, Any]:
    rows = work.material.rows
    columns = rows.columns or ()
    if rows.texts is not None:
        return {column.name: text for column, text in zip(columns, rows.texts[at], strict=True)}
    return {
        column.name: column.categories[int(value)] if column.categories else float(value)
        for column, value in zip(columns, rows.inputs[at], strict=False)
    }
