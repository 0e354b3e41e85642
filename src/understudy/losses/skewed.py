"""The skewed divergences: each distribution against the other mixed with a little of itself."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.blends import divergence_from_blend
from understudy.losses.constants import check_between, check_one_of
from understudy.losses.heads import Head, check_head, cross_entropy, paired_chances
from understudy.losses.sparse import check_temperature

Direction = Literal["forward", "reverse"]
Form = Literal["divergence", "cross_entropy"]


def skew_kl(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    skew: float,
    temperature: float,
    direction: Direction = "forward",
    form: Form = "divergence",
    head: Head = "softmax",
) -> Float[Tensor, " batch"]:
    """Divergence of one distribution from the other mixed with a little of itself, nats times T².

    Forward, with the teacher's p and the student's q: `T² * KL(p || skew * p + (1 - skew) * q)`;
    reverse: `T² * KL(q || skew * q + (1 - skew) * p)`. The mixture bounds every log ratio by
    log(1 / skew), so the gradient stays calm where the two are far apart, which the plain
    divergences' does not.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        skew: how much of the first distribution is mixed into the second.
        temperature: T.
        direction: `forward` weighs classes by the teacher, `reverse` by the student.
        form: `cross_entropy` leaves out the teacher's entropy, as the authors' forward loss does:
            the same gradient, another value, not 0 at equality. Forward only: reversed, the
            entropy is the student's and learns.
        head: `sigmoid` where each logit is an output by itself; then the sum over outputs.

    Returns:
        One value per row.

    Raises:
        ValueError: the skew is not between 0 and 1, the reverse is asked for as a cross entropy,
            there is no such direction, form or head, T is not positive and finite, the shapes
            differ, or a softmax has fewer than two classes.

    Paper:
        Ko et al. 2024, "DistiLLM: Towards Streamlined Distillation for Large Language Models",
        section 3.1. Usual weight 1, T = 1, skew 0.1; it needs the teacher's `logits`.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[-900.0, 0.0]]), torch.tensor([[0.0, -900.0]])
        >>> skew_kl(student, teacher, skew=0.1, temperature=1.0)
        tensor([2.3026])
    """
    _check(skew, direction, form)
    log_own, log_goal = paired_chances(student, teacher, temperature=temperature, head=head)
    if direction == "reverse":
        return temperature**2 * divergence_from_blend(log_own, log_goal, rest=skew, share=1 - skew)
    values = divergence_from_blend(log_goal, log_own, rest=skew, share=1 - skew)
    if form == "cross_entropy":
        values = values + cross_entropy(log_goal, log_goal)
    return temperature**2 * values


class SkewKL(nn.Module):
    """`skew_kl` with fixed constants, at a temperature that a schedule may override."""

    def __init__(
        self,
        *,
        skew: float = 0.1,
        temperature: float = 1.0,
        direction: Direction = "forward",
        form: Form = "divergence",
        head: Head = "softmax",
    ) -> None:
        super().__init__()
        _check(skew, direction, form)
        check_temperature(temperature)
        check_head(head)
        self.skew = skew
        self.temperature = temperature
        self.direction: Direction = direction
        self.form: Form = form
        self.head: Head = head

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
        *,
        temperature: float | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row, at `temperature` where one is given."""
        return skew_kl(
            student,
            teacher,
            skew=self.skew,
            temperature=self.temperature if temperature is None else temperature,
            direction=self.direction,
            form=self.form,
            head=self.head,
        )

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return (
            f"skew={self.skew}, temperature={self.temperature}, direction={self.direction}, "
            f"form={self.form}, head={self.head}"
        )


def _check(skew: float, direction: str, form: str) -> None:
    check_between("skew", skew, usual="0.1")
    check_one_of("direction", direction, ("forward", "reverse"))
    check_one_of("form", form, ("divergence", "cross_entropy"))
    if (direction, form) == ("reverse", "cross_entropy"):
        raise ValueError(
            f"`form == divergence` must hold for the reverse, but got {form=}: there the entropy "
            "is the student's own and learns; leave `form` out"
        )
