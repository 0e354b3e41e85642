"""Value and gradient of a loss over a large vocabulary in one forward pass, piece by piece."""

from dataclasses import replace
from importlib import import_module
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from understudy.losses.vocabulary.parts import DenseLabels, HiddenLabels, Labels, ListedLabels
from understudy.losses.vocabulary.sides import (
    Drawn,
    Hard,
    Listed,
    Side,
    Stored,
    Totalled,
    Valued,
    Whole,
)
from understudy.losses.vocabulary.tiles import Projection, columns_of, portions, product
from understudy.losses.vocabulary.work import Work, project

KERNELS: Final = "understudy.losses.vocabulary.compiled.making"
"""Imported where it is used, as it needs Triton."""


@runtime_checkable
class Kernels(Protocol):
    """Who computes by Triton what is not a product; `_Sums` calls it."""

    def pulls(
        self, rows: Tensor, kept: Tensor | None
    ) -> tuple[Valued | None, Valued | None, list[Side]]:
        """Who knows the divergence, who the cross entropy, and who looks at the logits."""


class FusedLoss(torch.autograd.Function):
    """The sum over tokens divided by the denominator, and the values of both sides."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: Work
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, a scalar; the divergences and the cross entropies, `[tokens]`."""
        with torch.autocast(hidden.device.type, enabled=False):
            sums = _Sums(hidden, weight, bias, work)
            sums.run()
        ctx.save_for_backward(*sums.gradients())
        ctx.mark_non_differentiable(sums.soft, sums.hard)
        total = work.soft_weight * sums.soft.sum() + work.hard_weight * sums.hard.sum()
        return total / work.denominator, sums.soft, sums.hard

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Hand on what forward has computed, times the upstream gradient."""
        saved = ctx.saved_tensors
        # The weight's gradient is large: it is only copied where it has to be.
        if not bool(upstream == 1):
            saved = tuple(None if g is None else g * upstream.to(g.dtype) for g in saved)
        return *saved, None


class _Sums:
    """What grows while the tokens are gone through: values, and gradients."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: Work) -> None:
        self.hidden, self.weight, self.bias, self.work = hidden, weight, bias, work
        self.soft = hidden.new_zeros(len(hidden), dtype=work.dtype)
        self.hard = torch.zeros_like(self.soft)
        like = (hidden, weight, bias)
        self.to_hidden, self.to_weight, self.to_bias = (
            torch.zeros_like(tensor, dtype=work.dtype) if wanted and tensor is not None else None
            for tensor, wanted in zip(like, work.wants, strict=True)
        )
        self.kernels: Kernels | None = None
        if work.compiled:
            self.kernels = import_module(KERNELS).RowKernels(work, self.soft)

    def run(self) -> None:
        """Go through all tokens that count."""
        work = self.work
        tokens = min(work.pieces.tokens, len(work.rows))
        room = tokens * work.vocabulary if work.pieces.keep else 0
        kept = self.soft.new_empty(2 if isinstance(work.teacher, HiddenLabels) else 1, room)
        for rows in portions(work.rows, work.pieces.tokens):
            self._portion(rows, kept if room else None)

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Of the hidden states, the weight and the bias, in their own precision."""
        pairs = (
            (self.hidden, self.to_hidden),
            (self.weight, self.to_weight),
            (self.bias, self.to_bias),
        )
        return tuple(g if g is None or t is None else g.to(t.dtype) for t, g in pairs)

    def _portion(self, rows: Tensor, kept: Tensor | None) -> None:
        work = self.work
        cuts = columns_of(work.vocabulary, work.pieces.columns)
        hidden = self.hidden.index_select(0, rows).to(work.dtype)
        head = replace(work.head, weight=self.weight, bias=self.bias)
        own = project(hidden, head, work, None if kept is None else kept[0])
        soft, hard, sides = self._pulls(rows, None if kept is None else kept[-1])
        for where in cuts:
            tile = own.first(where)
            for side in sides:
                side.look(where, tile)
        for side in sides:
            side.settle()
        for side in sides:
            for where in cuts if side.twice else []:
                side.weigh(where, own.again(where))
        if any(work.wants):
            self._descend(rows, hidden, own, sides, cuts)
        if soft is not None:
            # Rounding may leave an exact divergence a little below 0; an estimate may be below.
            drawn = isinstance(work.teacher, ListedLabels) and work.teacher.sampled
            value = soft.value if drawn else soft.value.clamp_min(0)
            self.soft[rows] = work.temperature**2 * value
        if hard is not None:
            self.hard[rows] = hard.value

    def _descend(
        self,
        rows: Tensor,
        hidden: Tensor,
        own: Projection,
        sides: list[Side],
        cuts: list[slice],
    ) -> None:
        factor = self.work.factor
        pulled, pulling = torch.zeros_like(hidden), hidden * factor
        for where in cuts:
            tile = own.again(where)
            slope = sides[0].slope(where, tile)
            for side in sides[1:]:
                slope += side.slope(where, tile)
            own.uncap(slope, tile)
            if self.to_hidden is not None:
                pulled += product(slope, self.weight[where].to(slope.dtype).t())
            if self.to_weight is not None:
                self.to_weight[where].addmm_(slope.t(), pulling)
            if self.to_bias is not None:
                self.to_bias[where] += slope.sum(dim=0).mul_(factor)
        if self.to_hidden is not None:
            self.to_hidden[rows] = pulled.mul_(factor)

    def _pulls(
        self, rows: Tensor, kept: Tensor | None
    ) -> tuple[Valued | None, Valued | None, list[Side]]:
        """Who knows the divergence, who the cross entropy, and who looks at the logits."""
        if self.kernels is not None:
            return self.kernels.pulls(rows, kept)
        soft, hard = self._sides(rows, kept)
        carried = isinstance(soft, Listed) and soft.carries is not None
        return soft, hard, [x for x in (soft, None if carried else hard) if x is not None]

    def _sides(self, rows: Tensor, kept: Tensor | None) -> tuple[Side | None, Side | None]:
        work = self.work
        soft = None if work.teacher is None else self._soft(work.teacher, rows, kept)
        if work.labels is None:
            return soft, None
        alike = work.temperature == 1
        whole: Totalled | None = soft.own if isinstance(soft, Whole) and alike else None
        whole = soft if isinstance(soft, Listed) and alike else whole
        hard = Hard(
            work.labels[rows],
            smoothing=work.smoothing,
            temperature=work.temperature,
            share=work.share,
            total=whole,
            vocabulary=work.vocabulary,
            columns=work.pieces.columns,
            like=self.soft,
        )
        if isinstance(soft, Listed) and alike:
            soft.carries = hard
        return soft, hard

    def _soft(self, teacher: Labels, rows: Tensor, kept: Tensor | None) -> Side:
        work, slopes = self.work, any(self.work.wants)
        if isinstance(teacher, HiddenLabels):
            hidden = teacher.hidden.index_select(0, rows).to(work.dtype)
            return Whole(work.kind, project(hidden, teacher.head, work, kept), slopes=slopes)
        if isinstance(teacher, DenseLabels):
            stored = Stored(teacher.logits, rows, temperature=work.temperature, like=self.soft)
            return Whole(work.kind, stored, slopes=slopes)
        labels = teacher.of(rows)
        sizes = {"vocabulary": work.vocabulary, "columns": work.pieces.columns}
        if labels.sampled:
            return Drawn(labels, **sizes, like=self.soft)
        return Listed(work.kind, labels, temperature=work.temperature, **sizes, like=self.soft)
