"""Logits at several levels: each row by itself, rows among each other, classes among each other."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import check_not_negative, check_one_of
from understudy.losses.logits import soft_target_kl
from understudy.losses.shapes import paired
from understudy.losses.sparse import check_temperature

Mask = Literal["scalar", "none"]


def multi_level(
    student: Float[Tensor, " batch classes"],
    teacher: Float[Tensor, " batch classes"],
    *,
    temperatures: Sequence[float | int],
    instance: float,
    batch: float,
    classes: float,
    mask: Mask,
) -> Float[Tensor, " batch"]:
    """Soft targets, rows' products and classes' products, added up over several temperatures.

    With probabilities p (the teacher's) and q (the student's), `[batch, classes]`, at each T:
    `instance * T² * KL(p || q)`, plus `batch * sum((p p' - q q')²) / rows`, plus
    `classes * sum((p' p - q' q)²) / classes`. The second compares how alike any two rows of the
    batch are, and each row has its own line of it; the third how any two classes go together,
    which belongs to no row: every row carries the same. Exactly 0 where the two agree.

    The published code means a mask: rows whose teacher is no surer than the median one, and
    classes with no more mass than the median one. But it multiplies numbers that are means already,
    so each part is scaled by the share of rows or classes in the mask: one half, or a little more.
    `mask="scalar"` is that, to the digit; `mask="none"` is the paper's equations.

    Args:
        student: logits; the gradient reaches only these.
        teacher: logits over the same classes, in the same order.
        temperatures: one or more; each adds its own three parts.
        instance: weight of each row by itself.
        batch: weight of the rows' products.
        classes: weight of the classes' products.
        mask: `scalar` scales the first two by the share of rows in the published mask, the third
            by that of classes.

    Returns:
        One value per row.

    Raises:
        ValueError: no temperature is given, or one is not positive and finite, a weight is
            negative, there is no such mask, the shapes differ, or there are fewer than two classes.

    Paper:
        Jin, Wang and Lin 2023, "Multi-Level Logit Distillation", section 3. Usual weight 0.9
        beside 0.1 on `hard_label`. It needs the teacher's `logits`, batches of two rows or more,
        and memory for a square of rows and one of classes.

    Example:
        >>> student, teacher = torch.zeros(2, 2), torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> parts = {"instance": 0.0, "batch": 1.0, "classes": 0.0, "mask": "none"}
        >>> multi_level(student, teacher, temperatures=[1.0], **parts)
        tensor([0.4318, 0.4318])
    """
    _check(temperatures, instance, batch, classes, mask)
    own, goal = paired(student, teacher, name="teacher", columns=2)
    rows, columns = _shares(goal) if mask == "scalar" and len(own) else (1.0, 1.0)
    values = own.new_zeros(len(own))
    for temperature in temperatures:
        heat = float(temperature)
        values = values + rows * instance * soft_target_kl(own, goal, temperature=heat)
        p, q = F.softmax(goal / heat, dim=-1), F.softmax(own / heat, dim=-1)
        values = values + rows * batch * (p @ p.T - q @ q.T).square().sum(dim=1)
        values = values + columns * classes * (p.T @ p - q.T @ q).square().sum() / p.shape[1]
    return values


class MultiLevel(nn.Module):
    """`multi_level` with fixed constants."""

    def __init__(
        self,
        *,
        temperatures: Sequence[float | int] = (2.0, 3.0, 4.0, 5.0, 6.0),
        instance: float = 1.0,
        batch: float = 1.0,
        classes: float = 1.0,
        mask: Mask = "scalar",
    ) -> None:
        super().__init__()
        _check(temperatures, instance, batch, classes, mask)
        self.temperatures = tuple(float(t) for t in temperatures)
        self.instance = instance
        self.batch = batch
        self.classes = classes
        self.mask: Mask = mask

    def forward(
        self,
        student: Float[Tensor, " batch classes"],
        teacher: Float[Tensor, " batch classes"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return multi_level(
            student,
            teacher,
            temperatures=self.temperatures,
            instance=self.instance,
            batch=self.batch,
            classes=self.classes,
            mask=self.mask,
        )

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return (
            f"temperatures={self.temperatures}, instance={self.instance}, batch={self.batch}, "
            f"classes={self.classes}, mask={self.mask}"
        )


def _shares(goal: Tensor) -> tuple[Tensor, Tensor]:
    """How many rows, and how many classes, are no surer than the median one, as shares."""
    chances = F.softmax(goal, dim=-1)
    sure, mass = chances.amax(dim=1), chances.sum(dim=0)
    rows, columns = ((x <= torch.quantile(x, 0.5)).to(goal.dtype).mean() for x in (sure, mass))
    return rows, columns


def _check(
    temperatures: Sequence[float | int], instance: float, batch: float, classes: float, mask: str
) -> None:
    if not temperatures:
        raise ValueError(
            f"`temperatures` must name one or more, but got {list(temperatures)}: usual are 2 to 6"
        )
    for temperature in temperatures:
        check_temperature(float(temperature), name="temperatures")
    for name, weight in (("instance", instance), ("batch", batch), ("classes", classes)):
        check_not_negative(name, weight, usual="1")
    check_one_of("mask", mask, ("scalar", "none"))
