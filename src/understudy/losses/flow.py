"""Losses on products of features: from layer to layer of one row, and from row to row of a batch.

A product says how two things go together and not what they are, so the numbers themselves are
free. Every function gives one value per row, in at least float32. The classes below them only hold
constants.
"""

from itertools import pairwise
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import NoConstants, check_one_of
from understudy.losses.rows import unit
from understudy.losses.spatial import NOTHING, matched_layers, same_rows, shrunk

_FORMS: Final = ("mean", "sum")
_POOLS: Final = ("max", "average")


def fsp(
    student: list[Float[Tensor, " batch ..."]],
    teacher: list[Float[Tensor, " batch ..."]],
    *,
    pool: Literal["max", "average"] = "max",
    form: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, " batch"]:
    """Squared difference of the flow from each layer to the next, in features to the fourth.

    The flow of two layers is a matrix: for each channel of the one and each of the other, the mean
    over pixels of their product. It says how a network solves a step, not what it has in between.
    Squared differences are averaged over a matrix and added up over consecutive pairs of layers.

    Where two layers differ in size, the larger is pooled to the smaller.

    Args:
        student: features of two or more layers in order, in the teacher's shapes; the gradient
            reaches only these.
        teacher: features of as many layers.
        pool: "max" as in the paper, or "average" as in RepDistiller.
        form: "mean" over a matrix, or the "sum" of it, as in the paper.

    Returns:
        One value per row.

    Raises:
        ValueError: the lists differ in length or hold fewer than two layers, a pair differs in
            shape, or a choice is another.

    Paper:
        Yim et al. 2017, "A Gift from Knowledge Distillation", sections 3.2 and 3.3, equations 1
        and 2. Usual weight 50 for the mean, alone in a first phase that only starts the student;
        it needs two layers of the teacher or more.

    Example:
        >>> low, high = torch.ones(1, 1, 2, 2), torch.full((1, 2, 1, 1), 3.0)
        >>> fsp([low, high], [low, high / 3])
        tensor([4.])
    """
    _check_flow(pool, form)
    pairs = matched_layers(student, teacher, least=2)
    reduce = torch.mean if form == "mean" else torch.sum
    steps = [
        reduce((_flow(own, own_next, pool) - _flow(goal, goal_next, pool)).square(), dim=(1, 2))
        for (own, goal), (own_next, goal_next) in pairwise(pairs)
    ]
    return torch.stack(steps).sum(dim=0)


def similarity_preserving(
    student: Float[Tensor, " batch *features"], teacher: Float[Tensor, " batch *other"]
) -> Float[Tensor, " batch"]:
    """Squared difference of how alike the rows of a batch are, mean over the batch; no unit.

    The inner products of one row's features with those of all rows, as a vector of length 1, are
    compared with the teacher's. A row's value is the sum over its vector, divided by the number of
    rows, so the mean over rows is the authors' `sum / N²`. The two sides may have any shapes.

    It depends on the batch: a larger one has more pairs, of which each weighs less. One row alone
    is like itself only: its value is 0, or 1 where one of the two sides is all zeros.

    Args:
        student: features; the gradient reaches only these.
        teacher: features of the same examples in the same order, of any shape.

    Returns:
        One value per row. A row of zeros is like nothing, and has no gradient.

    Raises:
        ValueError: the numbers of rows differ.

    Paper:
        Tung and Mori 2019, "Similarity-Preserving Knowledge Distillation", section 2, equations
        1 to 4. Usual weight 3000, beside 1 on `hard_label`; it needs a layer of the teacher.

    Example:
        >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> similarity_preserving(student, torch.ones(2, 3))
        tensor([0.2929, 0.2929])
    """
    own, goal = same_rows(student, teacher)
    own_alike = unit(own @ own.T, floor=NOTHING)
    goal_alike = unit(goal @ goal.T, floor=NOTHING)
    return (own_alike - goal_alike).square().mean(dim=1)


class FSP(nn.Module):
    """`fsp` with a fixed kind of pooling and form."""

    def __init__(
        self,
        *,
        pool: Literal["max", "average"] = "max",
        form: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        _check_flow(pool, form)
        self.pool: Literal["max", "average"] = pool
        self.form: Literal["mean", "sum"] = form

    def forward(
        self,
        student: list[Float[Tensor, " batch ..."]],
        teacher: list[Float[Tensor, " batch ..."]],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return fsp(student, teacher, pool=self.pool, form=self.form)

    def extra_repr(self) -> str:
        """Its constants, for printing."""
        return f"pool={self.pool!r}, form={self.form!r}"


class SimilarityPreserving(NoConstants):
    """`similarity_preserving`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *other"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return similarity_preserving(student, teacher)


def _flow(
    layer: Float[Tensor, " batch channels height width"],
    following: Float[Tensor, " batch others _ _"],
    pool: Literal["max", "average"],
) -> Float[Tensor, " batch channels others"]:
    size = (
        min(layer.shape[2], following.shape[2]),
        min(layer.shape[3], following.shape[3]),
    )
    how = _first_maximum if pool == "max" else torch.mean
    one, other = (shrunk(maps, size, how).flatten(2) for maps in (layer, following))
    return one @ other.transpose(1, 2) / (size[0] * size[1])


def _first_maximum(maps: Tensor, dim: int) -> Tensor:
    # The gradient goes to the first of equal ones, as in pooling layers; amax would share it out.
    return maps.max(dim=dim).values


def _check_flow(pool: str, form: str) -> None:
    check_one_of("pool", pool, _POOLS)
    check_one_of("form", form, _FORMS)
