"""Similarities within a batch: as probabilities (PKT) and as aligned kernels (CKA).

Every function takes `[batch, width]` of both sides, of any two widths, and gives one value per
row.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.losses.constants import NoConstants
from understudy.losses.rows import related, unit

EPS: Final = 1e-7
"""The authors' guard of PKT, beside lengths and inside the logarithm."""


def pkt(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
) -> Float[Tensor, " batch"]:
    """Divergence of "which row resembles this one", in nats divided by the batch size.

    Cosines of all pairs, brought from -1..1 to 0..1 and divided by the sum of their row, are read
    as probabilities; the loss is their divergence. As the authors' code, it is the mean over all
    batch² terms and not a sum over one axis: hence the large weight, and why a batch of twice the
    size wants twice the weight. The authors' 1e-7 beside lengths and inside the logarithm is kept.

    Args:
        student: one row per example; the gradient reaches only these. A zero row resembles all
            rows alike and has no gradient.
        teacher: the same examples in the same order.

    Returns:
        One value per row, of its own distribution. 0 for a batch of one row.

    Raises:
        ValueError: the two do not have the same rows, or are not `[batch, width]`.

    Paper:
        Passalis and Tefas 2018, "Learning Deep Representations with Probabilistic Knowledge
        Transfer", section 3. Usual weight 30000; it needs features of the teacher.

    Example:
        >>> pkt(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.eye(3))
        tensor([0.0166, 0.0166, 0.0000])
    """
    own, goal = related(student, teacher)
    like, wanted = _probabilities(own), _probabilities(goal)
    # log1p, as the two are close and the logarithm of a quotient near 1 loses digits.
    ratio = torch.log1p((wanted - like) / (like + EPS))
    return (wanted * ratio).mean(dim=1)


def cka(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
) -> Float[Tensor, " batch"]:
    """One minus the linear centred kernel alignment of the batch, 0 to 1.

    It does not see a rotation, a common factor or a shift of all rows, so no regressor is needed.
    It is written as half the squared distance of the two kernels after each was brought to
    length 1, so it is exactly 0 at equality. With fewer rows than columns the estimate is biased
    towards alignment: any two sets of few rows in many columns look alike. Use large batches.

    Args:
        student: one row per example; the gradient reaches only these.
        teacher: the same examples in the same order.

    Returns:
        One value per row, whose mean is 1 - CKA: half the squared difference of its row of the
        two kernels, times the batch size. All 1 and without gradient where only one side has
        equal rows throughout; 0 where both have, and for a batch of one row.

    Raises:
        ValueError: the two do not have the same rows, or are not `[batch, width]`.

    Paper:
        Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited",
        section 3, as a measure; there is no authors' loss. Usual weight 1 beside the usual terms
        on logits; it needs features of the teacher.

    Example:
        >>> cka(torch.tensor([[0.0], [1.0], [2.0]]), torch.eye(3))
        tensor([0.1893, 0.5000, 0.1893])
    """
    own, goal = related(student, teacher)
    mine, theirs = _kernel(own), _kernel(goal)
    gap = len(own) / 2 * (mine - theirs).square().sum(dim=1)
    flat_own, flat_goal = (kernel.detach().abs().sum() == 0 for kernel in (mine, theirs))
    return torch.where(flat_own != flat_goal, 1.0, gap)


class PKT(NoConstants):
    """`pkt`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Float[Tensor, " batch depth"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return pkt(student, teacher)


class CKA(NoConstants):
    """`cka`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Float[Tensor, " batch depth"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return cka(student, teacher)


def _probabilities(rows: Float[Tensor, " batch width"]) -> Float[Tensor, " batch batch"]:
    directions = unit(rows, eps=EPS)
    # Rounding may put a cosine below -1.
    alike = ((directions @ directions.T + 1) / 2).clamp(min=0)
    return alike / alike.sum(dim=1, keepdim=True)


def _kernel(rows: Float[Tensor, " batch width"]) -> Float[Tensor, " batch batch"]:
    """The centred linear kernel, as one unit vector; all 0 where all rows are the same."""
    if not len(rows):
        return rows @ rows.T
    centred = rows - rows.mean(dim=0)
    with torch.no_grad():
        size = centred.norm()
        # What is left of equal rows after the mean is rounding noise, and no kernel.
        same = size <= 4 * torch.finfo(rows.dtype).eps * rows.norm()
        scale = torch.where(same, torch.inf, size)
    # The kernel is a fourth power of the rows once its length is taken: bring them near 1 first.
    centred = centred / scale
    return unit((centred @ centred.T).flatten()).reshape(len(rows), len(rows))
