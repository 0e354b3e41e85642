"""Networks without a list of modules: traced, and cut where one tensor crosses."""

import io
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn

from understudy.blockwise.edges import drawing, longest
from understudy.blockwise.graph_cuts import Cut, cuts_of, graph_runs
from understudy.errors import ModelError
from understudy.students.blocks.chain import answer_of, resting
from understudy.students.blocks.surgery import copied, same

_ROWS = "rows"
# What an exported program checks about its input; a part of it may be called otherwise.
_GUARDS = ("_guards", "_assert", "sym_constrain")


class Part(nn.Module):
    """One part of a traced network: `(stream, **carried)` to the stream.

    Args:
        graph: takes the stream and the carried values that it uses, in order.
        carries: the names of these; other carried values are passed over.
    """

    def __init__(self, graph: fx.GraphModule, *, carries: Sequence[str]) -> None:
        super().__init__()
        self.graph = graph
        self.carries = tuple(carries)

    def forward(self, stream: Tensor, **carried: Any) -> Tensor:
        """The stream behind this part."""
        made: Tensor = self.graph(stream, *(carried[name] for name in self.carries))
        return made


class Chained(nn.Module):
    """Parts one after the other; some streams are carried along to later parts.

    Args:
        parts: the first takes the rows.
        names: of the stream that each part gives.
    """

    def __init__(self, parts: Sequence[Part], *, names: Sequence[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.names = tuple(names)
        self.uses = tuple(part.carries for part in parts)

    def forward(self, rows: Tensor) -> Tensor:
        """What the traced network answers."""
        values, stream = {_ROWS: rows}, rows
        for number, part in enumerate(self.parts):
            carried = {name: values[name] for name in self.carried(number)}
            stream = part(stream, **carried)
            values[self.names[number]] = stream
        return stream

    def carried(self, number: int) -> list[str]:
        """What a part is given beside the stream: what it or a later part uses."""
        later = {name for uses in self.uses[number:] for name in uses}
        return [name for name in (_ROWS, *self.names[:number]) if name in later]

    def edges(self) -> Iterator[tuple[str, int, int]]:
        """Each carried value, the part that gives it (-1: the rows), and one that uses it."""
        places = {name: number for number, name in enumerate(self.names)} | {_ROWS: -1}
        for target, uses in enumerate(self.uses):
            for name in uses:
                yield name, places[name], target


def as_chain(network: nn.Module, rows: Tensor, *, carry: bool = True) -> Chained:
    """A network as a chain of parts, by tracing it: one layer each, with what follows it.

    It is cut where one tensor crosses. Around a long stretch that a skip connection spans, the
    skipped value is carried: the parts inside take it as an extra input. `torch.fx` traces the
    network; what it cannot follow, such as branches on shapes, `torch.export` does, whose parts
    are made of operations and cannot be trained with batch statistics. Dropout that is no module
    is left out.

    Args:
        network: it is not changed; the parts hold copies of its modules.
        rows: what it takes as its one argument, two rows or more.
        carry: whether to cut under long skip connections.

    Raises:
        ModelError: the network does not take the rows, its control flow depends on data, or there
            is no place where one tensor crosses.
    """
    answer_of(network, rows[:2])
    reasons = []
    for trace in (_symbolic, _exported):
        try:
            root, graph = trace(copied(network), rows)
        except Exception as error:  # a tracer raises whatever the user's own forward does with it
            reasons.append(_first_line(error))
            continue
        made = _divided(network, root, graph, rows, carry=carry)
        # One row alone, too: a size may have been taken for another.
        if _equal(made, network, rows[:2]) and _equal(made, network, rows[:1]):
            return made
        reasons.append(f"what {trace.__name__.strip('_')} tracing recorded answers otherwise")
    raise ModelError(
        f"{type(network).__name__} cannot be traced, as its control flow depends on data or it "
        f"does what no tracer can follow (torch.fx: {reasons[0]}; torch.export: {reasons[1]}): "
        "write the branch with `torch.where`, or divide at module paths, `by=[...]`"
    )


def _equal(made: nn.Module, network: nn.Module, rows: Tensor) -> bool:
    try:
        return same(answer_of(made, rows), answer_of(network, rows))
    except ModelError:  # what was recorded does not take these rows
        return False


class _Inside(nn.Module):
    """Calls the network with one argument, so that its others have their default values."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Any) -> Any:
        return self.network(rows)


def _symbolic(network: nn.Module, rows: Tensor) -> tuple[nn.Module, fx.Graph]:
    del rows
    with resting(network), _quiet():
        inside = _Inside(network)
        return inside, fx.Tracer().trace(inside)


def _exported(network: nn.Module, rows: Tensor) -> tuple[nn.Module, fx.Graph]:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    with resting(network), _quiet():
        # Two rows or more, as one row would be taken for a constant.
        example = rows if len(rows) > 1 else torch.cat([rows, rows])
        program = torch.export.export(network, (example[:4],), dynamic_shapes=shapes, strict=False)
        module = program.module()
    assert isinstance(module, fx.GraphModule)
    return module, module.graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Without fused layers, inside which nothing can be seen, and without a tracer's own words."""
    fast, usual = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            # nn.LSTM refills its list of weights in `forward`, which changes nothing.
            warnings.filterwarnings("ignore", message=r"The tensor attributes? .*_flat_weights")
            yield
    finally:
        logging.disable(usual)
        torch.backends.mha.set_fastpath_enabled(fast)


def _divided(
    network: nn.Module, root: nn.Module, graph: fx.Graph, rows: Tensor, *, carry: bool
) -> Chained:
    for node in reversed(list(graph.nodes)):
        # The states of a recurrent layer are taken out of its tuple though nobody wants them.
        unused = node.target is operator.getitem and not node.users
        if unused or str(node.target).startswith(_GUARDS) or node.name.startswith(_GUARDS):
            graph.erase_node(node)
    output = next(node for node in graph.nodes if node.op == "output")
    answer = first_node(output.args)
    with resting(root) if type(root) is _Inside else torch.no_grad():
        found = graph_runs(root, graph, rows[:2])
    cuts = cuts_of(graph, found, answer, carry=carry)
    if len(cuts) < 2:
        raise ModelError(_no_cut(network, graph))
    source = next(node for node in graph.nodes if node.op == "placeholder")
    names = {source: _ROWS} | _names([cut.stream for cut in cuts])
    parts, stream = [], source
    for cut in cuts:
        carries = [node for node in names if node in cut.carried]
        part = _part(root, cut, (source, stream), {node: names[node] for node in carries})
        part.training = part.graph.training = network.training
        parts.append(part)
        stream = cut.stream
    made = Chained(parts, names=[names[cut.stream] for cut in cuts])
    made.training = network.training
    return made


def _names(streams: Sequence[fx.Node]) -> dict[fx.Node, str]:
    short = [node.name.removeprefix("network_") for node in streams]
    plain = len({*short, _ROWS}) == len(short) + 1
    return {n: name if plain else n.name for n, name in zip(streams, short, strict=True)}


def _part(
    root: nn.Module, cut: Cut, given: tuple[fx.Node, fx.Node], carries: Mapping[fx.Node, str]
) -> Part:
    source, stream = given
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {stream: graph.placeholder("stream")}
    if cut.counts:
        known[source] = known[stream]
    for node, name in carries.items():
        known[node] = graph.placeholder(f"carried_{name}")
    for node in cut.nodes:
        known[node] = graph.node_copy(node, lambda inner: known[inner])
    graph.output(known[cut.stream])
    return Part(fx.GraphModule(root, graph), carries=tuple(carries.values()))


def first_node(value: Any) -> fx.Node:
    """The first value of an answer, as `first_tensor` finds it."""
    if isinstance(value, fx.Node):
        return value
    items = list(value.values()) if isinstance(value, dict) else list(value or ())
    for item in items:
        if isinstance(item, (fx.Node, tuple, list, dict)):
            return first_node(item)
    raise ModelError("the network answers without a tensor: wrap it in a module that gives one")


def leaving(network: Chained, paths: Sequence[str]) -> str:
    """A drawing of a carried value that begins in the middle of these parts; empty without one."""
    numbers = [int(path.rpartition(".")[2]) for path in paths]
    for name, source, target in network.edges():
        if numbers[0] <= source < numbers[-1]:
            titles = [f"parts.{number}" for number in range(source, target + 1)]
            return drawing(titles, name, boundary=min(numbers[-1], target - 1) - source)
    return ""


def _no_cut(network: nn.Module, graph: fx.Graph) -> str:
    text = f"{type(network).__name__} has no place inside where one tensor crosses"
    picture = longest(graph)
    if not picture:
        return f"{text}: it has one layer with weights only, which is replaced as a whole"
    return (
        f"{text}; the longest of the skip connections that cannot be carried:\n{picture}\n"
        "name modules with `by=[...]`, or write the network as a list of modules"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
