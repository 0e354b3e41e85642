"""The adapter `connect`: the student's channels brought to the teacher's and normalised."""

import math

from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import (
    Adapted,
    Shape,
    check_kinds,
    check_normalised,
    check_pairs,
    width_of,
)
from understudy.features.resizing import both_at, smaller

_REMEDY = "name layers of one kind, as many tokens on both sides"


class Connect(nn.Module):
    """A 1x1 convolution without bias and batch normalisation, into the teacher's channels.

    Tokens and vectors have a linear layer in the convolution's place. Maps of different sizes are
    averaged down to the smaller, on the teacher's side too. The student's features should be taken
    before their last ReLU, like the teacher's: both losses that use this adapter look at signs.

    Given margins, `values["margins"]` holds one `[channels]` tensor per pair of layers.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        margins: for each layer the teacher's mean negative value of each channel; it belongs to the
            state.

    Raises:
        ModelError: a pair is of two kinds or of different numbers of tokens, or the margins are not
            one number per channel of the teacher.

    Paper:
        Heo et al. 2019, "A Comprehensive Overhaul of Feature Distillation", section 3 (student
        transform); the same authors' "Knowledge Transfer via Distillation of Activation Boundaries
        Formed by Hidden Neurons", section 3, has the connector. Both codes start the weights from
        a normal distribution of variance 2 / channels of the teacher.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        margins: list[Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        self.connectors = nn.ModuleList()
        self.sizes: list[tuple[int, int] | None] = []
        for own, goal in zip(student, teacher, strict=True):
            self.sizes.append(_size(own, goal))
            self.connectors.append(Connector(width_of(own), width_of(goal), axes=len(own)))
        _check_margins(margins, teacher)
        self.has_margins = margins is not None
        for number, margin in enumerate(margins or []):
            self.register_buffer(f"margin{number}", margin.detach().clone())

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The student's features in the teacher's channels, and the margins where there are any.

        Raises:
            TrainingError: while training, the batch has fewer than two rows.
        """
        del batch
        check_normalised(self, student)
        owns, goals = [], []
        for connector, size, own, goal in zip(
            self.connectors, self.sizes, student, teacher, strict=True
        ):
            ours, theirs = own, goal.detach()
            if size is not None:
                ours, theirs = both_at(size, ours, theirs)
            owns.append(connector(ours))
            goals.append(theirs)
        return Adapted(student=owns, teacher=goals, values=self._values())

    def _values(self) -> dict[str, list[Tensor]]:
        if not self.has_margins:
            return {}
        return {"margins": [self.get_buffer(f"margin{i}") for i in range(len(self.sizes))]}


class Connector(nn.Module):
    """One layer's projection and normalisation."""

    def __init__(self, before: int, after: int, *, axes: int) -> None:
        super().__init__()
        self.project = (
            nn.Conv2d(before, after, kernel_size=1, bias=False)
            if axes == 3
            else nn.Linear(before, after, bias=False)
        )
        self.norm = nn.BatchNorm2d(after) if axes == 3 else nn.BatchNorm1d(after)
        nn.init.normal_(self.project.weight, std=math.sqrt(2 / after))

    def forward(self, features: Tensor) -> Tensor:
        """The features in the teacher's channels."""
        projected = self.project(features)
        # Each token is a place of its own, as a pixel is.
        flat = projected.flatten(0, 1) if projected.ndim == 3 else projected
        normalised: Tensor = self.norm(flat)
        return normalised.reshape(projected.shape)


def _size(student: Shape, teacher: Shape) -> tuple[int, int] | None:
    kind = check_kinds(
        "connect", student, teacher, takes=("map", "tokens", "vector"), remedy=_REMEDY
    )
    if kind == "tokens" and student[0] != teacher[0]:
        raise ModelError(
            f"both sides must have as many tokens, but got a student of {list(student)} and a "
            f"teacher of {list(teacher)}: {_REMEDY}"
        )
    return smaller(student, teacher) if kind == "map" else None


def _check_margins(margins: list[Tensor] | None, teacher: list[Shape]) -> None:
    if margins is None:
        return
    expected = [[width_of(shape)] for shape in teacher]
    found = [list(margin.shape) for margin in margins]
    if found != expected:
        raise ModelError(
            "margins must be one number per channel of each of the teacher's layers, "
            f"{expected}, but got {found}: take them from the normalisation before each layer"
        )
