"""Student and teacher beside the true class, for losses that need all three."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from understudy.losses.shapes import paired, paired_with_labels


def paired_beside_labels(
    student: Tensor, teacher: Tensor, labels: Tensor
) -> tuple[
    Float[Tensor, " batch classes"],
    Float[Tensor, " batch classes"],
    Int64[Tensor, " batch 1"],
    Bool[Tensor, " batch"],
]:
    """Student, teacher (detached), true class and which rows are labelled, all of them checked.

    A row with the label -1 comes back as zeros on both sides, with class 0: whatever it held, NaN
    or infinity included, has no value and no gradient. What is computed for it is to be dropped.

    Raises:
        ValueError: the shapes differ, there are fewer than two classes, or there is not one int64
            label per row.
    """
    own, goal = paired(student, teacher, name="teacher", columns=2)
    paired_with_labels(student, labels)
    known = labels != -1
    row = known.unsqueeze(-1)
    return (
        torch.where(row, own, 0.0),
        torch.where(row, goal, 0.0),
        torch.where(known, labels, 0).unsqueeze(-1),
        known,
    )


def without_true_class(
    logits: Float[Tensor, " batch classes"], truth: Int64[Tensor, " batch 1"]
) -> Float[Tensor, " batch classes"]:
    """The logits with -inf at the true class: a softmax over them is over all the others."""
    true = torch.zeros_like(logits, dtype=torch.bool).scatter(1, truth, True)
    return logits.masked_fill(true, -torch.inf)
