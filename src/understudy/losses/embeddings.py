"""Losses on embeddings: how far a student's vector points away from its teacher's.

Every function takes `[batch, width]` and gives one value per row, in at least float32.
"""

from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.rows import unit
from understudy.losses.shapes import paired


def cosine_distance(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch width"]
) -> Float[Tensor, " batch"]:
    """One minus the cosine of the two vectors of a row, 0 to 2.

    It is written as half the squared distance of the two vectors brought to length 1, which is
    the same number, but exactly 0 at equality, and keeps its digits near it. So for embeddings of
    length 1 it is `soft_value` times half the width, and the two are not worth adding up; for
    others it leaves the lengths free. A zero vector has no direction: it is 1/2 from any other,
    and has no gradient.

    Args:
        student: vectors in the teacher's width; the gradient reaches only these.
        teacher: vectors of the same examples.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        None: the distance that such vectors are compared with in use. Sanh et al. 2019,
        "DistilBERT, a distilled version of BERT", section 3, has it on hidden states. Usual
        weight 1; it needs the teacher's `embedding`. `pkt` or `similarity_preserving` beside it
        compare whole batches.

    Example:
        >>> import torch
        >>> cosine_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor([1.])
    """
    own, goal = paired(student, teacher, name="teacher")
    return (unit(own) - unit(goal)).square().sum(dim=-1) / 2


class CosineDistance(nn.Module):
    """`cosine_distance`; it has no constants."""

    # Spelt out, as nn.Module's own signature would seem to take anything.
    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch width"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return cosine_distance(student, teacher)
