"""From tensors to kernels: the constants of one loss, and how each kernel is started."""

from contextlib import AbstractContextManager
from typing import Final

import torch
import triton
from torch import Tensor

from understudy.losses.vocabulary.compiled import formulas, kernels
from understudy.losses.vocabulary.parts import Blend, Divergence, Forward, Reverse, Skew

BLOCK: Final = 16384
"""Bytes of logits that a program looks at together: what its registers hold without spilling."""

WARPS: Final = 8


class Launcher:
    """Starts the kernels of one loss.

    Args:
        kind: which divergence; None without a teacher.
        temperature: of the divergence.
        own_peak: the student's cap over T, or None.
        goal_peak: the teacher's, or None.
        stored: whether the teacher's logits are at temperature 1, as a store has them.
        smoothing: of the hard labels.
        share: of the hard labels' slope.
        vocabulary: how many columns there are.
        like: a tensor of the device and of the precision that is computed in.
    """

    def __init__(
        self,
        *,
        kind: Divergence | None,
        temperature: float,
        own_peak: float | None,
        goal_peak: float | None,
        stored: bool,
        smoothing: float,
        share: float,
        vocabulary: int,
        like: Tensor,
    ) -> None:
        number, mixed = _numbered(kind)
        self.kind, self.own_peak, self.share = kind, own_peak, share
        self.heat, self.evenly, self.surely = temperature, smoothing / vocabulary, 1 - smoothing
        self._number, self.like = number, like
        self._capped = {"CAPPED": own_peak is not None}
        self._told = {"GOAL_CAPPED": goal_peak is not None, "COOLED": stored and temperature != 1}
        self._numbers = torch.tensor(
            [
                own_peak or 0.0,
                goal_peak or 0.0,
                1 / temperature,
                temperature,
                share,
                self.evenly,
                self.surely,
                mixed,
            ],
            dtype=like.dtype,
            device=like.device,
        )

    @property
    def alone(self) -> bool:
        """Whether hard labels need sums of their own."""
        return self.heat != 1 or self.evenly != 0

    def pick(self, tile: Tensor, start: int, ids: Tensor, found: Tensor) -> None:
        """The softened logits of `ids` `[tokens, k]` in this tile, into `found`."""
        k = ids.shape[1]
        size = triton.next_power_of_2(max(k, 1))
        with _device_of(tile):
            kernels.pick[(len(tile),)](
                tile,
                tile.stride(0),
                ids,
                found,
                start,
                tile.shape[1],
                self._numbers,
                k,
                K=size,
                num_warps=1,
                **self._capped,
            )

    def put(
        self, tile: Tensor, start: int, ids: Tensor, values: Tensor, *, added: bool = False
    ) -> None:
        """Write values to the places of `ids` in this tile, or add them there."""
        k = ids.shape[1]
        size = triton.next_power_of_2(max(k, 1))
        with _device_of(tile):
            kernels.put[(len(tile),)](
                tile,
                tile.stride(0),
                ids,
                values,
                start,
                tile.shape[1],
                k,
                ADDED=added,
                K=size,
                num_warps=1,
            )

    def look(
        self, tile: Tensor, goal: "Goal | None", sums: Tensor, *, hard: bool, pooling: bool = False
    ) -> None:
        """Add this tile to the log sums, `[7, tokens]`; pooling, without what was taken out."""
        told = goal or Goal(tile, tile)
        with _device_of(tile):
            kernels.look[(len(tile),)](
                tile,
                tile.stride(0),
                told.logits,
                told.logits.stride(0),
                told.rows,
                sums,
                sums.shape[1],
                tile.shape[1],
                self._numbers,
                TOLD=goal is not None,
                HARD=hard,
                POOLING=pooling,
                BLOCK=_block(tile),
                num_warps=WARPS,
                **self._capped,
                **self._told,
            )

    def weigh(
        self, tile: Tensor, goal: "Goal", totals: tuple[Tensor, Tensor], value: Tensor, mean: Tensor
    ) -> None:
        """Add this tile to the value and to the mean."""
        with _device_of(tile):
            kernels.weigh[(len(tile),)](
                tile,
                tile.stride(0),
                goal.logits,
                goal.logits.stride(0),
                goal.rows,
                *totals,
                value,
                mean,
                tile.shape[1],
                self._numbers,
                KIND=self._number,
                BLOCK=_block(tile),
                num_warps=WARPS,
                **self._capped,
                **self._told,
            )

    def slope(
        self,
        tile: Tensor,
        start: int,
        *,
        goal: "Goal | None",
        totals: tuple[Tensor, Tensor],
        value: Tensor,
        mean: Tensor,
        hard: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Write the slope over the logits; without a goal that of a pool, or of hard labels alone.

        Args:
            tile: the logits before the cap.
            start: its first column.
            goal: the teacher's logits in these columns, or None.
            totals: the log sums of the student (or of its pool) and of the teacher.
            value: that of a forward divergence is summed here.
            mean: what the slope needs, or what a pool gets.
            hard: the labels and the log sum at temperature 1.
        """
        told = goal or Goal(tile, tile)
        pooled = formulas.NOTHING if self.kind is None else formulas.POOLED
        labels, every = hard or (tile, tile)
        with _device_of(tile):
            kernels.slope[(len(tile),)](
                tile,
                tile.stride(0),
                told.logits,
                told.logits.stride(0),
                told.rows,
                *totals,
                every,
                value,
                mean,
                labels,
                start,
                tile.shape[1],
                self._numbers,
                KIND=pooled.value if goal is None else self._number,
                HARD=hard is not None,
                BLOCK=_block(tile),
                num_warps=WARPS,
                **self._capped,
                **self._told,
            )


class Goal:
    """The teacher's logits in some columns.

    Args:
        logits: `[any, columns]`, columns next to each other.
        rows: int64 `[tokens]`, where each token's are.
    """

    def __init__(self, logits: Tensor, rows: Tensor) -> None:
        self.logits, self.rows = logits, rows


def try_out(device: torch.device) -> None:
    """Run a first kernel, and wait for it; whatever is missing is raised."""
    tile = torch.zeros(1, 2, device=device)
    launcher = Launcher(
        kind=None,
        temperature=1.0,
        own_peak=None,
        goal_peak=None,
        stored=False,
        smoothing=0.0,
        share=1.0,
        vocabulary=2,
        like=tile,
    )
    sums = torch.zeros(7, 1, device=device)
    launcher.look(tile, None, sums, hard=False)
    if float(sums[1]) != 2.0:
        raise RuntimeError(f"a sum that is 2 came out as {float(sums[1])}")


def _device_of(tile: Tensor) -> AbstractContextManager[None]:
    # Triton starts on the current device, whatever the tensors are on.
    on: AbstractContextManager[None] = torch.cuda.device_of(tile)  # type: ignore[no-untyped-call]
    return on


def _block(tile: Tensor) -> int:
    return min(BLOCK // tile.element_size(), int(triton.next_power_of_2(tile.shape[1])))


def _numbered(kind: Divergence | None) -> tuple[int, float]:
    """A divergence as the kernels know it, and its constant."""
    if kind is None:
        return formulas.NOTHING.value, 0.0
    if isinstance(kind, Forward):
        return formulas.FORWARD.value, 0.0
    if isinstance(kind, Reverse):
        return formulas.REVERSE.value, 0.0
    if isinstance(kind, Blend):
        return formulas.BLEND.value, kind.beta
    assert isinstance(kind, Skew)
    forward = kind.direction == "forward"
    return (formulas.SKEW_FORWARD if forward else formulas.SKEW_REVERSE).value, kind.skew
