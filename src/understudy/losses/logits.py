"""Losses on logits: the teacher's soft targets, its bare logits, and the data set's own labels.

Every function takes `[batch, classes]` and gives one value per row, in at least float32. Masks,
weights and the mean over rows are the objective's. The classes below them only hold constants.
"""

from typing import Final, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import check_one_of
from understudy.losses.heads import Head, check_head, divergence, paired_chances
from understudy.losses.shapes import paired, paired_with_labels
from understudy.losses.sparse import check_temperature, outcome_kl, sampled_kl

_FORMS: Final = ("mean", "half_sum")


def soft_target_kl(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    temperature: float,
    head: Head = "softmax",
) -> Float[Tensor, " batch"]:
    """Divergence of the student from the teacher's softened distribution, in nats times T².

    `T² * KL(softmax(teacher / T) || softmax(student / T))`, summed over classes. It is the
    divergence and not the cross entropy, so it is exactly 0 where the two agree. T² keeps the
    size of the gradient from falling with T. A class to which the teacher gives no mass (a logit
    of -inf, or one that is far below the others) adds nothing, whatever the student says of it;
    a class that only the student rules out costs infinity, as it should.

    For high T it approaches half the variance over classes of `student - teacher`: half of
    `logit_mse`, but blind to a constant added to a row. In float32 the value then loses digits
    (about 1 % of it is noise at T = 300); the gradient keeps them.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        temperature: T; above 1 shows more of the teacher's small probabilities.
        head: `sigmoid` where each logit is an output by itself (`binary_soft_target_kl`).

    Returns:
        One value per row.

    Raises:
        ValueError: T is not positive and finite, there is no such head, the shapes differ, or a
            softmax has fewer than two classes (the divergence would always be 0).

    Paper:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
        Usual weight 0.9 beside 0.1 on `hard_label`, T = 4; it needs the teacher's `logits`.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 4.0]])
        >>> soft_target_kl(student, teacher, temperature=4.0)
        tensor([1.7751])
    """
    log_own, log_goal = paired_chances(student, teacher, temperature=temperature, head=head)
    return temperature**2 * divergence(log_goal, log_own)


def logit_mse(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    form: Literal["mean", "half_sum"] = "mean",
) -> Float[Tensor, " batch"]:
    """Squared difference of logits, mean over classes, in squared logits.

    Unlike `soft_target_kl` it also pins the constant that a softmax cannot see, and weighs unlikely
    classes like likely ones. Its gradient grows with the gap, so it wants a smaller weight.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        form: "mean" over classes, as all toolkits have it, or "half_sum", half the sum over
            classes, as in the paper.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ, or there is no such form.

    Paper:
        Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?", section 2.2; compared with
        the divergence by Kim et al. 2021, IJCAI. Usual weight 0.1 to 1; it needs the teacher's
        `logits`.

    Example:
        >>> logit_mse(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]))
        tensor([2.])
    """
    check_one_of("form", form, _FORMS)
    own, goal = paired(student, teacher, name="teacher")
    gap = (own - goal).square()
    return gap.mean(dim=-1) if form == "mean" else gap.sum(dim=-1) / 2


def hard_label(
    student: Float[Tensor, " batch classes"],
    labels: Int64[Tensor, " batch"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Cross entropy with the data set's own label, in nats; 0 where the label is -1.

    A row without a label has no gradient either, not even where its logits are not finite.

    Args:
        student: logits.
        labels: one class per row, -1 where there is none.
        label_smoothing: the share of the label that is spread evenly over all classes.

    Returns:
        One value per row.

    Raises:
        ValueError: the smoothing is outside 0 to 1, or there is not one int64 label per row.

    Paper:
        Smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer
        Vision", section 7. It needs nothing of the teacher; alone it is the control, beside a
        teacher its usual weight is 0.1 to 0.5.

    Example:
        >>> hard_label(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([1, -1]))
        tensor([0.6931, 0.0000])
    """
    _check_smoothing(label_smoothing)
    own = paired_with_labels(student, labels)
    # Cross entropy ignores the row, but its backward pass would still turn inf into NaN.
    own = torch.where((labels != -1).unsqueeze(-1), own, 0.0)
    return F.cross_entropy(
        own, labels, ignore_index=-1, reduction="none", label_smoothing=label_smoothing
    )


class SoftTargetKL(nn.Module):
    """`soft_target_kl` at a temperature that a schedule may override, step by step."""

    def __init__(self, *, temperature: float = 4.0, head: Head = "softmax") -> None:
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
        return soft_target_kl(student, teacher, temperature=chosen, head=self.head)

    def outcomes(
        self,
        student: Float[Tensor, " positions classes"],
        *,
        ids: Int64[Tensor, " positions k"],
        log_mass: Float[Tensor, " positions k"],
        rest: Float[Tensor, " positions"],
        sampled: bool = False,
        entropy: Float[Tensor, " positions"] | None = None,
        temperature: float | None = None,
    ) -> Float[Tensor, " positions"]:
        """One value per position from a teacher that is stored as listed outcomes.

        Args:
            student: logits.
            ids: which classes are listed, -1 for none.
            log_mass: log of the mass of each at temperature 1, or of its weight where `sampled`.
            rest: log of the mass that is not listed; not read where `sampled`.
            sampled: whether the list was drawn (`sampled_kl`) or is exact (`outcome_kl`).
            entropy: the teacher's, in nats, where `sampled`.
            temperature: the module's own where None.

        Raises:
            ValueError: a sigmoid head, drawn labels at a temperature other than 1 or without
                their entropy, or what the two functions refuse.
        """
        if self.head != "softmax":
            raise ValueError(
                f"`head == softmax` must hold for listed outcomes, but got head={self.head}: its "
                "outputs are no single distribution; store them densely"
            )
        chosen = self.temperature if temperature is None else temperature
        if not sampled:
            return outcome_kl(student, ids, log_mass, rest, temperature=chosen)
        if chosen != 1:
            raise ValueError(
                f"`temperature == 1` must hold for sampled labels, but got temperature={chosen}: "
                "their weights are unbiased for the teacher's distribution at temperature 1 only; "
                "set `temperature: 1`, or store the largest outcomes instead of sampled ones"
            )
        if entropy is None:
            raise ValueError(
                "`entropy` must be there for sampled labels, but got entropy=None: give the "
                "teacher's entropy that is stored beside them, in nats"
            )
        return sampled_kl(student, ids, log_mass, entropy)

    def extra_repr(self) -> str:
        """The temperature, and a head that is not the usual one, for printing."""
        head = "" if self.head == "softmax" else f", head={self.head}"
        return f"temperature={self.temperature}{head}"


class LogitMSE(nn.Module):
    """`logit_mse` in a fixed form."""

    def __init__(self, *, form: Literal["mean", "half_sum"] = "mean") -> None:
        super().__init__()
        check_one_of("form", form, _FORMS)
        self.form: Literal["mean", "half_sum"] = form

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return logit_mse(student, teacher, form=self.form)

    def extra_repr(self) -> str:
        """The form, for printing."""
        return f"form={self.form!r}"


class HardLabel(nn.Module):
    """`hard_label` with a fixed label smoothing."""

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(
        self, student: Float[Tensor, " batch classes"], labels: Int64[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """One value per row, 0 where the label is -1."""
        return hard_label(student, labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """The label smoothing, for printing."""
        return f"label_smoothing={self.label_smoothing}"


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"`0 <= label_smoothing < 1` must hold, but got {label_smoothing=}: usual is 0 or 0.1"
        )
