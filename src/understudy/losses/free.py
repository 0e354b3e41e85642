"""Distillation without a teacher: soft targets that are made up from the label."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import check_between, check_one_of
from understudy.losses.heads import divergence
from understudy.losses.shapes import paired_with_labels
from understudy.losses.sparse import check_temperature

Form = Literal["code", "paper"]


def teacher_free(
    student: Float[Tensor, " batch classes"],
    labels: Int64[Tensor, " batch"],
    *,
    correct: float,
    tau: float,
    form: Form,
) -> Float[Tensor, " batch"]:
    """Divergence of the student from a virtual teacher that is always right, in nats.

    The virtual teacher u gives `correct` to the true class and the rest to all others alike. Two
    published forms differ by far:

    - `paper`: `KL(u softened by tau || student softened by tau)`, summed over classes, without T².
    - `code`: the mean over classes of `KL(softmax(u / tau) || student)`. The probabilities stand
      where logits should, and the student is not softened. The target is all but uniform (with
      100 classes and tau = 20 the true class has 0.0105), so it is label smoothing at its extreme,
      a hundredth as large; the authors weigh it by 100.

    Args:
        student: logits.
        labels: one class per row, -1 where there is none, and the value is 0.
        correct: the virtual teacher's probability of the true class.
        tau: how much it is softened. Not called temperature, since no schedule may change it.
        form: whose.

    Returns:
        One value per row.

    Raises:
        ValueError: `correct` is not between 0 and 1, tau is not positive and finite, there is no
            such form, there are fewer than two classes, or there is not one int64 label per row.

    Paper:
        Yuan et al. 2020, "Revisiting Knowledge Distillation via Label Smoothing Regularization",
        section 5 (Tf-KD_reg). Usual weight 10 (0.1 times 100) beside 0.9 on `hard_label`, with
        the code's form. It needs nothing of a teacher.

    Example:
        >>> student, labels = torch.tensor([[4.0, 0.0], [9.0, 0.0]]), torch.tensor([0, -1])
        >>> teacher_free(student, labels, correct=0.99, tau=20.0, form="code")
        tensor([0.6382, 0.0000])
    """
    _check(correct, tau, form)
    own = paired_with_labels(student, labels)
    known, classes = labels != -1, own.shape[1]
    own = torch.where(known.unsqueeze(-1), own, 0.0)
    truth = torch.where(known, labels, 0).unsqueeze(-1)
    virtual = torch.full_like(own, (1 - correct) / (classes - 1)).scatter(1, truth, correct)
    if form == "paper":
        log_goal = F.log_softmax(virtual.log() / tau, dim=-1)
        values = divergence(log_goal, F.log_softmax(own / tau, dim=-1))
    else:
        log_goal = F.log_softmax(virtual / tau, dim=-1)
        values = divergence(log_goal, F.log_softmax(own, dim=-1)) / classes
    return torch.where(known, values, 0.0)


class TeacherFree(nn.Module):
    """`teacher_free` with fixed constants."""

    def __init__(self, *, correct: float = 0.99, tau: float = 20.0, form: Form = "code") -> None:
        super().__init__()
        _check(correct, tau, form)
        self.correct = correct
        self.tau = tau
        self.form: Form = form

    def forward(
        self, student: Float[Tensor, " batch classes"], labels: Int64[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """One value per row, 0 where the label is -1."""
        return teacher_free(student, labels, correct=self.correct, tau=self.tau, form=self.form)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"correct={self.correct}, tau={self.tau}, form={self.form}"


def _check(correct: float, tau: float, form: str) -> None:
    check_between("correct", correct, usual="0.99")
    check_temperature(tau, name="tau")
    check_one_of("form", form, ("code", "paper"))
