"""What the report maps: where teacher and student place test rows by what they see in them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.errors import ModelError
from understudy.features.hooks import capture
from understudy.models.deployable import Deployable
from understudy.pipeline.distil import Trained, trained_module
from understudy.pipeline.judge import test_rows
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.work import Work
from understudy.report.maps import project
from understudy.students.heads import head_spot
from understudy.tasks import Classification

ROWS = 300


def feature_map(work: Work, arms: Sequence[Trained], loaded: Loaded) -> dict[str, Any] | None:
    """Two coordinates per row and model; None where the teacher is no PyTorch classifier.

    The features are what the last linear layer reads. Nothing is chosen by them.
    """
    task = work.material.task
    if loaded.module is None or not isinstance(task, Classification):
        return None
    every = test_rows(work)
    if not task.labelled_rows(work.material.all_labels.numpy()[every]).all():
        return None  # points are drawn by their class
    positions = every[np.linspace(0, len(every) - 1, min(ROWS, len(every))).astype(np.int64)]
    first = next(arm for arm in arms if arm.arm == "student")
    try:
        seen = [
            _features(module, material.inputs[torch.from_numpy(positions)])
            for module, material in (
                (loaded.module, work.teaching),
                (trained_module(work, first), work.material),
            )
        ]
    except ModelError:  # a network without a last linear layer
        return None
    kind: Literal["pca", "tsne"] = "tsne" if len(positions) >= 30 else "pca"
    placed = project(seen[0], seen[1], kind=kind)
    labels = work.material.all_labels.numpy()[positions]
    names = [task.classes[int(label)] for label in labels]
    points = [
        [[round(float(x), 3), round(float(y), 3), name]
         for (x, y), name in zip(one, names, strict=True)]
        for one in placed
    ]  # fmt: skip
    return {"kind": kind, "teacher": points[0], "student": points[1]}


def importance_of(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The importance of every block, as the stage `student` wrote it down, for the report."""
    found = summary.get("importance")
    if found is None:
        return None
    paths = list(found["alone"]) or list(found["scores"])
    blocks = [
        {
            "path": path,
            "score": found["scores"].get(path),
            "low": found["low"].get(path),
            "high": found["high"].get(path),
            "kept": path in found["kept"],
        }
        for path in paths
    ]
    return {"by": found["by"], "blocks": blocks, "explained": found["explained"]}


def _features(module: Deployable, rows: Tensor) -> NDArray[Any]:
    with torch.inference_mode():
        fed = module.preprocess(rows)
        spot = head_spot(module.network, fed[:2])
        with capture(module.network, [spot]) as captured:
            module.network.eval()(fed)
        return captured.found()[spot].flatten(1).float().numpy()
