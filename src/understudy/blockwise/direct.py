"""The shortest way around a block: pooling and one linear layer, solved for in closed form."""

from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.calls import features_axis, visible
from understudy.blockwise.words import Call
from understudy.errors import ModelError

# Of the mean variance of the inputs: few rows do not determine a wide layer.
_RIDGE = 1e-4


class Direct(nn.Module):
    """A way around a block: what goes in, pooled and put through one linear layer where needed.

    Takes the block's other arguments and does without them.

    Args:
        takes: `(channels, *sizes)` of a map, `(tokens, width)`, or `(width,)`.
        gives: likewise of the block's answer.
        maps: whether rows of more than one axis are maps, not tokens.
        project: whether there is a layer also where both shapes are the same.
        rectify: whether a ReLU ends it.

    Raises:
        ModelError: no pooling leads from the one shape to the other.
    """

    def __init__(
        self,
        takes: tuple[int, ...],
        gives: tuple[int, ...],
        *,
        maps: bool,
        project: bool,
        rectify: bool,
    ) -> None:
        super().__init__()
        self.pool, self.mean = _pooling(takes, gives, maps=maps)
        self.maps = maps and len(gives) > 1
        self.layer: nn.Module = nn.Identity()
        axis = 0 if maps else -1
        if project or takes[axis] != gives[axis if len(gives) > 1 else 0]:
            inputs, outputs = takes[axis], gives[axis if len(gives) > 1 else 0]
            convolution: Any = {2: nn.Conv1d, 3: nn.Conv2d}.get(len(gives))
            self.layer = (
                convolution(inputs, outputs, 1) if self.maps else nn.Linear(inputs, outputs)
            )
        self.last: nn.Module = nn.ReLU() if rectify else nn.Identity()

    def forward(self, stream: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """`[rows, *takes]` to `[rows, *gives]`."""
        answer: Tensor = self.last(self.layer(self.pooled(stream)))
        return answer

    def pooled(self, stream: Tensor) -> Tensor:
        """What the layer is given."""
        pooled: Tensor = self.pool(stream)
        return pooled.mean(dim=self.mean) if self.mean else pooled

    def fit(self, call: Call) -> None:
        """Give the layer the weights with the smallest squared error on a call, in closed form."""
        if isinstance(self.layer, nn.Identity):
            return
        given, wanted = self.pooled(call.stream), call.gives
        if self.maps:
            given, wanted = given.movedim(1, -1), wanted.movedim(1, -1)
        seen = visible(call)
        if seen is not None:
            given, wanted = given[seen], wanted[seen]
        x, y = (one.detach().double().flatten(0, -2) for one in (given, wanted))
        about, goal = x.mean(dim=0), y.mean(dim=0)
        gram = (x - about).T @ (x - about)
        size = _RIDGE * gram.diagonal().mean().clamp(min=1e-12)
        ridge = size * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weight = torch.linalg.solve(gram + ridge, (x - about).T @ (y - goal)).T
        with torch.no_grad():
            for name, value in (("weight", weight), ("bias", goal - weight @ about)):
                own = getattr(self.layer, name)
                own.copy_(value.reshape(own.shape))


def direct(piece: nn.Module, call: Call, *, project: bool) -> Direct:
    """A `Direct` for a block, fitted to how it was called.

    Where the block's answers are never negative, a ReLU keeps them so, which cannot be farther
    from them.

    Raises:
        ModelError: the shapes of the block allow none.
    """
    takes, gives = tuple(call.stream.shape[1:]), tuple(call.gives.shape[1:])
    if not call.stream.is_floating_point():
        raise ModelError("what goes into the block is no floating-point tensor")
    maps = len(takes) > 1 and features_axis(piece, len(takes) + 1) == 1
    needed = project or takes != gives
    made = Direct(takes, gives, maps=maps, project=project,
                  rectify=needed and bool((call.gives >= 0).all()))  # fmt: skip
    made.to(call.stream)
    made.fit(call)
    return made


def _pooling(
    takes: tuple[int, ...], gives: tuple[int, ...], *, maps: bool
) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer that brings a map to its new size, and the axes that a mean is taken over."""
    if maps and len(gives) == 1:
        return nn.Identity(), tuple(range(2, len(takes) + 1))
    if len(takes) == len(gives) <= (3 if maps else 2):
        sizes = (takes[1:], gives[1:]) if maps else (takes[:-1], gives[:-1])
        if sizes[0] == sizes[1]:
            return nn.Identity(), ()
        step = -(-sizes[0][0] // max(sizes[1][0], 1))
        if maps and all(-(-old // step) == new for old, new in zip(*sizes, strict=True)):
            if len(takes) == 2:
                return nn.AvgPool1d(step, ceil_mode=True, count_include_pad=False), ()
            return nn.AvgPool2d(step, ceil_mode=True, count_include_pad=False), ()
    raise ModelError(f"no pooling and linear layer leads from {list(takes)} to {list(gives)}")
