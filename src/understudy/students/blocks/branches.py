"""What the blocks of a network add to what goes through them: reading it, and adding less or more.

What a block adds is its answer minus its input, where both have one shape; a block that changes
the shape adds all that it gives. On a residual stream these parts, with what the first block is
given, sum up to what the last block gives. A block's own output would not do: it holds what all
blocks before it have added.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.blocks.chain import given_to
from understudy.students.blocks.removal import first_tensor, members, with_first

# The name of what the first block is given, beside the blocks' paths; no module is named so.
START: Final = ":start"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Passage:
    """What went into a block and what came out of it, `[rows, ...]` each."""

    given: Tensor
    made: Tensor

    @property
    def added(self) -> Tensor:
        """What the block adds."""
        return self.made - self.given if self.given.shape == self.made.shape else self.made


@contextmanager
def watching(
    network: nn.Module,
    paths: Sequence[str],
    see: Callable[[str, Passage], None],
    axes: Mapping[str, int],
) -> Iterator[None]:
    """Inside, `see` is called with every passage through these blocks.

    Args:
        network: is run inside.
        paths: of the blocks.
        see: told the path and the passage.
        axes: from `row_axes`.
    """
    given: dict[str, Tensor] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, settings: Any) -> None:
            found = given_to(module, args, settings)
            if found is not None:
                # A copy, as the block may write over it.
                given[path] = found.clone()

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, _args: Any, made: Any) -> None:
            found = first_tensor(made)
            if path in given and found is not None:
                both = (rows_first(one, axes[path]) for one in (given.pop(path), found))
                see(path, Passage(given=next(both), made=next(both)))

        return hook

    with ExitStack() as stack:
        for path in paths:
            first, last = ends_of(network, path)
            begin = first.register_forward_pre_hook(before(path), with_kwargs=True, prepend=True)
            stack.callback(begin.remove)
            stack.callback(last.register_forward_hook(after(path)).remove)
        yield


def row_axes(network: nn.Module, rows: Tensor, paths: Sequence[str]) -> dict[str, int]:
    """On which axis of what goes through a block the rows lie: PyTorch's own put tokens first.

    Raises:
        ModelError: a block has no axis of rows, or the network does not take the rows.
    """
    shapes: dict[str, list[torch.Size]] = {path: [] for path in paths}

    def see(path: str, passage: Passage) -> None:
        shapes[path].append(passage.given.shape)

    with watching(network, paths, see, dict.fromkeys(paths, 0)):
        for count in (2, 3):
            answers(network, torch.cat([rows[:1]] * count), batch_size=count)
    axes = {}
    for path, (two, three) in shapes.items():
        places = range(len(two)) if len(two) == len(three) else ()
        fit = [axis for axis in places if (two[axis], three[axis]) == (2, 3)]
        if not fit:
            raise ModelError(
                f"what goes into `{path}` must have a row for each row, but has the shape "
                f"{list(two)} for 2 and {list(three)} for 3: choose a measure that looks at "
                "answers alone, `skip`"
            )
        axes[path] = fit[0]
    return axes


def rows_first(tensor: Tensor, axis: int) -> Tensor:
    """With the axis of rows before the others."""
    return tensor if axis == 0 else tensor.movedim(axis, 0)


@contextmanager
def scaled(network: nn.Module, scales: Mapping[str, float]) -> Iterator[None]:
    """Inside, what each of these blocks adds is multiplied by its scale.

    Raises:
        ModelError: a block changes the shape of what goes through it.
    """

    def changed(path: str, scale: float) -> tuple[Callable[..., None], Callable[..., Any]]:
        given: list[Tensor] = []

        def before(module: nn.Module, args: Any, settings: Any) -> None:
            found = given_to(module, args, settings)
            given[:] = [] if found is None else [found.clone()]

        def after(_: nn.Module, _args: Any, made: Any) -> Any:
            found = first_tensor(made)
            if not given or found is None or found.shape != given[0].shape:
                raise ModelError(
                    f"`{path}` must give what has the shape of its input for its branch to be "
                    "scaled: leave it out of the scales"
                )
            return with_first(made, given[0] + scale * (found - given[0]))

        return before, after

    with ExitStack() as stack:
        for path, scale in scales.items():
            if scale != 1:
                (first, last), (before, after) = ends_of(network, path), changed(path, scale)
                begin = first.register_forward_pre_hook(before, with_kwargs=True)
                stack.callback(begin.remove)
                stack.callback(last.register_forward_hook(after).remove)
        yield


def ends_of(network: nn.Module, path: str) -> tuple[nn.Module, nn.Module]:
    """The modules that a block begins and ends with: of a single layer, what goes with it too."""
    parts = members(network, path)
    return network.get_submodule(parts[0]), network.get_submodule(parts[-1])


def answers(network: nn.Module, rows: Tensor, *, batch_size: int) -> Tensor:
    """What the network answers, chunk by chunk, float32 or wider, `[rows, ...]`.

    Raises:
        ModelError: it does not take the rows, answers without a tensor, or not one row per row.
    """
    found: list[Tensor] = []
    for part in torch.split(rows, batch_size):
        try:
            made = first_tensor(network(part))
        except ModelError:
            raise
        except Exception as error:  # whatever the user's own forward raises
            raise ModelError(
                f"{type(network).__name__} does not take {rows.dtype} rows {list(rows.shape)} "
                f"({error}): pass rows as they are in the data, preprocessed"
            ) from error
        if made is None or made.ndim < 2 or len(made) != len(part):
            told = "no tensor" if made is None else f"{list(made.shape)}"
            raise ModelError(
                f"{type(network).__name__} must answer with a row per row, but gives {told} for "
                f"{len(part)} rows: wrap it in a module that gives `[rows, width]`"
            )
        found.append(made if made.dtype == torch.float64 else made.float())
    return torch.cat(found)
