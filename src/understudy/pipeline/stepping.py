"""Stage `steps`: what the student was worth after every step, and what it cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn

from understudy.errors import ExportError
from understudy.evaluate.cost import onnx_cost, parameters, torch_cost
from understudy.evaluate.quality import Score, interval
from understudy.export.onnx import export_onnx
from understudy.folders import read_json, write_json
from understudy.models.deployable import Deployable
from understudy.pipeline.asking import predict, truth
from understudy.pipeline.distil import Trained, start, trained_module
from understudy.pipeline.judge import ANSWERS, test_rows
from understudy.pipeline.without_labels import labelled, primary_score
from understudy.pipeline.work import Work

TABLE = "steps.json"


def step_rows(work: Work, arms: Sequence[Trained], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Do the stage; a row per step, from the teacher to the quantised file.

    A run of one step on a fresh student has no such table: its models are all there is to say.

    Args:
        work: the run.
        arms: every trained one.
        found: what the stage `evaluate` found.
    """
    recipe = work.recipe
    if len(recipe.steps) == 1 and not recipe.student.inherits:
        return []
    evaluated = read_json(work.folder / "evaluate" / "stage.json")["fingerprint"]
    work.stage("steps", {"evaluate": evaluated}, lambda folder: _steps(work, arms, folder))
    middle: list[dict[str, Any]] = read_json(work.folder / "steps" / TABLE)
    rows = [_known("teacher", found["models"]["teacher"]), *middle]
    if "student_int8" in found["models"]:
        form = recipe.quantized.form if recipe.quantized is not None else "int8"
        rows.append(_known(form, found["models"]["student_int8"]) | {"zeros": rows[-1]["zeros"]})
    return rows


def _known(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """A row from what was measured of a model already."""
    return {
        "name": name,
        "scores": model["scores"],
        "parameters": model["parameters"],
        "flops": model["flops"],
        "bytes": model["bytes"],
        "latency_ms": {k: model["latency_ms"][k] for k in ("batch1", "batch32")},
        "zeros": None,
    }


def _steps(work: Work, arms: Sequence[Trained], folder: Path) -> dict[str, Any]:
    students = [arm for arm in arms if arm.arm == "student"]
    kind = work.recipe.student
    first = "stitched" if kind.blockwise is not None else "cut" if kind.from_teacher else "start"
    rows = [_row(work, first, [start(work, arm.seed) for arm in students], folder)]
    for number, step in enumerate(work.recipe.steps):
        if step.kind == "quantize" and not step.aware:
            continue
        modules = [trained_module(work, arm, step=number) for arm in students]
        rows.append(_row(work, f"{number + 1} {step.kind}", modules, folder))
    write_json(folder / TABLE, rows)
    return {"rows": len(rows)}


def _row(work: Work, name: str, modules: list[Deployable], folder: Path) -> dict[str, Any]:
    """Scores over all seeds, costs of the first one."""
    task, positions = work.material.task, test_rows(work)
    right = truth(work, positions)
    labels = right.labels
    given = np.stack([predict(module.eval(), work, positions) for module in modules])
    scores = {}
    known = labelled(work, labels)
    for score in task.scores if known else (_likeness(work, labels),):
        draws = work.recipe.evaluate.draws
        one = interval(right.rows(score), given.astype(np.float64), labels, draws=draws)
        scores[score.name] = {
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "higher_is_better": score.higher_is_better,
        }
    module = modules[0]
    rows = torch.from_numpy(work.material.timed(32))
    path = folder / "step.onnx"
    seconds = work.recipe.evaluate.latency_seconds
    try:
        export_onnx(module, rows[:4], path, metadata={})
        cost = onnx_cost(path, rows.numpy(), seconds=seconds)
    except ExportError:
        cost = torch_cost(module, rows, seconds=seconds)
    path.unlink(missing_ok=True)
    told = cost.as_dict()
    return {
        "name": name,
        "scores": scores,
        "parameters": parameters(module),
        "flops": None,
        "bytes": told["bytes"],
        "latency_ms": {k: told["latency_ms"][k] for k in ("batch1", "batch32")},
        "zeros": _zeros(module),
    }


def _likeness(work: Work, labels: NDArray[Any]) -> Score:
    """What rows without labels are scored by: the answers of the teacher to them."""
    teacher = load_file(work.folder / "evaluate" / ANSWERS)["teacher"][0]
    return primary_score(work, teacher, labels)


def _zeros(module: nn.Module) -> float:
    """The share of the weights that are exactly zero, biases and norms left out."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    count = sum(p.numel() for p in weights)
    return sum(int((p == 0).sum()) for p in weights) / count if count else 0.0
