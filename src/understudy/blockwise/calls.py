"""How a block is called: rows of a call, a call with one argument, and what is masked."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.words import Call

# Masks of PyTorch's own over pairs of tokens: they have no axis of rows.
PAIRS = ("attn_mask", "src_mask")
_PADDING = "key_padding_mask"
# What is added to a logit to hide it is far below this.
_HIDDEN = -1e3


def taken(value: Any, rows: int, index: Tensor) -> Any:
    """What belongs to some rows of an argument.

    Args:
        value: a tensor, or tuples, lists and dictionaries of them; all else is given back as is.
        rows: how many rows the call has; a tensor with another first axis belongs to all rows.
        index: int64 `[chosen]`.
    """
    if isinstance(value, Tensor):
        own = value.ndim > 0 and len(value) == rows
        return value.index_select(0, index.to(value.device)) if own else value
    if type(value) in (tuple, list):
        return type(value)(taken(item, rows, index) for item in value)
    if type(value) is dict:
        return {name: taken(item, rows, index) for name, item in value.items()}
    return value


def rows_of(call: Call, index: Tensor) -> Call:
    """The call with these rows only, int64 `[chosen]`."""
    rows = len(call.stream)
    kwargs = {
        name: value if name in PAIRS else taken(value, rows, index)
        for name, value in call.kwargs.items()
    }
    return Call(
        stream=call.stream.index_select(0, index),
        args=tuple(taken(value, rows, index) for value in call.args),
        kwargs=kwargs,
        gives=call.gives.index_select(0, index),
    )


class Alone(nn.Module):
    """A block as a network of one argument; its other arguments are those of a call.

    Example:
        >>> call = Call(stream=torch.zeros(4, 8), gives=torch.zeros(4, 2))
        >>> Alone(nn.Linear(8, 2), call)(torch.zeros(3, 8)).shape
        torch.Size([3, 2])
    """

    def __init__(self, piece: nn.Module, call: Call) -> None:
        """Hold the block, and the arguments of the first rows of `call` for as many rows."""
        super().__init__()
        self.piece = piece
        self._call = (call,)

    def forward(self, stream: Tensor) -> Tensor:
        """`[rows, ...]` to what the block gives; no more rows than the call has."""
        (call,) = self._call
        count = stream.shape[0]
        if count != len(call.stream):
            call = rows_of(call, torch.arange(count))
        answer: Tensor = self.piece(stream, *call.args, **call.kwargs)
        return answer


def allowed(stream: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Which tokens may look at which, bool `[rows or 1, 1, queries or 1, keys]`.

    Known are the arguments of PyTorch's own layers and those of Hugging Face models. None where
    nothing is masked, or the stream holds no tokens.

    Args:
        stream: `[rows, tokens, width]`.
        args: the positional arguments behind it.
        kwargs: the named ones.
    """
    if stream.ndim != 3:
        return None
    found = [_shown(value) for value in args if _is_mask(value, stream)]
    for name, value in kwargs.items():
        if not isinstance(value, Tensor):
            continue
        if name.endswith(_PADDING):
            found.append(~_seen(value, hidden=True)[:, None, None, :])
        elif name in PAIRS:
            pairs = ~_seen(value, hidden=True)
            found.append(pairs[None, None] if pairs.ndim == 2 else pairs[:, None])
        elif name == "attention_mask":
            found.append(_shown(value))
    if not found:
        return None
    whole = found[0]
    for other in found[1:]:
        whole = whole & other
    return whole


def visible(call: Call) -> Tensor | None:
    """Which tokens of the answer count, bool `[rows, tokens]`; None: all numbers do."""
    mask = allowed(call.stream, call.args, call.kwargs)
    if mask is None or call.gives.ndim != 3 or mask.shape[-1] != call.gives.shape[1]:
        return None
    return mask.any(dim=1).any(dim=1).expand(len(call.stream), -1)


def features_axis(piece: nn.Module, ndim: int) -> int:
    """Which axis of `[rows, ...]` counts features: the last, or 1 of maps."""
    if ndim == 3:
        maps = (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)
        return 1 if any(isinstance(part, maps) for part in piece.modules()) else 2
    return 1


def _is_mask(value: Any, stream: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.ndim not in (2, 4):
        return False
    if value.shape[-1] != stream.shape[1]:
        return False
    return value.ndim == 4 or (value.dtype == torch.bool and len(value) == len(stream))


def _shown(mask: Tensor) -> Tensor:
    """A mask of Hugging Face's: True, 1 or an added 0 shows a token."""
    if mask.ndim == 2:
        return mask[:, None, None, :] > 0
    return _seen(mask, hidden=False)


def _seen(mask: Tensor, *, hidden: bool) -> Tensor:
    """As bool: what is hidden, or what is shown, by a mask that may be added to logits."""
    if mask.is_floating_point():
        return mask < _HIDDEN if hidden else mask > _HIDDEN
    return mask.bool()
