"""Any callable as teacher: raw rows as a NumPy array in, one row of numbers per row out.

An ONNX file, a scikit-learn pipeline's `predict_proba`, a function that asks a server: whoever
can answer can teach.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge
from understudy.errors import ModelError
from understudy.models.deployable import read_answer

# Probabilities of exactly 0 have no logarithm; this one is far below what a float32 softmax
# distinguishes from 0, and stays finite in half precision.
SMALLEST = 1e-7


class PredictorTeacher:
    """A function of rows. `answers` says whether these are logits (or values) or probabilities."""

    def __init__(
        self,
        predict: Callable[[NDArray[Any]], Any],
        *,
        output: str,
        width: int,
        answers: Literal["logits", "probabilities"] = "logits",
        preprocess: nn.Module | None = None,
    ) -> None:
        """Wrap the callable.

        Args:
            predict: rows `[batch, ...]` to answers `[batch, width]`.
            output: what its answer is called as knowledge.
            width: how many numbers per row the task asks for.
            answers: probabilities become log-probabilities, which are logits.
            preprocess: applied to the raw rows before `predict`, where it wants scaled ones.
        """
        self._predict, self._output, self._width = predict, output, width
        self._answers, self._preprocess = answers, preprocess

    @property
    def offers(self) -> frozenset[str]:
        """Its answer."""
        return frozenset({self._output})

    def __call__(self, batch: Batch) -> Knowledge:
        """Its answer to the batch.

        Raises:
            ModelError: an answer of another shape, or probabilities that are said to be logits.
        """
        inputs = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        if self._preprocess is not None:
            with torch.no_grad():
                inputs = self._preprocess(inputs)
        # A copy: what the user's function does to its rows must not reach the student's.
        found = self._predict(inputs.detach().cpu().numpy().copy())
        answer = found if isinstance(found, Tensor) else torch.from_numpy(np.array(found))
        answer = read_answer(answer.detach().float(), self._width)
        if len(answer) != len(batch):
            raise ModelError(
                f"a teacher must answer one row per row, but to {len(batch)} it gave {len(answer)}"
            )
        fields = {self._output: self._as_logits(answer).to(batch.inputs.device)}
        return Knowledge(fields=fields)

    def _as_logits(self, answer: Tensor) -> Tensor:
        if self._output != "logits":
            return answer
        # A row that is not finite is refused, or left out, by whoever looks after that.
        told = answer[answer.isfinite().all(dim=1)]
        if not len(told):
            return answer
        sums_to_one = bool(((told >= 0).all()) & ((told.sum(dim=1) - 1).abs() < 1e-3).all())
        if self._answers == "probabilities":
            if not sums_to_one:
                raise ModelError(
                    "`answers: probabilities` needs rows that are not negative and sum to 1, but "
                    f"row 0 is {answer[0, :4].tolist()}...: use `answers: logits`"
                )
            return answer.clamp_min(SMALLEST).log()
        if sums_to_one and self._width > 1:
            raise ModelError(
                "the teacher is said to answer with logits, but every row is a distribution "
                f"(row 0: {answer[0, :4].tolist()}...): set `teacher.answers: probabilities`"
            )
        return answer
