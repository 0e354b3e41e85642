"""Making a block add more or less to what goes through it, by changing its own weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from understudy.students.blocks.chain import answer_of, given_to
from understudy.students.blocks.removal import first_tensor
from understudy.students.blocks.surgery import same

_ADD = ("aten::add.Tensor", "aten::add_.Tensor")
_TIMES = ("aten::mul.Tensor", "aten::mul_.Tensor", "aten::div.Tensor")
_LAYERS = ("aten::convolution", "aten::addmm", "aten::mm", "aten::bmm", "aten::linear")


def scale_branches(network: nn.Module, path: str, rows: Tensor, *, scale: float) -> bool:
    """Multiply every residual branch of a block by a number, in place.

    A branch is what a block adds to its input on the way: a block `x + f(x)` becomes
    `x + scale * f(x)`. The number goes into the weight and bias of the layer, or into the factor,
    that a branch ends with. Where a shortcut has weights of its own, the branch is the side that
    went through more layers.

    The sums are found by watching what the block computes. Each change is tried by itself: it must
    multiply that branch and leave the other side of its sum as it was; otherwise nothing is
    changed.

    Args:
        network: it is changed.
        path: of the block.
        rows: two rows or more that the network takes.
        scale: the factor.

    Returns:
        Whether it could be done.

    Raises:
        ModelError: the network does not take the rows.
    """
    block = network.get_submodule(path)
    sums = _watched(network, block, rows)
    outside = {id(p) for p in network.parameters()} - {id(p) for p in block.parameters()}
    ends = [parameter for one in sums for parameter in one.ends]
    shared = len({id(p) for p in ends}) < len(ends) or any(id(p) in outside for p in ends)
    if not sums or shared or not all(one.ends for one in sums):
        return False
    for place, one in enumerate(sums):
        before = [parameter.detach().clone() for parameter in one.ends]
        _multiply(one.ends, scale)
        found = _watched(network, block, rows)
        with torch.no_grad():
            for parameter, value in zip(one.ends, before, strict=True):
                parameter.copy_(value)
        if len(found) != len(sums) or not _as_wanted(one, found[place], scale):
            return False
    _multiply(ends, scale)
    return True


def _multiply(parameters: Sequence[nn.Parameter], scale: float) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sum:
    """One sum on the way through a block: what was there, what is added, and what made that."""

    kept: Tensor
    branch: Tensor
    ends: tuple[nn.Parameter, ...]


def _as_wanted(one: _Sum, other: _Sum, scale: float) -> bool:
    return same(other.kept, one.kept) and same(other.branch, scale * one.branch)


def _watched(network: nn.Module, block: nn.Module, rows: Tensor) -> list[_Sum]:
    watch = _Watch(block)
    with watch.listening(), _plainly():
        answer_of(network, rows[:2])
    return watch.found()


@contextmanager
def _plainly() -> Iterator[None]:
    """Without the fused form of a transformer layer, which shows no sums."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@dataclass(kw_only=True, slots=True)
class _Value:
    """One value that was computed.

    Attributes:
        depth: how many layers it went through.
        near: whether it went through none since the block's input, or since the last sum with it.
        ends: the weights whose multiple it is; None where it is no such thing.
    """

    depth: int = 0
    near: bool = False
    ends: tuple[nn.Parameter, ...] | None = None


class _Watch:
    """Follows values through a block, by where they lie in memory."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._own = {_place(p): p for p in block.parameters()}
        self._values: dict[tuple[int, int], _Value] = {}
        # What is freed could leave its place to another value.
        self._alive: list[Tensor] = []
        self._sums: list[_Sum] = []
        self._pairs: list[_Sum] = []
        self._sure = True

    def found(self) -> list[_Sum]:
        """The sums with what goes around a branch; none where that is not clear."""
        if not self._sure:
            return []
        return self._sums or self._pairs[-1:]

    @contextmanager
    def listening(self) -> Iterator[None]:
        mode = _Mode(self)

        def begin(module: nn.Module, args: Any, settings: Any) -> None:
            given = given_to(module, args, settings)
            if given is not None:
                self._keep(given, _Value(near=True))
            mode.__enter__()  # type: ignore[no-untyped-call]

        def end(_: nn.Module, _args: Any, _made: Any) -> None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

        hooks = [
            self._block.register_forward_pre_hook(begin, with_kwargs=True),
            self._block.register_forward_hook(end, always_call=True),
        ]
        hooks += [
            module.register_forward_hook(self._mark(ends))
            for module in self._block.modules()
            if (ends := _ends(module))
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _mark(self, ends: tuple[nn.Parameter, ...]) -> Callable[..., None]:
        def hook(_: nn.Module, _args: Any, made: Any) -> None:
            tensor = first_tensor(made)
            value = None if tensor is None else self._values.get(_place(tensor))
            if value is not None:
                value.ends = ends

        return hook

    def _keep(self, tensor: Tensor, value: _Value) -> None:
        self._alive.append(tensor)
        self._values[_place(tensor)] = value

    def saw(self, name: str, args: Sequence[Any], made: Any, before: Sequence[Tensor]) -> None:
        """One operation has run; `before` holds the two sides of a sum."""
        tensors = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
        known = [v for t in tensors if (v := self._values.get(_place(t))) is not None]
        value = _Value(
            depth=max((v.depth for v in known), default=0) + (name in _LAYERS),
            near=bool(known) and all(v.near for v in known) and name not in _LAYERS,
        )
        if name in _TIMES:
            value.ends = self._factor(tensors, known)
        if before and len(known) == 2:
            self._sum(known[0], known[1], before, value)
        over = name.partition(".")[0].endswith("_")
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (over or _place(tensor) not in self._values):
                self._keep(tensor, value)

    def _factor(
        self, tensors: Sequence[Tensor], known: Sequence[_Value]
    ) -> tuple[nn.Parameter, ...] | None:
        own = [self._own[_place(t)] for t in tensors if _place(t) in self._own]
        if own:
            return tuple(own) if len(own) == 1 else None
        return known[0].ends if len(tensors) == len(known) == 1 else None

    def _sum(self, one: _Value, other: _Value, sides: Sequence[Tensor], made: _Value) -> None:
        if one.near == other.near:
            # Two sides that went through no layer: what is a branch here is not to be seen.
            self._sure &= not one.near
            if one.ends and other.ends:
                made.ends = (*one.ends, *other.ends)
                if one.depth != other.depth:
                    self._pairs.append(_sorted(one, other, sides, deep=one.depth < other.depth))
            return
        self._sums.append(_sorted(one, other, sides, deep=one.near))
        made.near = True


def _sorted(one: _Value, other: _Value, sides: Sequence[Tensor], *, deep: bool) -> _Sum:
    """The sum with its second side for the branch, or its first."""
    kept, branch = (sides[0], sides[1]) if deep else (sides[1], sides[0])
    return _Sum(kept=kept, branch=branch, ends=(other if deep else one).ends or ())


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        both = name in _ADD and all(isinstance(side, Tensor) for side in args[:2])
        before = [side.clone() for side in args[:2]] if both else []
        made = func(*args, **(kwargs or {}))
        self._watch.saw(name, args, made, before)
        return made


def _ends(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """The weights of a layer whose answer is a multiple of them."""
    if isinstance(module, nn.MultiheadAttention):
        module = module.out_proj
    elif any(True for _ in module.children()):
        return ()
    named = dict(module.named_parameters())
    if not set(named) <= {"weight", "bias"} or "weight" not in named:
        return ()
    return tuple(named.values())


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()
