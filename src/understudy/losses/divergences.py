"""Other divergences between student and teacher: reversed, and from the middle of the two.

Both take `[batch, classes]` and give one value per row, in nats times T². They differ from
`soft_target_kl` in whose probabilities weigh the classes, and in how dear it is to miss one.
"""

from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.blends import divergence_from_blend
from understudy.losses.constants import check_between
from understudy.losses.heads import Head, check_head, divergence, paired_chances
from understudy.losses.sparse import check_temperature


def reverse_kl(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    temperature: float,
    head: Head = "softmax",
) -> Float[Tensor, " batch"]:
    """Divergence of the teacher from the student's softened distribution, in nats times T².

    `T² * KL(softmax(student / T) || softmax(teacher / T))`, the arguments of `soft_target_kl` the
    other way round. Its classes are weighed by the student: what the teacher finds likely and the
    student does not costs little, so a small student picks some of the teacher's modes instead of
    spreading over all. A class that the teacher alone rules out costs infinity.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        temperature: T.
        head: `sigmoid` where each logit is an output by itself; then the sum over outputs.

    Returns:
        One value per row.

    Raises:
        ValueError: T is not positive and finite, there is no such head, the shapes differ, or a
            softmax has fewer than two classes.

    Paper:
        Gu et al. 2024, "MiniLLM: Knowledge Distillation of Large Language Models", section 2.1
        (there of whole sequences; here of each row's classes). Usual weight 1, T = 1; it needs the
        teacher's `logits`.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 4.0]])
        >>> reverse_kl(student, teacher, temperature=4.0)
        tensor([1.9218])
    """
    log_own, log_goal = paired_chances(student, teacher, temperature=temperature, head=head)
    return temperature**2 * divergence(log_own, log_goal)


def jensen_shannon(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    beta: float,
    temperature: float,
    head: Head = "softmax",
) -> Float[Tensor, " batch"]:
    """Divergence of both from a blend of the two, in nats times T²: the generalised JSD(beta).

    `T² * (beta * KL(p || m) + (1 - beta) * KL(q || m))` with the teacher's p, the student's q and
    m = beta * p + (1 - beta) * q. It is bounded: no class costs infinity on either side. Divided
    by beta it approaches `soft_target_kl` as beta goes to 0; divided by 1 - beta it approaches
    `reverse_kl` as beta goes to 1. At one half it is the symmetric Jensen-Shannon divergence.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        beta: the teacher's share in the blend.
        temperature: T.
        head: `sigmoid` where each logit is an output by itself; then the sum over outputs.

    Returns:
        One value per row.

    Raises:
        ValueError: beta is not between 0 and 1, T is not positive and finite, there is no such
            head, the shapes differ, or a softmax has fewer than two classes.

    Paper:
        Agarwal et al. 2024, "On-Policy Distillation of Language Models" (GKD), section 2.
        Usual weight 1, T = 1, beta 0.1, 0.5 or 0.9; it needs the teacher's `logits`.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[-900.0, 0.0]]), torch.tensor([[0.0, -900.0]])
        >>> jensen_shannon(student, teacher, beta=0.5, temperature=1.0)
        tensor([0.6931])
    """
    check_between("beta", beta, usual="0.5")
    log_own, log_goal = paired_chances(student, teacher, temperature=temperature, head=head)
    ours = divergence_from_blend(log_own, log_goal, rest=1 - beta, share=beta)
    theirs = divergence_from_blend(log_goal, log_own, rest=beta, share=1 - beta)
    return temperature**2 * (beta * theirs + (1 - beta) * ours)


class ReverseKL(nn.Module):
    """`reverse_kl` at a temperature that a schedule may override, step by step."""

    def __init__(self, *, temperature: float = 1.0, head: Head = "softmax") -> None:
        super().__init__()
        check_temperature(temperature)
        check_head(head)
        self.temperature = temperature
        self.head: Head = head

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
        *,
        temperature: float | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row, at `temperature` where one is given."""
        chosen = self.temperature if temperature is None else temperature
        return reverse_kl(student, teacher, temperature=chosen, head=self.head)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"temperature={self.temperature}, head={self.head}"


class JensenShannon(nn.Module):
    """`jensen_shannon` with a fixed blend, at a temperature that a schedule may override."""

    def __init__(
        self, *, beta: float = 0.5, temperature: float = 1.0, head: Head = "softmax"
    ) -> None:
        super().__init__()
        check_between("beta", beta, usual="0.5")
        check_temperature(temperature)
        check_head(head)
        self.beta = beta
        self.temperature = temperature
        self.head: Head = head

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
        *,
        temperature: float | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row, at `temperature` where one is given."""
        chosen = self.temperature if temperature is None else temperature
        return jensen_shannon(student, teacher, beta=self.beta, temperature=chosen, head=self.head)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"beta={self.beta}, temperature={self.temperature}, head={self.head}"
