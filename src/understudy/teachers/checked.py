"""A guard around any teacher: a broken one is refused before it teaches, with the rows named."""

import torch
from torch import Tensor

from understudy.contracts import Batch, Knowledge, Ragged, Teacher, per_position
from understudy.errors import ModelError


class CheckedTeacher:
    """Passes knowledge on after looking at it: finite always, not constant in the first batch."""

    def __init__(self, teacher: Teacher, *, finite: bool = True, compare: bool = True) -> None:
        """Guard `teacher`.

        Args:
            teacher: to look at.
            finite: whether rows that are not are refused here; else somebody else looks after them.
            compare: whether the first batch must have different answers. A pass that goes on may
                begin with a batch of two rows that are rightly answered alike.
        """
        self._teacher, self._finite = teacher, finite
        self._compared = not compare

    @property
    def offers(self) -> frozenset[str]:
        """What the teacher offers."""
        return self._teacher.offers

    def __call__(self, batch: Batch) -> Knowledge:
        """The teacher's knowledge; of the positions that count, where it is asked per token.

        Raises:
            ModelError: an answer that is not finite, or the same for every row.
        """
        knowledge = self._teacher(batch)
        if batch.positions is not None:
            counted = batch.positions
            knowledge = Knowledge(
                fields={n: per_position(f"the teacher's {n}", told, counted)
                        for n, told in knowledge.items()}
            )  # fmt: skip
        # Equal rows are answered equally by the best of teachers.
        comparable = not self._compared and not _all_equal(batch.inputs)
        for name, told in knowledge.items():
            value = told.values if isinstance(told, Ragged) else told
            if not isinstance(value, Tensor) or not len(value):
                continue
            rows = value.reshape(len(value), -1)
            if self._finite:
                lengths = told.lengths if isinstance(told, Ragged) else None
                _refuse_bad(name, rows, batch, lengths)
            if comparable and _all_equal(rows):
                raise ModelError(
                    f"the teacher gives the same {name} for all of the first {len(rows)} rows "
                    f"({[round(float(x), 4) for x in rows[0, :4]]}...), so it can teach nothing: "
                    "check its weights and its scaling of the inputs"
                )
        self._compared = self._compared or comparable
        return knowledge


def _refuse_bad(name: str, rows: Tensor, batch: Batch, lengths: Tensor | None) -> None:
    bad = ~rows.isfinite().all(dim=1)
    if not bool(bad.any()):
        return
    if lengths is not None:  # of positions: the rows that they stand in
        owners = torch.arange(len(lengths), device=bad.device)
        owners = owners.repeat_interleave(lengths.to(bad.device))
        bad = torch.zeros(len(lengths), dtype=torch.bool, device=bad.device).index_fill(
            0, owners[bad], True
        )
        rows = bad
    where = torch.nonzero(bad).flatten()[:5]
    named = where if batch.ids is None else batch.ids[where]
    raise ModelError(
        f"a teacher's {name} must be finite, but {int(bad.sum())} of {len(rows)} rows are not "
        f"(rows {', '.join(str(int(i)) for i in named)}): check its weights, its scaling of the "
        "inputs and its precision; stored labels can leave such rows out (`on_bad_rows: skip`)"
    )


def _all_equal(rows: Tensor) -> bool:
    return bool((rows == rows[:1]).all())
