"""Stage `export`: the student alone as ONNX, fp32 and int8, each checked from its file."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy import __version__
from understudy.errors import ExportError
from understudy.export.forms import Form, make_form
from understudy.export.onnx import export_onnx
from understudy.export.parity import check_parity
from understudy.folders import read_json
from understudy.models.deployable import Deployable
from understudy.pipeline.asking import of_file, predict
from understudy.pipeline.chain import learned_ranges
from understudy.pipeline.distil import Trained, trained_module
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.prepare import run_tokenizer
from understudy.pipeline.sentence_folder import save_folders
from understudy.pipeline.work import FACTS, Material, Work
from understudy.pipeline.writing import decoders
from understudy.recipe import QuantizeStep
from understudy.tasks import (
    Classification,
    Embedding,
    LanguageModel,
    Regression,
    TokenClassification,
)

# Raw values up to here are no 8-bit pictures.
COARSE = 16
# Of a file that is compared with its module, in one go.
MOST_NUMBERS = 20_000_000
_FORM = {"form", "calibration", "calibration_rows", "reduce_range"}
STUDENT, STUDENT_INT8 = "student.onnx", "student.int8.onnx"


def chosen_seed(work: Work, arms: Sequence[Trained]) -> int:
    """The seed to deploy: the best on validation rows, the first of equals."""
    students = [arm for arm in arms if arm.arm == "student"]
    sign = 1.0 if work.material.task.scores[0].higher_is_better else -1.0
    scores = [arm.summary["validation"] for arm in students]
    if any(score is None for score in scores):
        return students[0].seed
    return students[int(np.argmax([sign * score for score in scores]))].seed


def export(work: Work, arms: Sequence[Trained], loaded: Loaded) -> dict[str, Any]:
    """Do the stage; its summary."""
    depends = {
        "arms": {
            f"{arm.arm}-{arm.seed}": read_json(arm.folder / "stage.json")["fingerprint"]
            for arm in arms
        },
        "teacher": loaded.summary["fingerprint"],
        "export": work.recipe.export.model_dump(mode="json"),
        "quantized": None
        if work.recipe.quantized is None
        else work.recipe.quantized.model_dump(mode="json", include=_FORM),
    }
    summary: dict[str, Any] = work.stage(
        "export", depends, lambda folder: _export(work, arms, loaded, folder)
    )
    work.notes.extend(summary["notes"])
    return summary


def _export(work: Work, arms: Sequence[Trained], loaded: Loaded, folder: Path) -> dict[str, Any]:
    deployed = chosen_seed(work, arms)
    notes: list[str] = []
    parity: dict[str, Any] = {}
    students = [arm for arm in arms if arm.arm == "student"]
    with work.progress.track("export", len(arms) + 1, "models") as tracker:
        for number, arm in enumerate(students):
            name = f"student-{arm.seed}"
            module = trained_module(work, arm)
            parity[name] = _file(work, module, folder / f"{name}.onnx", f"{name}")
            if work.recipe.quantized is not None:
                parity[f"{name}-int8"] = _small(work, module, folder, arm, work.recipe.quantized)
            tracker(number + 1)
        shutil.copyfile(folder / f"student-{deployed}.onnx", folder / STUDENT)
        if work.recipe.quantized is not None:
            shutil.copyfile(folder / f"student-{deployed}.int8.onnx", folder / STUDENT_INT8)
        for arm in arms:
            if arm.arm == "control" and arm.seed == deployed:
                _try_file(work, trained_module(work, arm), folder / "control.onnx", notes)
        if loaded.module is not None:
            _try_file(work, loaded.module, folder / "teacher.onnx", notes, work.teaching)
        if isinstance(work.material.task, LanguageModel):
            own = next(arm for arm in students if arm.seed == deployed)
            small = work.recipe.quantized is not None
            parity |= decoders(work, trained_module(work, own), folder, notes, small=small)
        if isinstance(work.material.task, Embedding):
            own = next(arm for arm in students if arm.seed == deployed)
            told, more = save_folders(work, trained_module(work, own), folder / STUDENT, folder)
            parity, notes = parity | told, [*notes, *more]
        tracker(len(arms) + 1)
    return {"seed": deployed, "parity": parity, "notes": notes}


def _file(
    work: Work, module: Deployable, path: Path, name: str, material: Material | None = None
) -> dict[str, Any]:
    own = material or work.material
    rows = own.inputs[own.splits.train[:4]]
    told = metadata(work, name)
    if own is not work.material and own.tokenizer is not None:
        told["tokenizer"] = json.dumps(own.tokenizer.describe())
    export_onnx(module, rows, path, metadata=told)
    if own is not work.material:
        return _check_own(module, path, own.inputs[_checked(work)])
    return _parity(work, module, path)


def _check_own(module: Deployable, path: Path, rows: Tensor) -> dict[str, Any]:
    """Hold a file against its module on rows in tokens of its own."""
    with torch.inference_mode():
        told = module(rows).float().numpy()
    found = check_parity(told, path, rows.numpy(), atol=1e-3, rtol=1e-3)
    return {
        "rows": len(rows),
        "max_difference": found.max_abs_difference,
        "same_answer": found.same_argmax,
    }


def _parity(work: Work, module: Deployable, path: Path, *, loose: bool = False) -> dict[str, Any]:
    positions = _checked(work)
    scale = 1.0
    if isinstance(work.material.task, Regression):
        scale = max(work.material.task.std)
    limits = (float("inf"), float("inf")) if loose else (1e-3 * scale, 1e-3)
    found = check_parity(
        predict(module, work, positions, whole=True),
        path,
        work.material.rows.inputs[positions],
        atol=limits[0],
        rtol=limits[1],
        ask=lambda session: of_file(session, work, positions, whole=True),
    )
    return {
        "rows": len(positions),
        "max_difference": found.max_abs_difference,
        "same_answer": found.same_argmax,
    }


def _checked(work: Work) -> NDArray[np.int64]:
    splits, most = work.material.splits, 256
    if work.material.counted is not None:  # answers over a large vocabulary are large
        per_row = work.material.inputs.shape[1] * work.material.task.width
        most = max(2, min(most, MOST_NUMBERS // per_row))
    return splits.validation[:most] if len(splits.validation) >= 16 else splits.train[:most]


def _small(
    work: Work, module: Deployable, folder: Path, arm: Trained, step: QuantizeStep
) -> dict[str, Any]:
    """The quantised form of an arm's file, and how its answers differ."""
    splits, name = work.material.splits, f"student-{arm.seed}"
    count = min(step.calibration_rows, len(splits.train))
    order = np.random.Generator(np.random.Philox(key=work.recipe.data.seed))
    positions = np.sort(order.choice(splits.train, count, replace=False))
    path = folder / f"{name}.int8.onnx"
    make_form(
        folder / f"{name}.onnx",
        path,
        Form(kind=step.form, method=step.calibration, reduce_range=step.reduce_range),
        rows=work.material.rows.inputs[positions],
        learned=learned_ranges(arm.folder),
    )
    return _parity(work, module, path, loose=True)


