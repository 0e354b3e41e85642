"""What `distill` gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError
from understudy.evaluate.verdict import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """What `distill` came to.

    Attributes:
        student: the module to deploy, the seed chosen on validation rows; raw rows to answers.
        seed: which.
        verdict: whether distillation helped.
        gap_closed: the share of the way from control to teacher; None where that is not clear.
        scores: per model and score its value and interval on the test rows.
        students: every seed's student.
        controls: every seed's control.
        notes: what the reader of these numbers should know.
        onnx: the exported file, where `out` was given.
        classes: their names in the order of the answers, where they have names.
        tokenizer: what makes rows of texts, where rows are texts.
    """

    student: nn.Module
    seed: int
    verdict: Verdict
    gap_closed: float | None
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    students: Mapping[int, nn.Module]
    controls: Mapping[int, nn.Module]
    notes: tuple[str, ...]
    onnx: Path | None
    classes: tuple[str, ...] | None = None
    tokenizer: Tokenizer | None = None

    def predict(self, rows: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
        """The student's answers, `[rows, width]`: logits, or values of a regression.

        Args:
            rows: texts or pairs of them where it learned from texts, else raw rows.

        Raises:
            DataError: a text is empty, or something is no text.
        """
        fed = np.asarray(rows) if self.tokenizer is None else _encoded(rows, self.tokenizer)
        with torch.inference_mode():
            answer: NDArray[np.float32] = self.student(torch.from_numpy(fed)).float().numpy()
        return answer


def _encoded(texts: Sequence[Any] | NDArray[Any], tokenizer: Tokenizer) -> NDArray[np.int32]:
    whole = [tuple(text) if isinstance(text, list | tuple) else (text,) for text in texts]
    sizes = {len(row) for row in whole}
    plain = all(isinstance(part, str) and part.strip() for row in whole for part in row)
    if isinstance(texts, str) or len(sizes) != 1 or max(sizes) > 2 or not plain:
        raise DataError(
            "`predict` takes a list of texts, or of pairs of them, each with something to read: "
            "leave empty ones out"
        )
    pairs = [row[1] for row in whole] if sizes == {2} else None
    return tokenizer([row[0] for row in whole], pairs)
