"""What two sets of rows must look like before a relation between rows is compared, and cosines.

A relation is a number per pair of examples, so the two sides may have different widths; they must
have the same examples in the same order.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def related(
    student: Tensor, teacher: Tensor, *, both: bool = False
) -> tuple[Float[Tensor, " batch width"], Float[Tensor, " batch depth"]]:
    """Student and teacher with one row per example, checked, in one precision of at least float32.

    Args:
        student: `[batch, width]`.
        teacher: `[batch, depth]`, the same examples in the same order.
        both: whether the teacher's side learns too. It comes back detached otherwise.

    Raises:
        ValueError: one of them is not `[batch, width]` with a column at least, or they do not
            have the same number of rows.
    """
    for name, rows in (("student", student), ("teacher", teacher)):
        if rows.ndim != 2 or rows.shape[1] < 1:
            raise ValueError(
                f"`{name}.ndim == 2` and `width >= 1` must hold, but got {name} "
                f"{tuple(rows.shape)}: average maps over space and sequences over tokens first"
            )
    if len(student) != len(teacher):
        raise ValueError(
            f"`len(student) == len(teacher)` must hold, but got student {tuple(student.shape)} "
            f"and teacher {tuple(teacher.shape)}: give both one row per example; the widths may "
            "differ"
        )
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), (teacher if both else teacher.detach()).to(dtype)


def unit(
    rows: Float[Tensor, " *axes width"],
    *,
    eps: float = 0.0,
    floor: float | Float[Tensor, ""] = 0.0,
) -> Float[Tensor, " *axes width"]:
    """Rows divided by their length, along the last axis; a zero row stays zero.

    The obvious `x / max(length, eps)` gives a zero row a gradient of 1 / eps. A row without a
    direction has no gradient here.

    Args:
        rows: vectors along the last axis.
        eps: added to the length, as some published forms do.
        floor: rows of this length or less count as zero.
    """
    with torch.no_grad():
        zero = torch.linalg.vector_norm(rows, dim=-1, keepdim=True) <= floor
    # Ones in its place, as the backward pass would divide by zero even where nothing is read.
    safe = torch.where(zero, 1.0, rows)
    length = torch.linalg.vector_norm(safe, dim=-1, keepdim=True)
    return torch.where(zero, 0.0, safe / (length + eps))


def cosines(directions: Float[Tensor, " batch width"]) -> Float[Tensor, " batch others"]:
    """Of rows of length 1: the cosines of each with all others, in their order, not with itself."""
    count = len(directions)
    others = ~torch.eye(count, dtype=torch.bool, device=directions.device)
    return (directions @ directions.T)[others].reshape(count, count - 1)
