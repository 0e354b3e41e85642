"""Where a traced graph can be cut, so that one tensor crosses."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from understudy.students.blocks.removal import first_tensor

# A residual block, an attention layer or a gated unit has no more layers with matrices than this.
_BLOCK = 6
_SHARE = 0.25
# Layers whose operations PyTorch does not count.
_UNSEEN = ("embedding", "lstm", "gru", "rnn")
_SIZES = ("size", torch.ops.aten.sym_size.int)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A part of a graph.

    Attributes:
        nodes: what it computes, in order; some constants and sizes are in several parts.
        stream: what it gives.
        carried: earlier streams, and the rows, that it uses beside its own stream.
        counts: whether it asks the rows for nothing but how many they are, which the stream knows.
    """

    nodes: tuple[fx.Node, ...]
    stream: fx.Node
    carried: frozenset[fx.Node]
    counts: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What the values of a graph are.

    Attributes:
        streams: values that are one tensor of numbers that are not whole.
        free: values that can be made again anywhere: weights, numbers, sizes, and what is made of
            these and of the rows without a layer, such as masks.
        heavy: values that a layer with a matrix made.
        batched: tensors with as many rows as the network was given.
    """

    streams: frozenset[fx.Node]
    free: frozenset[fx.Node]
    heavy: frozenset[fx.Node]
    batched: frozenset[fx.Node]


class _Watching(fx.Interpreter):
    """Notes what every value is, and which of them a layer with a matrix made."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}
        self.weights: set[fx.Node] = set()
        self.heavy: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        """The value of one node."""
        weighted = any(one in self.weights for one in n.all_input_nodes)
        if n.op == "call_module":
            module = self.module.get_submodule(str(n.target))
            made = super().run_node(n)
            heavy = any(weight.ndim > 1 for weight in module.parameters())
        elif weighted and n.op != "output":
            counter = FlopCounterMode(display=False)
            with counter, sdpa_kernel(SDPBackend.MATH):
                made = super().run_node(n)
            heavy = counter.get_total_flops() > 0 or any(one in str(n.target) for one in _UNSEEN)
        else:
            made, heavy = super().run_node(n), False
        if n.op == "get_attr" and isinstance(made, nn.Parameter) and made.ndim > 1:
            self.weights.add(n)
        elif weighted and all(one in self.weights for one in n.all_input_nodes):
            self.weights.add(n)  # a weight in another form
        elif heavy:
            self.heavy.add(n)
        self.values[n] = made
        return made


def graph_runs(root: nn.Module, graph: fx.Graph, rows: Tensor) -> Ran:
    """Run a graph once, and tell its values apart."""
    watching = _Watching(fx.GraphModule(root, graph))
    with torch.no_grad():
        watching.run(rows, enable_io_processing=False)
    values = watching.values
    tensors = frozenset(node for node, value in values.items() if isinstance(value, Tensor))
    free: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "call_module") or node in watching.heavy:
            continue
        if node.op == "get_attr" or first_tensor(values[node]) is None:
            free.add(node)
        elif not _writes(node):
            known = (one in free or one.op == "placeholder" for one in node.all_input_nodes)
            if all(known):
                free.add(node)
    batched = frozenset(node for node in tensors if len(rows) in values[node].shape[:1])
    return Ran(
        streams=frozenset(node for node in tensors if values[node].is_floating_point()),
        free=frozenset(free),
        heavy=frozenset(watching.heavy),
        batched=batched,
    )


def _writes(node: fx.Node) -> bool:
    """Whether an operation writes over what it is given, and so may not run twice."""
    if isinstance(node.target, torch._ops.OpOverload):
        return bool(node.target._schema.is_mutable)
    name = str(getattr(node.target, "__name__", node.target))
    if getattr(node.target, "__module__", "") == "_operator":
        plain = name.removeprefix("i")
        return plain != name and (hasattr(operator, plain) or hasattr(operator, f"{plain}_"))
    return name.endswith("_") and not name.endswith("__")


def cuts_of(graph: fx.Graph, ran: Ran, answer: fx.Node, *, carry: bool) -> list[Cut]:
    """The parts of a graph, one layer with a matrix each where that is possible."""
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    nodes = nodes[: nodes.index(answer) + 1]
    source = next(node for node in graph.nodes if node.op == "placeholder")
    finder = _Finder(nodes, ran, source)
    ends = finder.within(0, len(nodes) - 1, frozenset(), carry=carry)
    return _parts(nodes, ran, source, [*ends, len(nodes) - 1])


