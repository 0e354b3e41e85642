"""Soft targets at a temperature that is learnt."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.losses.constants import NoConstants
from understudy.losses.heads import divergence
from understudy.losses.shapes import paired


def ctkd(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    temperature: Float[Tensor, " *one"],
) -> Float[Tensor, " batch"]:
    """`soft_target_kl` at a temperature with a gradient, in nats times T².

    The value is that of `soft_target_kl`. The gradient reaches the temperature too, through all
    three places where it stands: the student's softmax, the teacher's, and the factor T². Whoever
    made it has reversed its gradient, so it climbs while the student descends: it looks for the
    temperature at which the student is worst, more so as the curriculum goes on.

    Args:
        student: logits.
        teacher: logits over the same classes, in the same order; these have no gradient.
        temperature: T, one positive number as a tensor. Its value is not looked at here, as this
            would make a GPU wait in every step.

    Returns:
        One value per row.

    Raises:
        ValueError: the temperature is not one number, the shapes differ, or there are fewer than
            two classes.

    Paper:
        Li et al. 2023, "Curriculum Temperature for Knowledge Distillation", section 3.1. Usual
        weight 0.9 beside 0.1 on `hard_label`, as `soft_target`; T from 1 to 21, from one learnt
        number. It needs the teacher's `logits`.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 4.0]])
        >>> heat = torch.tensor(4.0, requires_grad=True)
        >>> ctkd(student, teacher, temperature=heat).sum().backward()
        >>> heat.grad
        tensor(0.1011)
    """
    if temperature.numel() != 1:
        raise ValueError(
            "`temperature.numel() == 1` must hold, but got temperature "
            f"{tuple(temperature.shape)}: give one temperature for the whole batch"
        )
    own, goal = paired(student, teacher, name="teacher", columns=2)
    heat = temperature.reshape(()).to(own.dtype)
    # A class that is ruled out by -inf would hand the temperature a gradient of infinity times 0.
    goal = goal.clamp(min=-1e30)
    log_goal, log_own = F.log_softmax(goal / heat, dim=-1), F.log_softmax(own / heat, dim=-1)
    return heat**2 * divergence(log_goal, log_own)


class CTKD(NoConstants):
    """`ctkd`; it has no constants: an adapter learns the temperature."""

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
        *,
        temperature: Float[Tensor, " *one"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return ctkd(student, teacher, temperature=temperature)
