"""A block alone, other modules in the place of blocks, and what passes through each block.

The data classes of the room are in `words.py` and can be imported from here too.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from understudy.blockwise.words import Block, Call, Candidate, Damage, Partition, Rest
from understudy.errors import ModelError, did_you_mean
from understudy.students.blocks.chain import resting
from understudy.students.blocks.removal import declared, first_tensor, taken

__all__ = [
    "Block",
    "Call",
    "Candidate",
    "Damage",
    "Partition",
    "Piece",
    "Placed",
    "Rest",
    "parted",
    "passing",
    "piece",
    "replaced",
]

_PLAIN = (bool, int, float, str, torch.dtype, torch.device)


class Piece(nn.Module):
    """Modules one after the other: `(stream, *args, **kwargs)` to the stream behind the last.

    Every module gets the first tensor of what the one before it gives, and the same other
    arguments.

    Args:
        modules: one or more.
        bare: for each, whether it is called with the stream alone; by default none is.

    Raises:
        ValueError: there are no modules, or not as many marks.
    """

    def __init__(self, modules: Sequence[nn.Module], *, bare: Sequence[bool] | None = None) -> None:
        super().__init__()
        marks = [False] * len(modules) if bare is None else list(bare)
        if not modules or len(marks) != len(modules):
            raise ValueError(
                "`len(modules) == len(bare) >= 1` must hold, but got "
                f"{len(modules)} modules and {len(marks)} marks"
            )
        self.parts = nn.ModuleList(modules)
        self.bare = tuple(marks)

    def forward(self, stream: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The stream after all modules."""
        for module, alone in zip(self.parts, self.bare, strict=True):
            made = module(stream) if alone else module(stream, *args, **kwargs)
            found = first_tensor(made)
            if found is None:
                raise ModelError(
                    f"{type(module).__name__} gives no tensor: it cannot be in a block"
                )
            stream = found
        return stream


class Placed(nn.Module):
    """Stands where a module was: takes its arguments, and answers in its form.

    Args:
        part: what makes the stream, or None to pass the stream on.
        like: the module whose place this is. Its attributes are there too, without weights, since
            networks read some of them.
        items: how many items its tuple has, 0 for a bare tensor. What follows the first is None,
            except that a recurrent layer's last hidden state is read from the stream.
    """

    def __init__(self, part: nn.Module | None, *, like: nn.Module, items: int) -> None:
        super().__init__()
        self.part = part
        # In a tuple, so that it is no part of this module.
        self._like = (_hollow(like),)
        self.declares = taken(like)
        self.items = items
        self.recurrent = ""
        if isinstance(like, nn.RNNBase):
            self.recurrent = "lstm" if isinstance(like, nn.LSTM) else "gru"
            self.time = 1 if like.batch_first else 0
            self.directions = 2 if like.bidirectional else 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module's callers expect."""
        stream, others, named = parted(self, args, kwargs)
        if self.part is not None:
            stream = self.part(stream, *others, **named)
        if self.recurrent:
            hidden = self._last(stream)
            return stream, ((hidden, None) if self.recurrent == "lstm" else hidden)
        if self.items:
            return (stream, *(None for _ in range(self.items - 1)))
        return stream

    def __getattr__(self, name: str) -> Any:
        """What this module does not have, as the module had it that was here."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            like = self.__dict__.get("_like")
            if like is None or name.startswith("__"):
                raise
            return getattr(like[0], name)

    def _last(self, stream: Tensor) -> Tensor:
        """The top layer's state after the last step, `[directions, rows, size]`."""
        forth = stream.select(self.time, -1)
        if self.directions == 1:
            return forth.unsqueeze(0)
        half = forth.shape[-1] // 2
        back = stream.select(self.time, 0)
        return torch.stack([forth[..., :half], back[..., half:]])