def _try_file(
    work: Work,
    module: Deployable,
    path: Path,
    notes: list[str],
    material: Material | None = None,
) -> None:
    """Export for measuring; a model that cannot be is timed in PyTorch instead."""
    try:
        _file(work, module, path, path.stem, material)
    except ExportError as error:
        path.unlink(missing_ok=True)
        notes.append(
            f"the {path.stem} cannot be exported ({str(error).splitlines()[0]}); "
            "it is timed in PyTorch"
        )


def _scale(work: Work) -> float | None:
    """The brightest value of pictures that are not in 0..255, such as 16 for digits; else None.

    With it, `predict` brings an ordinary picture file into the range of the training rows.
    """
    rows = work.material.rows
    if rows.form != "image" or rows.inputs.dtype != np.uint8:
        return None
    brightest = float(rows.inputs[work.material.splits.train].max())
    return brightest if brightest <= COARSE else None


def metadata(work: Work, name: str) -> dict[str, str]:
    """What an exported file says of itself."""
    facts = read_json(work.folder / "data" / FACTS)
    task = work.material.task
    values: dict[str, Any] = {
        "format": 1,
        "model": name,
        "task": task.name,
        "output": task.output,
        "classes": list(task.classes)
        if isinstance(task, Classification | TokenClassification)
        else None,
        "targets": list(task.targets) if isinstance(task, Regression) else None,
        "columns": facts["columns"] or None,
        "form": work.material.rows.form,
        "scale": _scale(work),
        "data": work.material.fingerprint,
        "understudy": __version__,
    }
    if work.material.tokens is not None:
        values["tokenizer"] = run_tokenizer(work).describe()
    return {key: json.dumps(value) for key, value in values.items()}