class _Finder:
    """What crosses every place between two values."""

    def __init__(self, nodes: Sequence[fx.Node], ran: Ran, source: fx.Node) -> None:
        self.nodes, self.ran = nodes, ran
        self.places = {node: place for place, node in enumerate(nodes)} | {source: -1}
        self.last: dict[fx.Node, int] = {}
        for place, node in enumerate(nodes):
            if node in ran.free:
                continue
            for one in self.needs(node):
                # What is free asks for the rows anywhere.
                if one is not source or one in node.all_input_nodes:
                    self.last[one] = place

    def needs(self, node: fx.Node) -> set[fx.Node]:
        """What must be there for a value to be made, sizes and constants looked through."""
        found: set[fx.Node] = set()
        for one in node.all_input_nodes:
            found |= self.needs(one) if one in self.ran.free else {one}
        return found

    def crossing(self, place: int) -> set[fx.Node]:
        """The values made up to here that are used behind."""
        return {node for node, last in self.last.items() if self.places[node] <= place < last}

    def within(
        self, start: int, end: int, carried: frozenset[fx.Node], *, carry: bool
    ) -> list[int]:
        """Places from `start` up to, not including, `end`, behind which one tensor crosses."""
        found = []
        for place in range(start, end):
            node = self.nodes[place]
            if node in self.ran.streams and self.crossing(place) - carried == {node}:
                found.append(place)
        if not carry:
            return found
        every: list[int] = []
        heavy = sum(node in self.ran.heavy for node in self.nodes)
        for low, high in zip([start - 1, *found], [*found, end], strict=True):
            inner = sum(node in self.ran.heavy for node in self.nodes[low + 1 : high + 1])
            stream = (
                {self.nodes[low]} if low >= 0 else {n for n in self.places if self.places[n] < 0}
            )
            more = carried | stream
            if inner > max(_BLOCK, _SHARE * heavy) and more != carried:
                every += self.within(low + 1, high, frozenset(more), carry=True)
            if high != end:
                every.append(high)
        return every


def _parts(nodes: Sequence[fx.Node], ran: Ran, source: fx.Node, ends: Sequence[int]) -> list[Cut]:
    """Join parts without a matrix to the ones before, as far as what is carried stays a stream."""
    pinned: set[fx.Node] = set()
    while True:
        joined = _joined(nodes, ran, ends, pinned)
        cuts = _made(nodes, ran, source, joined)
        streams = {source, *(cut.stream for cut in cuts)}
        lost = {node for cut in cuts for node in cut.carried} - streams
        if not lost:
            return cuts
        pinned |= lost


def _joined(
    nodes: Sequence[fx.Node], ran: Ran, ends: Sequence[int], pinned: set[fx.Node]
) -> list[int]:
    joined: list[int] = []
    heavy, start = False, 0
    for end in ends:
        own = any(node in ran.heavy for node in nodes[start : end + 1])
        if joined and not (own and heavy) and nodes[joined[-1]] not in pinned:
            joined[-1] = end
            heavy = heavy or own
        else:
            joined.append(end)
            heavy = own
        start = end + 1
    return joined


def _made(nodes: Sequence[fx.Node], ran: Ran, source: fx.Node, ends: Sequence[int]) -> list[Cut]:
    cuts, start, stream = [], 0, source
    for end in ends:
        inside = [node for node in nodes[start : end + 1] if node not in ran.free]
        needed = _closed(inside, ran)
        ordered = tuple(node for node in nodes if node in needed)
        used = {one for node in ordered for one in node.all_input_nodes if one not in needed}
        counts = source in used and stream in ran.batched and _counts(source, needed)
        used -= {stream, source} if counts else {stream}
        carried = frozenset(used)
        cuts.append(Cut(nodes=ordered, stream=nodes[end], carried=carried, counts=counts))
        start, stream = end + 1, nodes[end]
    return cuts


def _counts(source: fx.Node, inside: set[fx.Node]) -> bool:
    """Whether all that is asked of the rows is how many they are."""
    asking = [node for node in source.users if node in inside]
    for node in asking:
        if node.target is getattr and node.args[1:] == ("shape",):
            picks = [user for user in node.users if user in inside]
            if not all(u.target is operator.getitem and u.args[1] == 0 for u in picks):
                return False
        elif node.args[1:] != (0,) or node.target not in _SIZES:
            return False
    return True


def _closed(inside: Sequence[fx.Node], ran: Ran) -> set[fx.Node]:
    """Values, and the free ones that they are made of."""
    found, todo = set(inside), list(inside)
    while todo:
        for one in todo.pop().all_input_nodes:
            if one in ran.free and one not in found:
                found.add(one)
                todo.append(one)
    return found