def parted(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """A call's stream, its other positional and its other named arguments.

    The stream is the first tensor, in the order in which the module declares what it takes.

    Raises:
        ModelError: the first argument is no tensor.
    """
    if args and isinstance(args[0], Tensor):
        return args[0], tuple(args[1:]), dict(kwargs)
    ordered = declared(module, kwargs).items()
    name = next((name for name, value in ordered if isinstance(value, Tensor)), None)
    if args or name is None:
        given = type(args[0]).__name__ if args else "no tensor"
        raise ModelError(
            f"a block must take a tensor as its first argument, but is given {given}: cut where "
            "one tensor crosses"
        )
    others = {key: value for key, value in kwargs.items() if key != name}
    return kwargs[name], (), others


def piece(network: nn.Module, block: Block) -> Piece:
    """A copy of a block's modules, to be called by themselves.

    Raises:
        ModelError: the network has no such modules.
    """
    modules = [_module(network, path) for path in block.paths]
    return Piece(deepcopy(modules), bare=[path in block.bare for path in block.paths])


def replaced(
    network: nn.Module, partition: Partition, candidates: Mapping[str, nn.Module]
) -> nn.Module:
    """A copy of the network with copies of other modules in the place of blocks.

    The first path of a block holds its candidate, and the others pass the stream on; each answers
    in the form of the module that was there. Without candidates it is the network as it was.

    Args:
        network: it is not changed.
        partition: of this network.
        candidates: by the name of the block; each is called `(stream, *args, **kwargs)` and gives
            the stream.

    Raises:
        ModelError: the partition has no such block, or the network no such modules.
    """
    return placed(network, partition, candidates, shared={})


def placed(
    network: nn.Module,
    partition: Partition,
    candidates: Mapping[str, nn.Module],
    *,
    shared: Mapping[int, Tensor],
) -> nn.Module:
    """As `replaced`, but tensors in `shared`, by their `id`, are used and not copied."""
    # What stands here for a module is put in its place wherever the copy meets it.
    memo: dict[int, Any] = dict(shared)
    for name, candidate in candidates.items():
        block = partition[name]
        for place, path in enumerate(block.paths):
            module = _module(network, path)
            part = deepcopy(candidate, dict(shared)) if place == 0 else None
            stand = Placed(part, like=module, items=block.items[place] if block.items else 0)
            stand.training = module.training
            memo[id(module)] = stand
    made: nn.Module = deepcopy(network, memo)
    return made


def passing(network: nn.Module, partition: Partition, rows: Tensor) -> dict[str, Call]:
    """What every block is given and gives in one forward pass of the rows, at rest.

    Args:
        network: it is left as found.
        partition: of this network, or of one that `replaced` made of it.
        rows: what the network takes as its one argument.

    Raises:
        ModelError: the network does not take the rows, or a block does not run.
    """
    begun: dict[str, tuple[Any, ...]] = {}
    calls: dict[str, Call] = {}

    def before(block: Block) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            stream, others, named = parted(module, args, kwargs)
            begun[block.name] = kept(stream), kept(others), kept(named)

        return hook

    def after(block: Block) -> Callable[..., None]:
        def hook(_: nn.Module, _args: Any, made: Any) -> None:
            stream, others, named = begun[block.name]
            gives = kept(first_tensor(made))
            calls[block.name] = Call(stream=stream, args=others, kwargs=named, gives=gives)

        return hook

    hooks: list[Any] = []
    for block in partition.blocks:
        first, last = _module(network, block.paths[0]), _module(network, block.paths[-1])
        hooks.append(first.register_forward_pre_hook(before(block), with_kwargs=True))
        hooks.append(last.register_forward_hook(after(block)))
    try:
        with resting(network):
            network(rows)
    except ModelError:
        raise
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"{type(network).__name__} does not take {rows.dtype} rows {list(rows.shape)} "
            f"({error}): pass rows as they are in the data, preprocessed"
        ) from error
    finally:
        for one in hooks:
            one.remove()
    missing = [block.name for block in partition.blocks if block.name not in calls]
    if missing:
        raise ModelError(f"block `{missing[0]}` does not run with these rows: divide them anew")
    return calls


def kept(value: Any) -> Any:
    """A copy of arguments without gradient; whatever holds a state of its own becomes None."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: kept(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [kept(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value if isinstance(value, _PLAIN) else None


def _hollow(module: nn.Module) -> nn.Module:
    """A copy whose tensors take no memory."""
    memo = {id(t): t.detach().to("meta") for t in (*module.parameters(), *module.buffers())}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(memo[id(parameter)], requires_grad=False)
    made: nn.Module = deepcopy(module, memo)
    return made


def near(path: str, names: Sequence[str]) -> str:
    """What a misspelt path may have meant, and the paths beside it."""
    parent = path.rpartition(".")[0]
    beside = [name for name in names if name.rpartition(".")[0] == parent]
    return did_you_mean(path, beside or [name for name in names if "." not in name])


def _module(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in network.named_modules() if name]
        raise ModelError(
            f"{type(network).__name__} has no module `{path}`: {near(path, names)}"
        ) from None
