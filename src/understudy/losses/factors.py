"""A loss on factors: what a paraphraser and a translator, both learnt, make of two layers.

It gives one value per row, in at least float32.
"""

from typing import Final, Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import NoConstants, check_one_of
from understudy.losses.rows import unit
from understudy.losses.spatial import NOTHING, matched, same_places

_FORMS: Final = ("whole", "map")


def factor_transfer(
    student: Float[Tensor, " batch *factors"],
    teacher: Float[Tensor, " batch *factors"],
    *,
    form: Literal["whole", "map"] = "whole",
) -> Float[Tensor, " batch"]:
    """Absolute difference of two factors of length 1, mean over their numbers; no unit.

    The teacher's features go through a paraphraser, an autoencoder learnt beforehand and then
    frozen; the student's through a translator that learns with it. Their outcomes, the factors,
    are compared by direction alone, so a factor's size is free.

    Args:
        student: the translator's factors; the gradient reaches only these.
        teacher: the paraphraser's, of the same shape.
        form: "whole" for the factor as one vector; "map" for the mean over channels of its
            square, a map of length 1, as RepDistiller has it. That is `attention_transfer` with
            absolute differences, and blind to the channels.

    Returns:
        One value per row. A factor that is zero everywhere has no direction and stays zero.

    Raises:
        ValueError: the shapes differ, or the form is another.

    Paper:
        Kim, Park and Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", section 3. Usual weight 500 beside 1 on `hard_label`; it needs a
        layer of the teacher.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
        >>> factor_transfer(student, teacher)
        tensor([0.6000])
    """
    check_one_of("form", form, _FORMS)
    own, goal = matched(student, teacher)
    if form == "map":
        own, goal = (part.square().mean(dim=1) for part in same_places(own, goal))
    gap = unit(own.flatten(1), floor=NOTHING) - unit(goal.flatten(1), floor=NOTHING)
    return gap.abs().mean(dim=1)


def paraphraser(
    student: Float[Tensor, " batch *map"], teacher: Float[Tensor, " batch *map"]
) -> Float[Tensor, " batch"]:
    """Squared difference of a map and its paraphrase, mean over their numbers, in squared features.

    It teaches the autoencoder whose factors `factor_transfer` compares, in a phase before; the
    student learns nothing from it.

    Args:
        student: the map given back by the autoencoder; the gradient reaches only it.
        teacher: the teacher's map, of the same shape.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        Kim, Park and Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", section 3.1, equation 1 (there the norm, not its square per number). Weight 1,
        alone in a first phase; it needs a layer of the teacher.

    Example:
        >>> import torch
        >>> paraphraser(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
        tensor([2.])
    """
    own, goal = matched(student, teacher)
    return (own - goal).square().flatten(1).mean(dim=1)


class Paraphraser(NoConstants):
    """`paraphraser`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch *map"], teacher: Float[Tensor, " batch *map"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return paraphraser(student, teacher)


class FactorTransfer(nn.Module):
    """`factor_transfer` in a fixed form."""

    def __init__(self, *, form: Literal["whole", "map"] = "whole") -> None:
        super().__init__()
        check_one_of("form", form, _FORMS)
        self.form: Literal["whole", "map"] = form

    def forward(
        self,
        student: Float[Tensor, " batch *factors"],
        teacher: Float[Tensor, " batch *factors"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return factor_transfer(student, teacher, form=self.form)

    def extra_repr(self) -> str:
        """Its form, for printing."""
        return f"form={self.form!r}"
