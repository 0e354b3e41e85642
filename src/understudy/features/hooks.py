"""Reading inside a model without editing it: what goes into or comes out of a module, by path.

A spot is written as

    stages.1                 what the module `stages.1` gives
    stages.1:input           what it is given
    encoder.layer.3:output[1]   the second item of a tuple that it gives

Paths are those of `named_modules()` of the network itself. A module that is called several times
in one forward pass (shared weights) is read at its last call.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from torch import Tensor, nn

from understudy.errors import ModelError

# Names of modules may hold anything but a dot: keys of a `ModuleDict` do.
_FORM = re.compile(r"^(?P<path>[^:\[\]]*)(?::(?P<side>input|output)(?:\[(?P<item>\d+)\])?)?$")
# Where the tensor lies in an output that is a mapping or an object, best first.
_NAMES = ("last_hidden_state", "hidden_states", "logits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """One place inside a model.

    Attributes:
        path: of the module.
        side: what it is given or what it gives.
        item: which item, where that is a tuple; None: the first tensor.
    """

    path: str
    side: Literal["input", "output"] = "output"
    item: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Spot":
        """A spot as it is written.

        Raises:
            ModelError: it is not written so.
        """
        found = _FORM.match(text)
        if found is None or not found["path"]:
            raise ModelError(
                f"a layer is written as `path`, `path:input` or `path:output[1]`, but got `{text}`"
            )
        item = None if found["item"] is None else int(found["item"])
        side: Literal["input", "output"] = "input" if found["side"] == "input" else "output"
        return cls(path=found["path"], side=side, item=item)


def module_at(network: nn.Module, spot: str) -> nn.Module:
    """The module of a spot.

    Raises:
        ModelError: there is none; paths that are near are named.
    """
    path = Spot.parse(spot).path
    # Not by listing all modules: it is asked at every step of a training.
    try:
        return network.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in network.named_modules() if name]
        near = get_close_matches(path, names, n=5, cutoff=0.4) or names[:12]
        raise ModelError(
            f"{type(network).__name__} has no module `{path}`; near are {', '.join(near)} "
            f"({len(names)} in all, see `named_modules()`)"
        ) from None


class Captured:
    """What was found at the spots in the last forward pass."""

    def __init__(self, network: nn.Module, spots: Sequence[str]) -> None:
        """For these spots of `network`; empty until it has run."""
        self._network, self._spots = network, tuple(dict.fromkeys(spots))
        self._found: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}

    def put(self, spot: str, value: Any, item: int | None) -> None:
        """Keep the tensor in a module's input or output."""
        self._found[spot] = _tensor(value, spot, item)
        self._versions[spot] = _version(self._found[spot])

    def found(self) -> dict[str, Tensor]:
        """The tensors by spot, `[batch, ...]` each.

        Raises:
            ModelError: a module did not run, or a later one has written over what it gave.
        """
        return {spot: self._checked(spot) for spot in self._spots}

    def _checked(self, spot: str) -> Tensor:
        if spot not in self._found:
            raise ModelError(
                f"`{spot}` of {type(self._network).__name__} is there, but was not called in "
                "the forward pass, so nothing could be read: name a module that runs (a list of "
                "modules does not, its items do), and do not script or compile the model before"
            )
        found = self._found[spot]
        if _version(found) != self._versions[spot]:
            raise ModelError(
                f"`{spot}` is overwritten by a later module that works in place (a ReLU with "
                "`inplace=True`, `x += y`): read what that module gives, or build it not in place"
            )
        return found


@contextmanager
def capture(network: nn.Module, spots: Sequence[str]) -> Iterator[Captured]:
    """Read at `spots` what `network` computes inside the block; the network is left as it was.

    Raises:
        ModelError: a spot that does not exist.
    """
    captured = Captured(network, spots)
    handles = []
    try:
        for text in dict.fromkeys(spots):
            spot, module = Spot.parse(text), module_at(network, text)
            if spot.side == "input":
                handles.append(
                    module.register_forward_pre_hook(
                        _before(captured, text, spot.item), with_kwargs=True
                    )
                )
            else:
                handles.append(module.register_forward_hook(_after(captured, text, spot.item)))
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _before(captured: Captured, text: str, item: int | None) -> Any:
    def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        del module
        captured.put(text, given or tuple(named.values()), item)

    return hook


def _after(captured: Captured, text: str, item: int | None) -> Any:
    def hook(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        del module, given
        captured.put(text, result, item)

    return hook


def _version(tensor: Tensor) -> int:
    """How often it was written to; a tensor of inference mode does not count that."""
    return 0 if tensor.is_inference() else tensor._version


def _tensor(value: Any, spot: str, item: int | None) -> Tensor:
    if item is not None and isinstance(value, (tuple, list)):
        found = value[item] if item < len(value) else None
        if isinstance(found, Tensor):
            return found
    if isinstance(value, Tensor) and item is None:
        return value
    if isinstance(value, (tuple, list)):
        items = list(value)
    elif isinstance(value, Mapping):
        items = [value[n] for n in _NAMES if n in value] + list(value.values())
    else:
        items = [getattr(value, n, None) for n in _NAMES]
    tensors = [v for v in items if isinstance(v, Tensor)]
    if not tensors or item is not None:
        law = "a tuple with a tensor there" if item is not None else "a tensor, or hold one"
        remedy = (
            "leave the item out"
            if isinstance(value, Tensor)
            else "name an item that is a tensor, such as `path:output[1]`"
        )
        raise ModelError(
            f"`{spot}` must be {law}, but it is {_told(value)}: {remedy}, or name another module"
        )
    return tensors[0]


def _told(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {', '.join(type(v).__name__ for v in value)}"
    return f"a {type(value).__name__}"
