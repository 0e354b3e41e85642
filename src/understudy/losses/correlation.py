"""Correlation of student and teacher, row by row and class by class."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import check_not_negative
from understudy.losses.shapes import paired
from understudy.losses.sparse import check_temperature


def dist(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    beta: float,
    gamma: float,
    tau: float,
    eps: float,
) -> Float[Tensor, " batch"]:
    """One minus Pearson's correlation of softened probabilities, in rows and in columns.

    `tau² * (beta * (1 - r of the row) + gamma * mean over classes of (1 - r of the column))`. A
    correlation asks for the order and the relative distances of classes, not for the teacher's
    exact probabilities, which a weak student cannot reach. A column holds one class over the whole
    batch: each row gets its share of every column's value, so that the mean over rows is the
    published number. In one row alone every column is constant.

    The published code divides by |a| * |b| + 1e-8, which is no correlation where the two lengths
    are small: a column whose deviations have the length 1e-4 has the value one half at equality,
    and a gradient. With `eps=0` it is Pearson's r, and exactly 0 at equality; a constant side has
    no direction, which costs one half unless both are constant. For any eps, a deviation that is
    no more than rounding counts as none and has no gradient (theirs is about 1 / eps), so it moves
    no student whose output layer is all zeros.

    With two classes the probabilities of a row are p and 1 - p: its r is 1 or -1, without gradient.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        beta: weight of the rows.
        gamma: weight of the columns.
        tau: temperature of both.
        eps: added to the product of the lengths.

    Returns:
        One value per row.

    Raises:
        ValueError: a weight or eps is negative, tau is not positive and finite, the shapes
            differ, or there are fewer than two classes.

    Paper:
        Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", section 3.
        Usual weight 1 beside 1 on `hard_label`, with beta = gamma = 1 and tau = 1 (2 and 2, tau 4
        on CIFAR-100). It needs the teacher's `logits`, and batches of two rows or more.

    Example:
        >>> student, teacher = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 2.0]])
        >>> dist(student, teacher, beta=1.0, gamma=1.0, tau=1.0, eps=1e-8)
        tensor([2.8671])
    """
    _check(beta, gamma, tau, eps)
    own, goal = paired(student, teacher, name="teacher", columns=2)
    ours, theirs = F.softmax(own / tau, dim=-1), F.softmax(goal / tau, dim=-1)
    values = beta * _uncorrelated(ours, theirs, dim=1, eps=eps).sum(dim=1)
    columns = _uncorrelated(ours, theirs, dim=0, eps=eps)
    return tau**2 * (values + gamma * len(own) * columns.mean(dim=1))


class DIST(nn.Module):
    """`dist` with fixed constants."""

    def __init__(
        self, *, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0, eps: float = 1e-8
    ) -> None:
        super().__init__()
        _check(beta, gamma, tau, eps)
        self.beta = beta
        self.gamma = gamma
        self.tau = tau
        self.eps = eps

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return dist(student, teacher, beta=self.beta, gamma=self.gamma, tau=self.tau, eps=self.eps)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"beta={self.beta}, gamma={self.gamma}, tau={self.tau}, eps={self.eps}"


def _uncorrelated(first: Tensor, second: Tensor, *, dim: int, eps: float) -> Tensor:
    """What each element adds to `1 - r`, where r is taken along an axis.

    1 - cos is half the squared distance of the two directions, which is exactly 0 where they are
    the same; eps then shrinks the lengths' share of it, and fills up with what is missing to 1.
    """
    ours, size = _direction(first, dim=dim)
    theirs, other = _direction(second, dim=dim)
    half = (ours - theirs).square() / 2
    if eps == 0:
        return half
    reach = size * other
    return (half * reach + eps / max(first.shape[dim], 1)) / (reach + eps)


def _direction(values: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """Deviations from the mean over their length, and the length; 0 for what is constant."""
    deviation = values - values.mean(dim=dim, keepdim=True)
    square = deviation.square().sum(dim=dim, keepdim=True)
    # A mean that is rounded leaves deviations behind in a constant row; they mean nothing.
    noise = (8 * torch.finfo(values.dtype).eps) ** 2 * values.square().sum(dim=dim, keepdim=True)
    constant = square <= noise.detach()
    size = torch.where(constant, 1.0, square).sqrt()
    return torch.where(constant, 0.0, deviation / size), torch.where(constant, 0.0, size)


def _check(beta: float, gamma: float, tau: float, eps: float) -> None:
    check_not_negative("beta", beta, usual="1")
    check_not_negative("gamma", gamma, usual="1")
    check_not_negative("eps", eps, usual="1e-8, or 0 for Pearson's own correlation")
    check_temperature(tau, name="tau")
