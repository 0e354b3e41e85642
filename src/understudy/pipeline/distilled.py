"""What `distill` gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

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
