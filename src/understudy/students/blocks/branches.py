"""What the blocks of a network add to what goes through them: reading it, and adding less or more.

What a block adds is its answer minus its input, where both have one shape; a block that changes
the shape adds all that it gives. On a residual stream these parts, with what the first block is
given, sum up to what the last block gives. A block's own output would not do: it holds what all
blocks before it have added.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.blocks.chain import given_to
from understudy.students.blocks.removal import first_tensor, members, with_first

# The name of what the first block is given, beside the blocks' paths; no module is named so.
START: Final = ":start"


class Axes(NamedTuple):
    """How what goes through a block lies.

    Attributes:
        rows: the axis of rows.
        last: whether features come behind the places of a map, `[rows, height, width, channels]`.
    """

    rows: int = 0
    last: bool = False


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
    axes: Mapping[str, Axes],
    outer: Collection[str] = (),
) -> Iterator[None]:
    """Inside, `see` is called with every passage through these blocks.

    Args:
        network: is run inside.
        paths: of the blocks.
        see: told the path and the passage.
        axes: from `row_axes`.
        outer: the blocks whose answer the code around adds to their input; what came out of
            these is that sum.
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
                went = given.pop(path)
                came = went + found if path in outer else found
                given_first, made_first = (rows_first(one, axes[path]) for one in (went, came))
                see(path, Passage(given=given_first, made=made_first))

        return hook

    with ExitStack() as stack:
        for path in paths:
            first, last = ends_of(network, path)
            begin = first.register_forward_pre_hook(before(path), with_kwargs=True, prepend=True)
            stack.callback(begin.remove)
            stack.callback(last.register_forward_hook(after(path)).remove)
        yield


def row_axes(network: nn.Module, rows: Tensor, paths: Sequence[str]) -> dict[str, Axes]:
    """On which axes of what goes through a block rows and features lie.

    PyTorch's own transformers put tokens before rows. Of maps, features are taken to come before
    places, unless the first layer in the block that reads the map itself reads its last axis.

    Raises:
        ModelError: a block has no axis of rows, or the network does not take the rows.
    """
    shapes: dict[str, list[torch.Size]] = {path: [] for path in paths}

    def see(path: str, passage: Passage) -> None:
        shapes[path].append(passage.given.shape)

    with (
        watching(network, paths, see, dict.fromkeys(paths, Axes())),
        _reading(network, paths) as last,
    ):
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
        axes[path] = Axes(rows=fit[0], last=last.get(path, False))
    return axes


def rows_first(tensor: Tensor, axes: Axes) -> Tensor:
    """With the axis of rows before the others; of maps, that of features behind it."""
    found = tensor if axes.rows == 0 else tensor.movedim(axes.rows, 0)
    return found.movedim(-1, 1) if axes.last else found


@contextmanager
def _reading(network: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, bool]]:
    """Inside, notes by path whether the first layer that reads the block's map reads its end."""
    found: dict[str, bool] = {}
    streams: dict[str, torch.Size] = {}

    def begin(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, settings: Any) -> None:
            stream = given_to(module, args, settings)
            if stream is not None and stream.ndim > 3:
                streams[path] = stream.shape

        return hook

    def read(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            own = args[0].shape if args and isinstance(args[0], Tensor) else None
            if path not in found and own is not None and own == streams.get(path):
                side = _reads_last(module)
                if side is not None:
                    found[path] = side

        return hook

    with ExitStack() as stack:
        for path in paths:
            block = network.get_submodule(path)
            first = block.register_forward_pre_hook(begin(path), with_kwargs=True, prepend=True)
            stack.callback(first.remove)
            for layer in block.modules():
                stack.callback(layer.register_forward_pre_hook(read(path)).remove)
        yield found


def _reads_last(layer: nn.Module) -> bool | None:
    """Whether a layer's channels lie on the last axis; None where its class does not tell."""
    if isinstance(layer, nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase | nn.GroupNorm):
        return False
    forward = type(layer).forward
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        # What computes in its own way may have moved the axes first.
        plain = forward in (nn.LayerNorm.forward, nn.RMSNorm.forward)
        return True if plain and len(layer.normalized_shape) == 1 else None
    return True if isinstance(layer, nn.Linear) and forward is nn.Linear.forward else None


@contextmanager
def scaled(
    network: nn.Module, scales: Mapping[str, float], outer: Collection[str] = ()
) -> Iterator[None]:
    """Inside, what each of these blocks adds is multiplied by its scale.

    Args:
        network: runs inside.
        scales: by path.
        outer: the blocks whose answer the code around adds to their input.

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
            if path in outer:
                return with_first(made, scale * found)
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
