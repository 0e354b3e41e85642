"""Stage `transfer/heads`: what the models' features are worth for another task.

The models meet its rows only when they are finished. A linear head is fitted on each one's frozen
features, from the same few labelled rows, and all are scored on the same others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from understudy.errors import ModelError
from understudy.evaluate.quality import row_values
from understudy.evaluate.transfer import compare_features, crossed_half_width
from understudy.evaluate.verdict import unproved
from understudy.features.form import pooled
from understudy.features.hooks import capture
from understudy.folders import read_json, write_atomic, write_json
from understudy.models.deployable import Deployable, inner
from understudy.pipeline.distil import Trained, start, trained_module
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.other_task import ROWS, OtherTask, load_other
from understudy.pipeline.work import Work
from understudy.students.heads import fit_head, head_spot

Array = NDArray[Any]
HEADS, RESULT = "transfer/heads", "transfer.json"
_WORDS = {"untrained": "untrained student"}
_PAIRS = (("student", "control"), ("student", "untrained"), ("teacher", "student"))


def transfer(work: Work, arms: Sequence[Trained], loaded: Loaded) -> dict[str, Any] | None:
    """Do the stage `transfer/heads`; everything it found, as it goes into `run.json`.

    Raises:
        DataError: the rows have changed since they were chosen, or features are not finite.
        ModelError: a model has no such layer.
    """
    section = work.recipe.transfer
    if section is None:
        return None
    depends = {
        "rows": read_json(work.folder / ROWS / "stage.json")["fingerprint"],
        "arms": {
            f"{arm.arm}-{arm.seed}": read_json(arm.folder / "stage.json")["fingerprint"]
            for arm in arms
        },
        "teacher": loaded.summary["fingerprint"],
        "features": [section.features, section.teacher_features],
        "margin": work.recipe.evaluate.margin,
    }
    work.stage(HEADS, depends, lambda folder: _transfer(work, arms, loaded, folder))
    result: dict[str, Any] = read_json(work.folder / HEADS / RESULT)
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subject:
    """One model whose features are looked at."""

    name: str
    seed: int | None
    spot: str
    load: Callable[[], Deployable]

    @property
    def file(self) -> str:
        return f"{self.name}{'' if self.seed is None else f'-{self.seed}'}.safetensors"


def _transfer(work: Work, arms: Sequence[Trained], loaded: Loaded, folder: Path) -> dict[str, Any]:
    other, subjects = load_other(work), _subjects(work, arms, loaded)
    found: dict[str, list[dict[str, Array]]] = {}
    widths: dict[str, int] = {}
    with work.progress.track("transfer", len(subjects), "models") as tracker:
        for number, subject in enumerate(subjects):
            kept = folder / subject.file
            if not kept.is_file():
                write_atomic(kept, save_arrays(_judged(work, subject, other)))
            told = load_file(kept)
            found.setdefault(subject.name, []).append(told)
            widths[subject.name] = int(told["width"][0])
            tracker(number + 1, subject.name)
    result = _result(work, other, found, widths)
    write_json(folder / RESULT, result)
    return {"word": result["verdict"]["word"]}


def _subjects(work: Work, arms: Sequence[Trained], loaded: Loaded) -> list[_Subject]:
    section = work.recipe.transfer
    assert section is not None
    own = section.features
    subjects = [
        _Subject(name=arm.arm, seed=arm.seed, spot=own, load=partial(trained_module, work, arm))
        for arm in arms
    ]
    subjects += [
        _Subject(name="untrained", seed=seed, spot=own, load=partial(start, work, seed))
        for seed in work.recipe.seed_list
    ]
    teacher = loaded.module
    if teacher is not None:
        spot = section.teacher_features
        subjects.insert(0, _Subject(name="teacher", seed=None, spot=spot, load=lambda: teacher))
    return subjects


def _judged(work: Work, subject: _Subject, other: OtherTask) -> dict[str, Array]:
    """A head per draw on one model's features: the score of each, and what each test row says."""
    wanted = np.unique(other.labelled)
    every = np.concatenate([wanted, other.test])
    features = _features(work, subject, other.rows.inputs, every)
    train, test = features[: len(wanted)], features[len(wanted) :]
    assert other.rows.labels is not None
    labels, score = other.rows.labels, other.score
    kind: Literal["classification", "regression"] = (
        "regression" if other.rows.classes is None else "classification"
    )
    values, scores, penalties = [], [], []
    for drawn in other.labelled:
        head = fit_head(
            train[np.searchsorted(wanted, drawn)],
            labels[drawn],
            kind=kind,
            width=other.task.width,
            seed=work.recipe.data.seed,
        )
        answers = head(test)
        values.append(row_values(score, answers, labels[other.test]))
        scores.append(score.value(answers, labels[other.test]))
        penalties.append(head.penalty)
    return {
        "values": np.stack(values),
        "scores": np.array(scores),
        "penalties": np.array(penalties),
        "width": np.array([features.shape[1]]),
    }


def _features(work: Work, subject: _Subject, inputs: Array, positions: Array) -> Array:
    """One vector per row, `[rows, width]` float32: what the layer gives in evaluation mode."""
    module, size = subject.load().eval(), work.recipe.evaluate.batch_size
    network = inner(module)
    few = torch.from_numpy(np.array(inputs[positions[:2]]))
    spot = subject.spot or head_spot(network, module.preprocess(few))
    parts = []
    for first in range(0, len(positions), size):
        rows = torch.from_numpy(np.array(inputs[positions[first : first + size]]))
        with torch.inference_mode(), capture(network, [spot]) as captured:
            module(rows)
        found = captured.found()[spot]
        if found.ndim < 2 or len(found) != len(rows):
            raise ModelError(
                f"features must have one vector, map or sequence per row, but `{spot}` of the "
                f"{subject.name} gives {list(found.shape)} for {len(rows)} rows: name another layer"
            )
        parts.append(pooled(found).flatten(1).float().numpy())
    return np.concatenate(parts)


def _result(
    work: Work,
    other: OtherTask,
    found: Mapping[str, list[dict[str, Array]]],
    widths: Mapping[str, int],
) -> dict[str, Any]:
    summary = read_json(work.folder / ROWS / "stage.json")["summary"]
    tables = {name: np.stack([one["values"] for one in told]) for name, told in found.items()}
    models = {
        name: _model(tables[name], np.stack([one["scores"] for one in told]), widths[name])
        for name, told in found.items()
    }
    score, margin = other.score, work.recipe.evaluate.margin
    comparisons = {
        f"{one}_{two}": asdict(
            compare_features(
                tables[one],
                tables[two],
                higher_is_better=score.higher_is_better,
                margin=margin,
                names=(_WORDS.get(one, one), _WORDS.get(two, two)),
                score=score.name,
                unit=score.unit,
            )
        )
        for one, two in _PAIRS
        if one in tables and two in tables
    }
    verdict = comparisons.get("student_control")
    if verdict is None:
        verdict = asdict(unproved("`control: false`: without a control nothing was proved"))
    return {
        "task": summary["task"],
        "rows": summary["rows"],
        "score": {
            "name": score.name,
            "unit": score.unit,
            "higher_is_better": score.higher_is_better,
        },
        "models": models,
        "comparisons": comparisons,
        "verdict": {"word": str(verdict["word"]), "sentence": verdict["sentence"]},
    }


def _model(table: Array, scores: Array, width: int) -> dict[str, Any]:
    value, half = float(scores.mean()), crossed_half_width(table)
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "features": width,
        "per_seed": scores.mean(axis=1).tolist(),
        "per_draw": scores.mean(axis=0).tolist(),
    }
