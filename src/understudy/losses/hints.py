"""Losses on features as they are: a student's layer repeats a teacher's layer, number by number.

Every function takes two tensors of the same shape, maps, tokens or vectors, and gives one value
per row, in at least float32. What brings a student to that shape (a projection, a generator, its
own layers) is learnt elsewhere. The classes below them only hold constants.
"""

from typing import Final, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.losses.constants import NoConstants, check_one_of
from understudy.losses.spatial import matched
from understudy.losses.tokens import mean_where, real_tokens

_FORMS: Final = ("mean", "sum")


def hint(
    student: Float[Tensor, " batch *features"],
    teacher: Float[Tensor, " batch *features"],
    *,
    form: Literal["mean", "sum"] = "mean",
    mask: Bool[Tensor, " batch tokens"] | None = None,
) -> Float[Tensor, " batch"]:
    """Squared difference of two layers, mean over their numbers, in squared features.

    The paper has half of the sum. A sum grows with the layer, so its weight says nothing about
    another layer; later toolkits take the mean, and so does the default.

    Args:
        student: features, projected to the teacher's shape; the gradient reaches only these.
        teacher: the hint, of the same shape.
        form: "mean", or "sum" for half of the sum, as in the paper.
        mask: of tokens `[batch, tokens, width]`, True for a real one; None where all are. The
            others may hold anything.

    Returns:
        One value per row; 0 where a row has no real token.

    Raises:
        ValueError: the shapes differ, the form is another, or the mask is not one bool per token.

    Paper:
        Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", section 2.2, equation 3. Usual
        weight 100 for the mean, beside 1 on `hard_label`; it needs a layer of the teacher.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 2, 1, 2), torch.full((1, 2, 1, 2), 3.0)
        >>> hint(student, teacher), hint(student, teacher, form="sum")
        (tensor([9.]), tensor([18.]))
    """
    check_one_of("form", form, _FORMS)
    own, goal = matched(student, teacher)
    if mask is None:
        squares = (own - goal).square().flatten(1)
        return squares.mean(dim=1) if form == "mean" else squares.sum(dim=1) / 2
    real = real_tokens(mask, own, batch=own.shape[0], tokens=own.shape[1])
    real = real.reshape(*real.shape, *[1] * (own.ndim - 2))
    # Before the square: the gradient of what is masked would be NaN where it is not finite.
    squares = (torch.where(real, own, 0.0) - torch.where(real, goal, 0.0)).square()
    return mean_where(squares, real) if form == "mean" else squares.flatten(1).sum(dim=1) / 2


def mgd(
    student: Float[Tensor, " batch *features"], teacher: Float[Tensor, " batch *features"]
) -> Float[Tensor, " batch"]:
    """Squared difference between regenerated features and the teacher's, sum over their numbers.

    The student's features are masked at random, and a small generator (the adapter `generate`)
    fills the gaps: features that carry enough to restore the teacher's, not features that equal
    them. The value is a sum, as its authors have it, so its weight is small and falls with the
    size of the layer.

    Args:
        student: what the generator made of the masked features; the gradient reaches only these.
        teacher: features of the same shape.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        Yang et al. 2022, "Masked Generative Distillation", section 3. Usual weight
        0.00007 beside 1 on `hard_label`; it needs a layer of the teacher.

    Example:
        >>> import torch
        >>> mgd(torch.zeros(1, 2, 1, 2), torch.full((1, 2, 1, 2), 3.0))
        tensor([36.])
    """
    own, goal = matched(student, teacher)
    return (own - goal).square().flatten(1).sum(dim=1)


def simkd(
    student: Float[Tensor, " batch *features"], teacher: Float[Tensor, " batch *features"]
) -> Float[Tensor, " batch"]:
    """Squared difference of the features that the reused classifier reads, mean over numbers.

    The same number as `hint`, at one place and for one reason: the student ends in a projector and
    in a frozen copy of the teacher's classifier, so whoever repeats these features repeats the
    teacher's answers. The projector is a part of the student and is deployed with it.

    Args:
        student: what its projector gives; the gradient reaches only this.
        teacher: the last features before its classifier, of the same shape.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        Chen et al. 2022, "Knowledge Distillation with the Reused Teacher Classifier", section
        3. Usual weight 1 and nothing beside it, no labels either.

    Example:
        >>> import torch
        >>> simkd(torch.zeros(1, 4), torch.full((1, 4), 3.0))
        tensor([9.])
    """
    return hint(student, teacher)


class Hint(nn.Module):
    """`hint` in a fixed form."""

    def __init__(self, *, form: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        check_one_of("form", form, _FORMS)
        self.form: Literal["mean", "sum"] = form

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *features"],
        *,
        mask: Bool[Tensor, " batch tokens"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return hint(student, teacher, form=self.form, mask=mask)

    def extra_repr(self) -> str:
        """Its form, for printing."""
        return f"form={self.form!r}"


class MGD(NoConstants):
    """`mgd`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *features"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return mgd(student, teacher)


class SimKD(NoConstants):
    """`simkd`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *features"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return simkd(student, teacher)
