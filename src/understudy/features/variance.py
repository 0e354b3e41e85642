"""The adapter `variance`: what the student predicts of the teacher, and how sure it may be."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import Adapted, Shape, check_kinds, check_pairs, width_of
from understudy.features.resizing import both_at, smaller

_REMEDY = "name layers of one kind, as many tokens on both sides"


class Variance(nn.Module):
    """The mean and the variance of the teacher's features, predicted from the student's.

    The mean is three 1x1 convolutions without bias and ReLU between them (linear layers for tokens
    and vectors), as wide as the teacher. The variance is one number per channel, the same for every
    row: `softplus(log_scale) + eps`. Maps of different sizes are averaged down to the smaller, on
    the teacher's side too, as the authors do.

    `values["log_scale"]` holds one `[channels]` tensor per pair of layers; it learns.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        variance: what the variance starts from.
        eps: what it cannot fall below; the loss must be given the same.

    Raises:
        ModelError: a pair is of two kinds, or of different numbers of tokens, or the variance is
            not above `eps`.

    Paper:
        Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer", section
        2. Regressor and start are those of the authors' code.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        variance: float | int = 5.0,
        eps: float | int = 1e-5,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        if not 0 < eps < variance < math.inf:
            raise ModelError(
                f"`0 < eps < variance` must hold, but got {eps=}, {variance=}: usual is 1e-5 and 5"
            )
        self.sizes: list[tuple[int, int] | None] = []
        self.means = nn.ModuleList()
        self.log_scales = nn.ParameterList()
        # softplus(start) + eps is the variance; this form does not overflow.
        start = variance - eps + math.log(-math.expm1(eps - variance))
        for own, goal in zip(student, teacher, strict=True):
            self.sizes.append(_size(own, goal))
            self.means.append(_regressor(own, goal))
            self.log_scales.append(torch.full((width_of(goal),), start))

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The predicted means, and `log_scale` per pair of layers."""
        del batch
        means, goals = [], []
        for mean, size, own, goal in zip(self.means, self.sizes, student, teacher, strict=True):
            ours, theirs = own, goal.detach()
            if size is not None:
                ours, theirs = both_at(size, ours, theirs)
            means.append(mean(ours))
            goals.append(theirs)
        return Adapted(student=means, teacher=goals, values={"log_scale": list(self.log_scales)})


def _size(student: Shape, teacher: Shape) -> tuple[int, int] | None:
    kind = check_kinds(
        "variance", student, teacher, takes=("map", "tokens", "vector"), remedy=_REMEDY
    )
    if kind == "tokens" and student[0] != teacher[0]:
        raise ModelError(
            f"both sides must have as many tokens, but got a student of {list(student)} and a "
            f"teacher of {list(teacher)}: {_REMEDY}"
        )
    return smaller(student, teacher) if kind == "map" else None


def _regressor(student: Shape, teacher: Shape) -> nn.Module:
    widths = [width_of(student), width_of(teacher), width_of(teacher), width_of(teacher)]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layer = (
            nn.Conv2d(before, after, kernel_size=1, bias=False)
            if len(student) == 3
            else nn.Linear(before, after, bias=False)
        )
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
