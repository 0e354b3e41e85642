"""Losses on vectors number by number, and on margins between the rows of a batch.

`embeddings` has their neighbours: directions, distributions of scores, and margins of scores that
somebody brings.
"""

from jaxtyping import Float
from torch import Tensor

from understudy.losses.constants import NoConstants
from understudy.losses.embeddings import margin_mse
from understudy.losses.rows import cosines, related, unit
from understudy.losses.shapes import paired


def embedding_mse(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch width"]
) -> Float[Tensor, " batch"]:
    """Squared difference of two vectors, the mean over their numbers.

    Lengths count, not only directions. Where both have length 1 it is `cosine_distance` times
    2 / width, so that a weight of width / 2 makes the two the same loss.

    Args:
        student: vectors in the teacher's width; the gradient reaches only these.
        teacher: vectors of the same examples.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using
        Knowledge Distillation", section 3. Usual weight 1 alone, where lengths differ; it needs
        the teacher's `embedding`.

    Example:
        >>> import torch
        >>> embedding_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([2.])
    """
    own, goal = paired(student, teacher, name="teacher")
    return (own - goal).square().mean(dim=-1)


def batch_margin(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
) -> Float[Tensor, " batch"]:
    """`margin_mse` with the other rows of the batch for candidates, scored by their cosines.

    The row that the teacher finds nearest is the one that is preferred; by how much it is preferred
    to each other row is compared. So it needs no pairs that somebody has judged. No width has to
    agree.

    Args:
        student: one row per example; the gradient reaches only these.
        teacher: the same examples in the same order, of any width.

    Returns:
        One value per row. 0 for a batch of two rows or one, which have nothing to prefer.

    Raises:
        ValueError: the two do not have the same rows.

    Paper:
        Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture
        Knowledge Distillation", section 3, where the candidates are passages that a query was
        given. Usual weight 1 beside 1 on `cosine`; it needs the teacher's `embedding`.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> batch_margin(torch.eye(3), rows)
        tensor([1., 1., 0.])
    """
    own, goal = related(student, teacher)
    if len(own) < 3:
        return own.sum(dim=1) * 0
    like, wanted = (cosines(unit(rows)) for rows in (own, goal))
    # The nearest first, the others in any order: the mean over them has none.
    order = wanted.argsort(dim=1, descending=True, stable=True)
    return margin_mse(like.gather(1, order), wanted.gather(1, order))


class EmbeddingMSE(NoConstants):
    """`embedding_mse`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch width"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return embedding_mse(student, teacher)


class BatchMargin(NoConstants):
    """`batch_margin`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return batch_margin(student, teacher)
