"""What two tensors must look like before a loss reads them: the same rows, the same columns.

PyTorch stretches `[8, 1]` against `[8, 10]` without a word, and the loss that comes out is a
number like any other. Nothing is stretched here.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def paired(
    student: Tensor, target: Tensor, *, name: str, columns: int = 1
) -> tuple[Float[Tensor, " batch width"], Float[Tensor, " batch width"]]:
    """Student and target `[batch, width]`, checked, in one precision of at least float32.

    The target comes back detached: whatever it was made of, it does not learn from this loss.
    float64 stays float64, and wins over float32.

    Args:
        student: what the student answers, `[batch, width]`.
        target: what it is compared with, of exactly the same shape.
        name: what the target is called in an error.
        columns: the fewest columns that mean anything.

    Raises:
        ValueError: the shapes differ, or are not `[batch, width]` with `columns` or more.
    """
    if student.shape != target.shape:
        raise ValueError(
            f"`student.shape == {name}.shape` must hold, but got student {_shape(student)} and "
            f"{name} {_shape(target)}: give both one row per example and the same columns; "
            "nothing is broadcast"
        )
    _check_columns(student, columns)
    dtype = torch.promote_types(torch.promote_types(student.dtype, target.dtype), torch.float32)
    return student.to(dtype), target.detach().to(dtype)


def paired_with_labels(student: Tensor, labels: Tensor) -> Float[Tensor, " batch classes"]:
    """Student `[batch, classes]` in at least float32, once it has one int64 label per row.

    Raises:
        ValueError: there is not exactly one int64 label per row, or fewer than two classes.
    """
    _check_columns(student, 2)
    if labels.shape != student.shape[:1]:
        raise ValueError(
            "`labels.shape == student.shape[:1]` must hold, but got labels "
            f"{_shape(labels)} and student {_shape(student)}: give one label per row"
        )
    if labels.dtype != torch.int64:
        raise ValueError(
            f"`labels.dtype == torch.int64` must hold, but got {labels.dtype}: "
            "call `labels.long()`, with -1 where a row has no label"
        )
    return student.to(torch.promote_types(student.dtype, torch.float32))


def _check_columns(student: Tensor, columns: int) -> None:
    if student.ndim != 2 or student.shape[1] < columns:
        raise ValueError(
            f"`student` must be [batch, width] with `width >= {columns}`, but got {_shape(student)}"
        )


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
