"""Some columns of a vocabulary at a time: logits of a linear head, log sums, single places."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

ONEDNN: Final = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def columns_of(vocabulary: int, columns: int) -> list[slice]:
    """The vocabulary, `columns` at a time."""
    return [slice(at, min(at + columns, vocabulary)) for at in range(0, vocabulary, columns)]


def product(rows: Tensor, columns: Tensor, out: Tensor | None = None) -> Tensor:
    """`rows @ columns.T`, of float32 on a processor by oneDNN where PyTorch has it.

    It is in `out` only where it could be computed there.

    PyTorch's own product is MKL's, which on some processors (AMD's) runs at half of their speed.
    """
    if ONEDNN and rows.dtype == torch.float32 and rows.device.type == "cpu":
        done: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, None, "none", [], "")
        return done
    return torch.mm(rows, columns.t(), out=out)


class Projection:
    """The softened logits of some tokens, `[tokens, columns]`, one slice of columns at a time.

    Args:
        hidden: `[tokens, width]` in the precision that is computed in.
        weight: `[vocabulary, width]` of any precision.
        bias: `[vocabulary]` or None.
        scale: before the cap.
        soft_cap: or None.
        temperature: what capped logits are divided by.
        kept: room for the logits of all columns, flat; None where they are computed again.
        capped: False leaves the cap to whoever reads the logits; `peak` is then its size.
    """

    def __init__(
        self,
        hidden: Tensor,
        *,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        soft_cap: float | None,
        temperature: float,
        kept: Tensor | None,
        capped: bool = True,
    ) -> None:
        # The constants go into the few hidden states instead of the many logits.
        self.factor = scale / (temperature if soft_cap is None else soft_cap)
        self.hidden = hidden * self.factor
        self.weight, self.bias, self.kept = weight, bias, kept
        self.peak = None if soft_cap is None else soft_cap / temperature
        self._capped = capped and soft_cap is not None

    def first(self, where: slice) -> Tensor:
        """The logits of these columns, computed."""
        room = None if self.kept is None else self._room(where, self.kept)
        tile = product(self.hidden, self.weight[where].to(self.hidden.dtype), out=room)
        if self.bias is not None:
            tile += self.bias[where].to(tile.dtype) * self.factor
        if self._capped and self.peak is not None:
            tile.tanh_().mul_(self.peak)
        return tile if room is None or tile is room else room.copy_(tile)

    def again(self, where: slice) -> Tensor:
        """The same once more: kept, or computed again."""
        return self.first(where) if self.kept is None else self._room(where, self.kept)

    def uncap(self, slope: Tensor, tile: Tensor) -> None:
        """Take a slope in capped logits `tile` back through the cap, in place."""
        if self._capped and self.peak is not None:
            slope.mul_(1 - (tile / self.peak).square_())

    def _room(self, where: slice, kept: Tensor) -> Tensor:
        # Slice after slice, each in one piece: a row of all columns would be far apart in memory.
        rows, width = len(self.hidden), where.stop - where.start
        return kept[rows * where.start : rows * where.stop].view(rows, width)


class LogSum:
    """The logsumexp of rows whose columns come in slices.

    It is kept in place: small tensors that outlive the large ones beside them would keep the memory
    between them from being used again.
    """

    def __init__(self) -> None:
        self._peak = self._sum = torch.empty(0)

    def add(self, tile: Tensor) -> None:
        """Take in some columns, `[tokens, columns]`."""
        peak = tile.amax(dim=1, keepdim=True)
        if not len(self._peak):
            self._peak = torch.full_like(peak, -torch.inf)
            self._sum = torch.zeros_like(peak)
        torch.maximum(peak, self._peak, out=peak)
        finite = peak.masked_fill(peak == -torch.inf, 0.0)
        self._sum.mul_((self._peak - finite).exp_())
        self._sum += (tile - finite).exp_().sum(dim=1, keepdim=True)
        self._peak.copy_(peak)

    def total(self) -> Tensor:
        """Of all that was taken in, `[tokens, 1]`; -inf where there was nothing but -inf."""
        return self._peak + self._sum.log()


class Places:
    """Single places (token, column), found slice by slice.

    Args:
        ids: int64 `[tokens, k]`, which columns; negative for none.
        columns: how many columns a slice has.
        vocabulary: how many columns there are.
    """

    def __init__(self, ids: Tensor, *, columns: int, vocabulary: int) -> None:
        rows, slots = (ids >= 0).nonzero(as_tuple=True)
        spots = ids[rows, slots]
        count = -(-vocabulary // columns)
        # By slice alone: small numbers are sorted faster, and tokens stay in order within a slice.
        narrow = torch.uint8 if count <= 256 else torch.int32
        numbers, order = (spots // columns).to(narrow).sort(stable=True)
        self._rows, self._slots, self._spots = rows[order], slots[order], spots[order]
        starts = torch.arange(count + 1, device=ids.device)
        self._bounds = torch.searchsorted(numbers.long(), starts).tolist()
        self._columns = columns

    def at(self, where: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The places in a slice: token, which of its k, and column counted from the slice's."""
        number = where.start // self._columns
        part = slice(self._bounds[number], self._bounds[number + 1])
        return self._rows[part], self._slots[part], self._spots[part] - where.start


def portions(rows: Tensor, tokens: int) -> Iterator[Tensor]:
    """Numbers of rows, `tokens` at a time."""
    for start in range(0, len(rows), tokens):
        yield rows[start : start + tokens]
