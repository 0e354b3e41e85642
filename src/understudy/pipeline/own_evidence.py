"""The evidence of `distill`: teacher, students and controls on somebody's own test rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy.contracts import Teacher
from understudy.errors import DataError
from understudy.evaluate.quality import interval, row_values
from understudy.evaluate.verdict import Verdict, gap_closed, judge, unproved
from understudy.models.deployable import read_answer
from understudy.pipeline.own_loaders import Loader
from understudy.tasks import AnyTask

Array = NDArray[Any]


def evidence(
    task: AnyTask,
    teacher: Teacher,
    arms: Mapping[str, Mapping[int, nn.Module]],
    test: Loader | None,
    margin: float,
    alone: str,
) -> tuple[Verdict, float | None, dict[str, Any]]:
    """The verdict, the share of the gap closed, and every model's scores.

    Args:
        task: what was asked.
        teacher: what the students learned from.
        arms: the modules of `student` and `control` by seed; a control may be absent.
        test: rows to judge by, or none.
        margin: the smallest difference that matters.
        alone: why there is no control, where there is none.
    """
    if test is None:
        return unproved("no test rows were given, so nothing was proved"), None, {}
    answers, labels = _answers(task, teacher, arms, test)
    known = bool(task.labelled_rows(labels).any())
    scores: dict[str, Any] = {}
    for name, given in answers.items():
        wanted = [*task.scores] if known else []
        if name != "teacher":
            wanted.extend(task.fidelity(answers["teacher"][0]))
        found = {s.name: interval(s, given, labels) for s in wanted}
        scores[name] = {
            key: {"value": i.value, "low": i.low, "high": i.high} for key, i in found.items()
        }
    if not known:
        return unproved("no test row has a label, so nothing was proved"), None, scores
    if "control" not in answers:
        return unproved(alone), None, scores
    primary = task.scores[0]
    rows = {n: np.stack([row_values(primary, o, labels) for o in a]) for n, a in answers.items()}
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
    return verdict, gap, scores


def _answers(
    task: AnyTask,
    teacher: Teacher,
    arms: Mapping[str, Mapping[int, nn.Module]],
    loader: Loader,
) -> tuple[dict[str, Array], Array]:
    """Answers `[seeds, rows, width]` of every model to the labelled test rows, and their labels.

    Where no row has a label, to all of them.
    """
    parts: dict[tuple[str, int], list[Array]] = {}
    labels: list[Array] = []
    for batch in loader:
        if batch.labels is None:
            raise DataError("test batches must have labels")
        labels.append(batch.labels.numpy())
        said = teacher(batch).tensor(task.output)
        parts.setdefault(("teacher", 0), []).append(said.numpy())
        for arm, modules in arms.items():
            for seed, module in modules.items():
                with torch.inference_mode():
                    answer = read_answer(module(batch.inputs), task.width)
                parts.setdefault((arm, seed), []).append(answer.float().numpy())
    every = np.concatenate(labels)
    keep = task.labelled_rows(every)
    keep = keep if keep.any() else np.ones_like(keep)
    names = [n for n in ("teacher", "student", "control") if any(k[0] == n for k in parts)]
    stacked = {
        name: np.stack(
            [
                np.concatenate(v)[keep].astype(np.float64)
                for (arm, _), v in parts.items()
                if arm == name
            ]
        )
        for name in names
    }
    return stacked, every[keep]
