"""What the models of a run cost: time, size and work, from their files where there are some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.evaluate.cost import Cost, flops, onnx_cost, parameters, torch_cost
from understudy.export.onnx import stored_parameters
from understudy.models.deployable import Deployable
from understudy.pipeline.deploy import STUDENT, STUDENT_INT8
from understudy.pipeline.distil import Trained, trained_module
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.members import own_preprocess, weights_name
from understudy.pipeline.work import Material, Work
from understudy.pipeline.zero_shot import alone

Array = NDArray[Any]


def costs_of(
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
    fed = dict.fromkeys(files, rows) | {"teacher": work.teaching.timed(32)}
    preprocess = own_preprocess(work, work.recipe.teacher)
    if onnx_teacher is not None and preprocess is not None:
        fed["teacher"] = preprocess(torch.from_numpy(np.array(rows))).numpy()
    reads = {name: work.teaching if name == "teacher" else work.material for name in files}
    found = {name: _cost(work, files[name], modules[name], fed[name], reads[name])
             for name in files}  # fmt: skip
    if onnx_teacher is not None:
        found["teacher"]["parameters"] = stored_parameters(files["teacher"])
    elif work.recipe.teacher.ensemble:
        found["teacher"]["parameters"] = loaded.summary["parameters"]
    elif work.recipe.teacher.zero_shot is not None and loaded.module is None:
        path = work.folder / "teacher" / weights_name(0)
        module, own = alone(work, work.recipe.teacher.zero_shot, path)
        seconds = work.recipe.evaluate.latency_seconds
        found["teacher"] |= torch_cost(module, own, seconds=seconds).as_dict()
        found["teacher"]["parameters"] = loaded.summary["parameters"]
    return found


def _cost(
    work: Work, path: Path, module: Deployable | None, rows: Array, material: Material
) -> dict[str, Any]:
    seconds = work.recipe.evaluate.latency_seconds
    cost: Cost | None = None
    if path.is_file():
        cost = onnx_cost(path, rows, seconds=seconds)
    elif module is not None:
        cost = torch_cost(module, torch.from_numpy(np.array(rows)), seconds=seconds)
    result: dict[str, Any] = {
        "parameters": None if module is None else parameters(module),
        "flops": None if module is None else flops(module, torch.from_numpy(material.timed(1))),
        "bytes": None,
        "latency_ms": {"batch1": None, "batch32": None, "detail": []},
        "peak_memory_mb": None,
        "runtime": None,
    }
    return result | (cost.as_dict() if cost is not None else {})
