"""The adapter `fuse`: each of the student's levels sees the deeper ones before it is compared."""

from typing import cast

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import (
    Adapted,
    Shape,
    check_kinds,
    check_least,
    check_normalised,
    check_pairs,
    kind_of,
)
from understudy.features.resizing import resize

_LARGEST = 512


class Fuse(nn.Module):
    """Student maps, fused from the deepest level to the shallowest, in the teacher's shapes.

    The deepest level goes through a 1x1 convolution to `width` channels. Every shallower one does
    too, and is joined with what came out of the level below: that is brought to its size, two maps
    of attention weigh both, pixel by pixel, and their sum goes on. At each level a 3x3 convolution
    makes the teacher's channels. All convolutions have batch normalisation behind them. Vectors are
    maps of one pixel; pooled features are the authors' deepest level.

    Args:
        student: shapes of the student's layers, one row each, from shallow to deep.
        teacher: shapes of the teacher's, one per layer of the student.
        width: channels of what is handed on; 0 takes those of the student's deepest layer, 512 at
            most, as the authors do.

    Raises:
        ModelError: a layer is of tokens, a pair is of two kinds, or the width is negative.

    Paper:
        Chen et al. 2021, "Distilling Knowledge via Knowledge Review", section 3.3.
    """

    def __init__(self, student: list[Shape], teacher: list[Shape], *, width: int = 0) -> None:
        super().__init__()
        check_pairs(student, teacher)
        for own, goal in zip(student, teacher, strict=True):
            check_kinds(
                "fuse",
                own,
                goal,
                takes=("map", "vector"),
                remedy="name convolutional layers, or take the adapter `match`",
            )
        if width:
            check_least("width", width)
        owns, goals = [_as_map(shape) for shape in student], [_as_map(shape) for shape in teacher]
        self.teacher = tuple(tuple(shape) for shape in teacher)
        middle = width or min(_LARGEST, owns[-1][0])
        last = len(owns) - 1
        self.levels = nn.ModuleList(
            Level(owns[i][0], middle, goals[i][0], size=(goals[i][1], goals[i][2]), joins=i < last)
            for i in range(len(owns))
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The fused features of every level, in the order given.

        Raises:
            TrainingError: while training, the batch has fewer than two rows.
        """
        del batch
        check_normalised(self, student)
        if len(student) != len(self.levels):
            raise ModelError(
                f"this adapter was made for {len(self.levels)} layers, but got {len(student)}"
            )
        made: list[Tensor] = []
        deeper: Tensor | None = None
        for level, own, goal in reversed(
            list(zip(self.levels, student, self.teacher, strict=True))
        ):
            maps = own if own.ndim == 4 else own[:, :, None, None]
            outcome, deeper = cast(Level, level)(maps, deeper)
            made.insert(0, outcome if len(goal) == 3 else outcome.flatten(1))
        return Adapted(student=made, teacher=[goal.detach() for goal in teacher])


class Level(nn.Module):
    """One level of the fusion."""

    def __init__(
        self, before: int, middle: int, after: int, *, size: tuple[int, int], joins: bool
    ) -> None:
        super().__init__()
        self.size = size
        self.enter = nn.Sequential(
            nn.Conv2d(before, middle, kernel_size=1, bias=False), nn.BatchNorm2d(middle)
        )
        self.leave = nn.Sequential(
            nn.Conv2d(middle, after, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(after)
        )
        self.attention = nn.Conv2d(2 * middle, 2, kernel_size=1) if joins else None
        for part in (self.enter, self.leave):
            nn.init.kaiming_uniform_(cast(nn.Conv2d, part[0]).weight, a=1)

    def forward(self, own: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is compared with the teacher, and what is handed on to the level above."""
        joined: Tensor = self.enter(own)
        if self.attention is not None and deeper is not None:
            below = resize(deeper, (joined.shape[2], joined.shape[3]), "nearest")
            weights = torch.sigmoid(self.attention(torch.cat([joined, below], dim=1)))
            joined = joined * weights[:, :1] + below * weights[:, 1:]
        joined = resize(joined, self.size, "nearest")
        return self.leave(joined), joined


def _as_map(shape: Shape) -> Shape:
    return (*shape, 1, 1) if kind_of(shape) == "vector" else shape
