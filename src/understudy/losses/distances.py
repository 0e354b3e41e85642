"""Relational knowledge distillation: distances between two examples, angles between three.

Every function takes `[batch, width]` of both sides, of any two widths, and gives one value per
row; the mean over rows is the mean over all pairs or triples.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from understudy.losses.constants import NoConstants
from understudy.losses.rows import related, unit

WORKSPACE: Final = 2**24
"""How many numbers of one side the angles look at together: 64 MiB in float32."""

NEAR: Final = 1e-6
"""Rows closer than this share of the largest distance from the centre have no direction."""


def rkd_distance(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
) -> Float[Tensor, " batch"]:
    """Smooth L1 gap of all distances, each side in units of its own mean distance.

    The mean is taken over distances above 0, and it has a gradient. So the student learns the
    shape of the cloud and not its size. Distances are taken directly and not from products of
    rows, which lose all digits between close rows; two equal rows are at distance 0 exactly and
    pull at nothing. The authors' code has 1e-6 there, and counts it in the mean.

    Args:
        student: one row per example; the gradient reaches only these.
        teacher: the same examples in the same order.

    Returns:
        One value per row: the mean over its distances to all rows, itself included, as the
        authors' mean is over batch². 0 for a batch of one row.

    Raises:
        ValueError: the two do not have the same rows, or are not `[batch, width]`.

    Paper:
        Park et al. 2019, "Relational Knowledge Distillation", section 3.2.1. Usual weight 25
        beside 50 on `rkd_angle`; it needs features of the teacher.

    Example:
        >>> student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.eye(3)
        >>> rkd_distance(student, teacher)
        tensor([0.0833, 0.0417, 0.0417])
    """
    own, goal = related(student, teacher)
    gap = F.smooth_l1_loss(_spread(own), _spread(goal), reduction="none")
    return gap.mean(dim=1)


def rkd_angle(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
) -> Float[Tensor, " batch"]:
    """Smooth L1 gap of the cosines of all angles, between any two rows as seen from a third.

    It costs batch³ times width, but not their memory: rows take their turn, and where they do not
    fit together they are computed again for the gradient. Two rows that are (nearly) the same
    have no direction: their cosines are 0, as in the authors' code, and so is their gradient,
    which is 1e9 there.

    Args:
        student: one row per example; the gradient reaches only these.
        teacher: the same examples in the same order.

    Returns:
        One value per row: a third of each triple that it is part of, times what makes the mean
        over rows the authors' mean over batch³ triples. 0 for a batch of one row.

    Raises:
        ValueError: the two do not have the same rows, or are not `[batch, width]`.

    Paper:
        Park et al. 2019, "Relational Knowledge Distillation", section 3.2.2. Usual weight 50
        beside 25 on `rkd_distance`; it needs features of the teacher.

    Example:
        >>> rkd_angle(torch.tensor([[0.0], [1.0], [2.0]]), torch.eye(3))
        tensor([0.0926, 0.0926, 0.0926])
    """
    own, goal = related(student, teacher)
    count = len(own)
    if count < 2:
        # Nothing to see, but the gradient must find its way.
        return 0 * own.sum(dim=1)
    floor_own, floor_goal = _floor(own), _floor(goal)
    turn = max(1, WORKSPACE // (count * (count + max(own.shape[1], goal.shape[1]))))
    sums = []
    for start in range(0, count, turn):
        anchors = slice(start, start + turn)
        terms = own, goal, anchors, floor_own, floor_goal
        # Each turn's cosines would otherwise be kept for the gradient: all batch³ of them.
        sums.append(
            _seen_from(*terms)
            if turn >= count
            else checkpoint(_seen_from, *terms, use_reentrant=False, preserve_rng_state=False)
        )
    gap = torch.cat(sums)
    return (gap.sum(dim=1) + 2 * gap.sum(dim=0)) / (3 * count**2)


class RKDDistance(NoConstants):
    """`rkd_distance`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Float[Tensor, " batch depth"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return rkd_distance(student, teacher)


class RKDAngle(NoConstants):
    """`rkd_angle`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Float[Tensor, " batch depth"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return rkd_angle(student, teacher)


def _spread(rows: Float[Tensor, " batch width"]) -> Float[Tensor, " batch batch"]:
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    apart = distances > 0
    mean = distances.sum() / apart.sum().clamp(min=1)
    # A batch of equal rows has no unit to measure in.
    return distances / torch.where(mean > 0, mean, 1.0)


def _floor(rows: Float[Tensor, " batch width"]) -> Float[Tensor, ""]:
    with torch.no_grad():
        reach: Tensor = torch.linalg.vector_norm(rows - rows.mean(dim=0), dim=1).amax()
    return NEAR * reach


def _seen_from(
    own: Float[Tensor, " batch width"],
    goal: Float[Tensor, " batch depth"],
    anchors: slice,
    floor_own: Float[Tensor, ""],
    floor_goal: Float[Tensor, ""],
) -> Float[Tensor, " anchors batch"]:
    """The gaps at these anchors, summed over the third row."""
    gap = F.smooth_l1_loss(
        _cosines(own, anchors, floor_own), _cosines(goal, anchors, floor_goal), reduction="none"
    )
    return gap.sum(dim=2)


def _cosines(
    rows: Float[Tensor, " batch width"], anchors: slice, floor: Float[Tensor, ""]
) -> Float[Tensor, " anchors batch batch"]:
    away = unit(rows.unsqueeze(0) - rows[anchors].unsqueeze(1), floor=floor)
    return away @ away.transpose(1, 2)
