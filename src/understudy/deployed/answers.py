"""Rows of numbers become answers for people and for JSON."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed.session import Deployed
from understudy.errors import ExportError


def answers(outputs: NDArray[Any], deployed: Deployed, *, top: int = 3) -> list[dict[str, Any]]:
    """One plain dictionary per row of `[rows, width]` outputs.

    A classifier gives `class`, `probability` (by the softmax of its logits) and the `top` likely
    classes, the likeliest first. An encoder gives its `vector`. Everything else gives `values`, by
    the name of each number.

    Raises:
        ExportError: the file names more or fewer classes or targets than it answers with.
    """
    if deployed.task == "classification" or (deployed.task is None and deployed.classes):
        names = _named(deployed.classes, "classes", outputs, deployed)
        return [_classified(row, names, top) for row in _softmax(outputs)]
    if deployed.task == "embedding":
        return [{"vector": [float(value) for value in row]} for row in outputs]
    names = _named(deployed.targets, "targets", outputs, deployed)
    return [
        {"values": {name: float(value) for name, value in zip(names, row, strict=True)}}
        for row in outputs
    ]


def _classified(row: NDArray[np.float64], names: tuple[str, ...], top: int) -> dict[str, Any]:
    order = np.argsort(-row, kind="stable")[: max(top, 1)]
    likely = [{"class": names[at], "probability": float(row[at])} for at in order]
    return {**likely[0], "top": likely}


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _named(
    names: tuple[str, ...] | None, kind: str, outputs: NDArray[Any], deployed: Deployed
) -> tuple[str, ...]:
    width = outputs.shape[1] if outputs.ndim == 2 else None
    if width is None or (names is not None and len(names) != width):
        raise ExportError(
            f"answers must be [rows, width] with one number for each of the {kind}, but "
            f"{deployed.path.name} names {'none' if names is None else len(names)} and answered "
            f"{list(outputs.shape)}; export it again with the {kind} of its data"
        )
    return tuple(str(at) for at in range(width)) if names is None else names
