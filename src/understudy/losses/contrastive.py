"""Contrastive representation distillation: the same example is told from many others."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.losses.constants import NoConstants
from understudy.losses.rows import related

EPS: Final = 1e-7
"""The authors' guard beside k / rows."""


def crd(
    student: Float[Tensor, " batch width"],
    teacher: Float[Tensor, " batch width"],
    *,
    student_bank: Float[Tensor, " batch candidates width"],
    teacher_bank: Float[Tensor, " batch candidates width"],
    student_constant: Float[Tensor, ""],
    teacher_constant: Float[Tensor, ""],
    rows: Float[Tensor, ""],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    """Noise contrastive estimation of which candidate is the same example, from both sides.

    Each student's embedding is held against the teacher's bank and the other way round. With
    P = exp(similarity / T) / constant, a candidate is taken for the same example with
    probability P / (P + k / rows): that of the positive should be 1, those of the k negatives 0.
    Computed from logarithms, with the authors' 1e-7 beside k / rows.

    There is no value 0: even a perfect student cannot tell itself from its noise. What an adapter
    makes of the two (embeddings, banks, constants) must come from one adapter, with its `rows` and
    its `temperature`.

    Args:
        student: embeddings on the unit sphere; they have a gradient.
        teacher: embeddings on the unit sphere. THEY ARE NOT DETACHED: their embedding learns too.
        student_bank: remembered student embeddings; candidate 0 is the row's own, the other k are
            negatives. Detached, as the other bank.
        teacher_bank: remembered teacher embeddings of the same candidates.
        student_constant: Z, what brings the student's exp(similarity / T) to a mean of 1 / rows.
        teacher_constant: Z of the teacher's.
        rows: how many examples the banks remember, a scalar.
        temperature: T, a scalar.

    Returns:
        One value per row: minus the logarithms of all its 2 (k + 1) right answers, in nats.

    Raises:
        ValueError: shapes differ, or there is no negative.

    Paper:
        Tian, Krishnan and Isola 2020, "Contrastive Representation Distillation", section 3.2 and
        equation 18. Usual weight 0.8 beside `hard_label`, or beside 1 on `soft_target` too; it
        needs features of the teacher and ids of the rows.

    Example:
        >>> own, bank, one = torch.eye(2), torch.eye(2).expand(2, 2, 2), torch.tensor(1.0)
        >>> held = {"student_bank": bank, "teacher_bank": bank}
        >>> scale = {"student_constant": one, "teacher_constant": one, "rows": 2 * one}
        >>> crd(own, own, **held, **scale, temperature=one)
        tensor([2.5349, 4.5349])
    """
    own, goal = related(student, teacher, both=True)
    _check_banks(own, goal, student_bank, teacher_bank)
    negatives = student_bank.shape[1] - 1
    noise = negatives / rows.to(own.dtype)
    parts = [
        _told_apart(anchors, bank, constant, noise, temperature)
        for anchors, bank, constant in (
            (own, teacher_bank, student_constant),
            (goal, student_bank, teacher_constant),
        )
    ]
    return parts[0] + parts[1]


class CRD(NoConstants):
    """`crd`; its constants are the adapter's, which must fix Z with the same ones."""

    def forward(
        self,
        student: Float[Tensor, " batch width"],
        teacher: Float[Tensor, " batch width"],
        *,
        student_bank: Float[Tensor, " batch candidates width"],
        teacher_bank: Float[Tensor, " batch candidates width"],
        student_constant: Float[Tensor, ""],
        teacher_constant: Float[Tensor, ""],
        rows: Float[Tensor, ""],
        temperature: Float[Tensor, ""],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return crd(
            student,
            teacher,
            student_bank=student_bank,
            teacher_bank=teacher_bank,
            student_constant=student_constant,
            teacher_constant=teacher_constant,
            rows=rows,
            temperature=temperature,
        )


def _told_apart(
    anchors: Float[Tensor, " batch width"],
    bank: Float[Tensor, " batch candidates width"],
    constant: Float[Tensor, ""],
    noise: Float[Tensor, ""],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    held = bank.detach().to(anchors.dtype)
    alike = (held @ anchors.unsqueeze(2)).squeeze(2) / temperature.to(anchors.dtype)
    # log of P over the noise: the odds for "the same example".
    odds = alike - constant.detach().to(anchors.dtype).log() - (noise + EPS).log()
    missed = F.softplus(-odds[:, 0])
    mistaken = F.softplus(odds[:, 1:]).sum(dim=1)
    # The authors' 1e-7 stands in one of two places only, which leaves a little for each negative.
    left = (bank.shape[1] - 1) * torch.log1p(EPS / noise)
    return missed + mistaken + left


def _check_banks(own: Tensor, goal: Tensor, student_bank: Tensor, teacher_bank: Tensor) -> None:
    if own.shape != goal.shape:
        raise ValueError(
            f"`student.shape == teacher.shape` must hold, but got student {tuple(own.shape)} and "
            f"teacher {tuple(goal.shape)}: embed both in the same width"
        )
    for name, bank in (("student_bank", student_bank), ("teacher_bank", teacher_bank)):
        shape = tuple(bank.shape)
        fits = bank.ndim == 3 and shape[0] == len(own) and shape[2] == own.shape[1]
        if not fits or bank.shape != student_bank.shape or shape[1] < 2:
            raise ValueError(
                f"`{name}` must be [batch, 1 + k, width] with `k >= 1`, alike for both, but got "
                f"{name} {shape}, student_bank {tuple(student_bank.shape)} and student "
                f"{tuple(own.shape)}"
            )
