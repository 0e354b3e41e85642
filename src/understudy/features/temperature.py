"""The adapter `temperature`: a temperature that learns to make the student's task harder."""

import math

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import Adapted, Shape, check_pairs


class Temperature(nn.Module):
    """One learned temperature for all rows, `start + span * sigmoid(theta)`, against the student.

    Its gradient is multiplied by a strength that goes from 0 to -1 by a cosine over `epochs`: at
    first the temperature stands still, then it climbs the loss that the student descends. Theta
    starts at 1, so that the temperature starts at `start + 0.731 * span`, not at `start`.

    `values["temperature"]` holds one scalar tensor per pair. Student and teacher pass as they are.
    Whoever trains calls `set_progress` before each step; until then nothing is learned. The
    authors count epochs from 1 and change the strength once per epoch: `set_progress(number of the
    epoch, from 1)` is their schedule, a fraction of an epoch a smooth one.

    Args:
        student: shapes of the student's answers, one row each.
        teacher: shapes of the teacher's.
        start: the lowest temperature.
        span: how far above it the temperature may go.
        epochs: over which the strength is reached; the authors use 10, and 5 on ImageNet.
        strength: what the gradient is multiplied with in the end; below 0.

    Raises:
        ModelError: a constant is not what it must be.

    Paper:
        Li et al. 2023, "Curriculum Temperature for Knowledge Distillation", section 3, the
        global form. Their text negates a positive strength; their code multiplies by a
        negative one, which is the same.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        start: float | int = 1.0,
        span: float | int = 20.0,
        epochs: float | int = 10.0,
        strength: float | int = -1.0,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        if not (0 < start < math.inf and 0 < span < math.inf):
            raise ModelError(
                f"`start > 0` and `span > 0` must hold, but got {start=}, {span=}: usual is 1 and "
                "20"
            )
        if not (0 < epochs < math.inf and -math.inf < strength < 0):
            raise ModelError(
                f"`epochs > 0` and `strength < 0` must hold, but got {epochs=}, {strength=}: usual "
                "is 10 and -1; a positive strength would make the student's task easier"
            )
        self.start, self.span = start, span
        self.epochs, self.full = epochs, strength
        self.theta = nn.Parameter(torch.ones(()))
        # A buffer, so that a resumed run goes on with the strength it had.
        self.strength: Tensor
        self.register_buffer("strength", torch.zeros(()))

    def set_progress(self, epoch: float | int) -> None:
        """Say how far training is; the strength follows."""
        share = min(1.0, max(0.0, epoch / self.epochs))
        self.strength.fill_(self.full * (1 - math.cos(math.pi * share)) / 2)

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The same features, and the temperature."""
        del batch
        # Equal to theta in value; only the way back is scaled.
        theta = self.theta.detach() + self.strength * (self.theta - self.theta.detach())
        temperature = self.start + self.span * torch.sigmoid(theta)
        return Adapted(
            student=student,
            teacher=[goal.detach() for goal in teacher],
            values={"temperature": [temperature for _ in student]},
        )
