"""Adapters that learn nothing: `pool` brings maps to one size, `flat` brings rows to one vector."""

from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import Adapted, Shape, check_pairs, kind_of, pooled
from understudy.features.resizing import Grid, both_at, need_grid, smaller, to_maps


class Pool(nn.Module):
    """Both sides at the same spatial size, each with its own channels; nothing is learned.

    Each axis is averaged down to the smaller of the two. Equal sizes stay as they are. Tokens and
    maps, or tokens of different numbers, are laid out as maps first, without the class token.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.

    Raises:
        ModelError: one side of a pair is a vector and the other is not, or tokens make no grid.

    Example:
        >>> import torch
        >>> pool = Pool([(8, 16, 12)], [(32, 8, 24)])
        >>> own, goal = torch.zeros(5, 8, 16, 12), torch.zeros(5, 32, 8, 24)
        >>> both = pool([own], [goal], Batch(inputs=own))
        >>> both.student[0].shape, both.teacher[0].shape
        (torch.Size([5, 8, 8, 12]), torch.Size([5, 32, 8, 12]))
    """

    def __init__(self, student: list[Shape], teacher: list[Shape]) -> None:
        super().__init__()
        check_pairs(student, teacher)
        self.pairs = nn.ModuleList(
            _pair(own, goal) for own, goal in zip(student, teacher, strict=True)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Both sides, `[batch, channels, height, width]` of one height and width per pair."""
        del batch
        both = [
            pair(own, goal.detach())
            for pair, own, goal in zip(self.pairs, student, teacher, strict=True)
        ]
        return Adapted(student=[own for own, _ in both], teacher=[goal for _, goal in both])


class Flat(nn.Module):
    """Both sides as `[batch, width]`: maps averaged over space, tokens over real tokens.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.

    Raises:
        ModelError: the lists differ in length, or a shape is none of features.
    """

    def __init__(self, student: list[Shape], teacher: list[Shape]) -> None:
        super().__init__()
        check_pairs(student, teacher)

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Both sides, one vector per row."""
        return Adapted(
            student=[pooled(own, batch.real) for own in student],
            teacher=[pooled(goal.detach(), batch.real) for goal in teacher],
        )


class SameSize(nn.Module):
    """Two maps at one size; tokens are laid out in their grids first."""

    def __init__(
        self, size: tuple[int, int], *, grids: tuple[Grid | None, Grid | None] = (None, None)
    ) -> None:
        super().__init__()
        self.size = size
        self.grids = grids

    def forward(self, own: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Both as maps of that size."""
        first, second = (
            features if grid is None else to_maps(features, grid)
            for features, grid in zip((own, goal), self.grids, strict=True)
        )
        return both_at(self.size, first, second)


class AsTheyAre(nn.Module):
    """Two features that have one size already."""

    def forward(self, own: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """The two."""
        return own, goal


def _pair(student: Shape, teacher: Shape) -> nn.Module:
    kinds = kind_of(student), kind_of(teacher)
    if "vector" in kinds and kinds[0] != kinds[1]:
        raise ModelError(
            f"a vector has no spatial size, but the student's features are {list(student)} and the "
            f"teacher's {list(teacher)}: name two maps, or two layers after the pooling"
        )
    alike = kinds == ("tokens", "tokens") and student[0] == teacher[0]
    if kinds[0] == "vector" or alike:
        return AsTheyAre()
    grids: list[Grid | None] = [
        need_grid(shape[0], student, teacher) if kind_of(shape) == "tokens" else None
        for shape in (student, teacher)
    ]
    sizes = [
        shape if grid is None else (shape[1], grid.height, grid.width)
        for shape, grid in zip((student, teacher), grids, strict=True)
    ]
    return SameSize(smaller(sizes[0], sizes[1]), grids=(grids[0], grids[1]))
