"""From a checked loss to the sides that Triton's kernels compute, some tokens at a time."""

from torch import Tensor

from understudy.losses.vocabulary.compiled.launching import Launcher
from understudy.losses.vocabulary.compiled.rows import (
    ComputedRows,
    HardRows,
    ListedRows,
    StoredRows,
    WholeRows,
)
from understudy.losses.vocabulary.parts import DenseLabels, HiddenLabels, LinearHead, ListedLabels
from understudy.losses.vocabulary.sides import Side, Valued
from understudy.losses.vocabulary.work import Work, project


class RowKernels:
    """Makes the sides of one loss.

    Args:
        work: the loss.
        like: a tensor of the device and of the precision that is computed in.
    """

    def __init__(self, work: Work, like: Tensor) -> None:
        self._work = work
        teacher = work.teacher
        head = teacher.head if isinstance(teacher, HiddenLabels) else None
        self._by = Launcher(
            kind=None if teacher is None else work.kind,
            temperature=work.temperature,
            own_peak=_peak(work.head, work.temperature),
            goal_peak=None if head is None else _peak(head, work.temperature),
            stored=isinstance(teacher, DenseLabels),
            smoothing=work.smoothing,
            share=work.share,
            vocabulary=work.vocabulary,
            like=like,
        )

    def pulls(
        self, rows: Tensor, kept: Tensor | None
    ) -> tuple[Valued | None, Valued | None, list[Side]]:
        """Who knows the divergence, who the cross entropy, and who looks at the logits."""
        work, by = self._work, self._by
        hard = None if work.labels is None else HardRows(work.labels[rows], by)
        side: WholeRows | ListedRows
        if isinstance(work.teacher, ListedLabels):
            listed = work.teacher.of(rows)
            side = ListedRows(by, listed, hard=hard, vocabulary=work.vocabulary)
        else:
            goal = self._goal(rows, kept)
            slopes = any(work.wants)
            side = WholeRows(by, goal=goal, hard=hard, tokens=len(rows), slopes=slopes)
        return None if work.teacher is None else side, hard, [side]

    def _goal(self, rows: Tensor, kept: Tensor | None) -> StoredRows | ComputedRows | None:
        teacher = self._work.teacher
        if isinstance(teacher, DenseLabels):
            return StoredRows(teacher.logits.detach(), rows)
        if isinstance(teacher, HiddenLabels):
            hidden = teacher.hidden.index_select(0, rows).to(self._work.dtype)
            return ComputedRows(project(hidden, teacher.head, self._work, kept))
        return None


def _peak(head: LinearHead, temperature: float) -> float | None:
    return None if head.soft_cap is None else float(head.soft_cap) / temperature
