"""Student against control in every class of a task that is asked per token: the class's own F1."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError
from understudy.evaluate.by_row import class_f1
from understudy.evaluate.quality import row_values
from understudy.evaluate.verdict import judge
from understudy.pipeline.asking import Truth
from understudy.pipeline.work import Work
from understudy.tasks import TokenClassification


def by_class(work: Work, answers: Mapping[str, NDArray[Any]], told: Truth) -> list[dict[str, Any]]:
    """Per class its F1 of both arms and their difference, with texts as what is drawn.

    A class that stands in one text alone has no such comparison and is left out.
    """
    task = work.material.task
    if "control" not in answers or not isinstance(task, TokenClassification):
        return []
    found = []
    for number, name in enumerate(task.classes):
        score = class_f1(number)
        arms = {arm: answers[arm].astype(np.float64) for arm in ("student", "control")}
        try:
            rows = {
                arm: np.stack([row_values(told.rows(score), one, told.labels) for one in given])
                for arm, given in arms.items()
            }
        except DataError:
            continue
        verdict = judge(
            rows["student"],
            rows["control"],
            higher_is_better=True,
            margin=work.recipe.evaluate.margin,
        )
        values = {
            arm: float(np.mean([score.value(one, told.labels) for one in given]))
            for arm, given in arms.items()
        }
        found.append(
            {
                "name": name,
                "rows": int((told.labels == number).sum()),
                **values,
                "difference": verdict.effect,
                "low": verdict.low,
                "high": verdict.high,
            }
        )
    return found
