"""Finding residual branches: the modules whose output is added to what went around them.

A forward pass is followed backwards through its graph, from the answer along the stream that all
branches are added to. Names of layers play no part, so any network that adds is understood.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError

# Steps that give zeros for zeros, and a multiple for a multiple, so that a branch is gone where the
# module before them is.
_LINEAR = (
    "Mul", "Div", "Neg", "View", "UnsafeView", "Reshape", "ReshapeAlias", "Transpose", "T0",
    "Permute", "Clone", "Alias", "Expand", "Slice", "Select", "Squeeze", "Unsqueeze", "ToCopy",
    "NativeDropout", "Relu", "LeakyRelu",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """One residual branch.

    Attributes:
        ends: paths of the modules whose outputs make it; without them nothing is added.
        rowwise: whether the first axis of these is the batch.
    """

    ends: tuple[str, ...]
    rowwise: bool


def residuals(network: nn.Module, rows: Tensor) -> tuple[Branch, ...]:
    """The residual branches of a network, first to last.

    Of two sides of a sum that come from the same numbers, the branch is the one with more layers
    behind it; the other is the stream, or a shortcut. It ends in the last module before the sum.

    Args:
        network: the user's own; it is left as it is.
        rows: two rows or more as it takes them.

    Raises:
        ModelError: there are none, or a branch is no module's output, so that nothing can drop it.
    """
    graph = _Graph(network, rows)
    while True:
        found = _branches(network, graph)
        if not (elsewhere := graph.used_elsewhere(found)):
            break
        # What such a module gives is dropped wherever it runs: the branch ends before it.
        graph.without(elsewhere)
    if not found:
        raise ModelError(
            f"{type(network).__name__} has no residual branches that could be dropped: nothing is "
            "added to what went around it. Leave `stochastic_depth` out, or use `dropout`"
        )
    return tuple(reversed(found))


def _branches(network: nn.Module, graph: "_Graph") -> list[Branch]:
    """Last to first."""
    found: list[Branch] = []
    node = graph.answer
    while node is not None:
        behind = graph.data(node)
        sides = sorted(behind, key=graph.layers)
        if len(sides) == 2 and _is_sum(node) and graph.is_branch(*sides):
            found.append(_branch(network, graph, sides[1]))
            node = sides[0]
        else:
            node = graph.before_all(behind)
    return found


def _branch(network: nn.Module, graph: "_Graph", node: Any) -> Branch:
    ends = graph.ends(node)
    if not ends:
        raise ModelError(
            f"a residual branch of {type(network).__name__} is no module's output, or that of one "
            "that runs elsewhere too, so nothing can drop it: compute its last step in a module of "
            "its own, or leave `stochastic_depth` out"
        )
    paths = tuple(dict.fromkeys(path for path, _ in ends))
    return Branch(ends=paths, rowwise=all(rowwise for _, rowwise in ends))


class _Graph:
    """The graph of one forward pass, with what is behind every step as bits."""

    def __init__(self, network: nn.Module, rows: Tensor) -> None:
        copy = deepcopy(network).cpu().eval().requires_grad_(True)
        self._made: dict[Any, tuple[str, bool]] = {}
        self._calls: Counter[str] = Counter()
        handles = [
            module.register_forward_hook(self._noting(path, len(rows[:2])))
            for path, module in copy.named_modules()
            if path
        ]
        given = rows[:2].detach().cpu().clone()
        given.requires_grad_(given.is_floating_point())
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            found = _first(copy(given))
        for handle in handles:
            handle.remove()
        if found is None:
            raise ModelError(
                f"{type(network).__name__} must answer with a tensor that its weights have a part "
                "in: stochastic depth follows it backwards"
            )
        self.answer: Any = found.grad_fn
        self._given = given
        self._places: dict[Any, int] = {}
        self._behind: dict[Any, int] = {}
        # Steps that depend on the rows; of these the layers: what takes a weight too.
        self._data = self._layers = 0
        self._walk()

    def data(self, node: Any) -> list[Any]:
        """What goes into a step and depends on the rows."""
        return [n for n in _before(node) if self._data >> self._places[n] & 1]

    def layers(self, node: Any) -> int:
        """How many layers have run before this step has its value."""
        return (self._behind[node] & self._layers).bit_count()

    def is_branch(self, stream: Any, branch: Any) -> bool:
        """Whether two sides of a sum come from the same numbers, one of them by more layers."""
        same = self._behind[stream] & self._behind[branch] & self._data
        return bool(same) and self.layers(stream) < self.layers(branch)

    def before_all(self, nodes: Sequence[Any]) -> Any | None:
        """The last step that all of the rows' way to these goes through; None: there is none."""
        waiting = {self._places[n]: n for n in nodes}
        while len(waiting) > 1:
            node = waiting.pop(max(waiting))
            behind = self.data(node)
            if not behind:
                return None
            waiting.update({self._places[n]: n for n in behind})
        return next(iter(waiting.values()), None)

    def ends(self, node: Any) -> list[tuple[str, bool]]:
        """The last modules on the way to this step."""
        while node not in self._made:
            behind = self.data(node)
            if _is_sum(node) and len(behind) > 1:
                each = [self.ends(n) for n in behind]
                return [end for ends in each for end in ends] if all(each) else []
            if len(behind) != 1 or not type(node).__name__.startswith(_LINEAR):
                return []
            node = behind[0]
        return [self._made[node]]

    def used_elsewhere(self, branches: Sequence[Branch]) -> set[str]:
        """Modules that end a branch, but also run where they end none."""
        ends = Counter(path for branch in branches for path in branch.ends)
        return {path for path, count in ends.items() if self._calls[path] > count}

    def without(self, paths: Collection[str]) -> None:
        """Forget what these modules gave."""
        self._made = {node: one for node, one in self._made.items() if one[0] not in paths}

    def _noting(self, path: str, rows: int) -> Any:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            del module, given
            self._calls[path] += 1
            one = result[0] if isinstance(result, tuple) and result else result
            # Of modules around one another the innermost, which alone gives just this.
            if isinstance(one, Tensor) and one.grad_fn is not None:
                self._made.setdefault(one.grad_fn, (path, len(one) == rows))

        return hook

    def _walk(self) -> None:
        """Inputs before outputs, without recursion: a graph may be deeper than Python's stack."""
        weights = 0
        waiting = [self.answer]
        while waiting:
            node = waiting[-1]
            left = [n for n in _before(node) if n not in self._behind]
            if node not in self._behind and left:
                waiting.extend(left)
                continue
            waiting.pop()
            if node in self._behind:
                continue
            self._places[node] = len(self._places)
            bit = 1 << self._places[node]
            behind = [self._behind[n] for n in _before(node)]
            leaf = getattr(node, "variable", None)
            looked_up = type(node).__name__.startswith("Embedding")
            if leaf is self._given or looked_up or self.data(node):
                self._data |= bit
                # A side of weights alone.
                alone = [one for one in behind if not one & self._data]
                self._layers |= bit if any(one & weights for one in alone) else 0
            elif leaf is not None:
                weights |= bit
            whole = bit
            for one in behind:
                whole |= one
            self._behind[node] = whole


def _before(node: Any) -> list[Any]:
    return [n for n, _ in node.next_functions if n is not None]


def _is_sum(node: Any) -> bool:
    return type(node).__name__.startswith("AddBackward")


def _first(result: Any) -> Tensor | None:
    """The first tensor with a graph in whatever a network returned."""
    if isinstance(result, Tensor):
        return result if result.grad_fn is not None else None
    items: Iterable[Any] = ()
    if isinstance(result, Mapping):
        items = result.values()
    elif isinstance(result, (tuple, list)):
        items = result
    return next((f for item in items if (f := _first(item)) is not None), None)
