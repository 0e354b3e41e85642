"""The plan before any training: what each block keeps, and what the cut network will cost."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.evaluate.cost import parameters as count
from understudy.students.blocks.chain import chain_of, look
from understudy.students.blocks.removal import Pass, moved
from understudy.students.lora import merged
from understudy.students.profiling import Use, profiled, used

Status = Literal["kept", "changed", "dropped", "shared"]
_REST = "(rest)"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRow:
    """One block, or one layer outside all blocks.

    Attributes:
        path: in the network that is cut; `(rest)` for all that has no row of its own.
        status: `kept` with all its sizes, `changed`, `dropped`, or `shared`: it runs with the
            weights of a block before it, which are counted there, as is its work.
        now: its path in the cut network; empty where it was dropped.
        shapes: of its matrices and kernels by name, before and after; None where there is none.
        parameters: before and after.
        flops: for one row, before and after.
        ms: predicted for one row, before and after.
    """

    path: str
    status: Status
    now: str
    shapes: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    ms: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanTable:
    """All rows, and their sums; each pair is before and after.

    Attributes:
        rows: in the order of the network.
        parameters: of the whole networks, shared ones once.
        flops: for one row.
        ms: predicted for one row; before: as it was given, or as PyTorch took.
        trained: how many numbers of the cut network learn; those of low-rank updates are beside its
            parameters, to which they are added at export.
    """

    rows: tuple[LayerRow, ...]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    ms: tuple[float, float]
    trained: int

    @property
    def predicted_ms(self) -> float:
        """The latency of the cut network for one row."""
        return self.ms[1]

    def to_data(self) -> dict[str, Any]:
        """As plain JSON, with `kind: plan`."""
        return {"kind": "plan", **{name: _plain(value) for name, value in asdict(self).items()}}

    def lines(self) -> list[str]:
        """A table for a terminal: a line per row, its changed shapes below it, the sums last."""
        cells = [("block", "", "parameters", "MFLOPs", "predicted ms")]
        below: dict[int, list[str]] = {}
        for row in self.rows:
            cells.append((row.path, row.status, *_cells(row)))
            if row.status == "changed":
                below[len(cells) - 1] = _changes(row)
        cells.append(("total", "", *_cells(self)))
        wide = [max(len(line[column]) for line in cells) for column in range(5)]
        said = []
        for number, line in enumerate(cells):
            text = "  ".join(cell.ljust(size) for cell, size in zip(line, wide, strict=True))
            said += [text.rstrip(), *(f"    {one}" for one in below.get(number, []))]
        if self.trained != self.parameters[1]:
            said.append(f"{self.trained:,} numbers are trained; all other weights are frozen")
        return said


def plan_table(
    before: nn.Module,
    after: nn.Module,
    rows: Tensor,
    *,
    before_ms: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> PlanTable:
    """Compare a network with what was cut from it, without training or export.

    The latency is a prediction. Every module of `before` is timed in PyTorch on one thread; its
    share goes to the module that came from it, times the ratio of their operations, or of the
    numbers they give where they multiply nothing. Normalisation of batches and dropout count as
    nothing, since an exported file has none. It is good for dropped blocks, and too low for
    narrow convolutions, which use a processor less well.

    Args:
        before: the network that is cut; it is not changed.
        after: the cut network, with any weights; it is not changed. Its low-rank updates are
            counted as trained, and cost nothing else: they are merged before.
        rows: one row or more that both take.
        before_ms: the measured latency of `before` for one row, to which the times are scaled.
        provenance: paths of blocks in `after` to those in `before`; by default they are the same.

    Raises:
        ModelError: one of the two does not take the rows.
    """
    if not len(rows):
        raise ModelError("a plan's table needs a row or more, but got none: pass calibration rows")
    chain = _chain(before, rows)
    known = _Sources(moved(before, after, chain, provenance or {}) | dict(provenance or {}))
    one = rows[:1]
    trained = sum(p.numel() for p in after.parameters() if p.requires_grad)
    after = merged(after)
    old, new = used(before, one), used(after, one)
    # What stands where a block was does no work: the block is gone.
    new = {p: use for p, use in new.items() if not isinstance(after.get_submodule(p), Pass)}
    ms = profiled(before, rows)
    scale = 1.0 if before_ms is None else before_ms / max(sum(ms.values()), 1e-12)
    ms = {path: scale * value for path, value in ms.items()}
    predicted = _predicted(old, new, ms, known)
    places = _places(before, frozenset(chain))
    held = _Held(before, places, _Sources({})), _Held(after, places, known)
    made = tuple(
        LayerRow(
            path=place or _REST,
            status=_status(place, *held),
            now=held[1].now.get(place, ""),
            shapes=_shapes(held[0].shapes.get(place, {}), held[1].shapes.get(place, {})),
            parameters=(held[0].parameters.get(place, 0), held[1].parameters.get(place, 0)),
            flops=(
                sum(u.flops for p, u in old.items() if held[0].place(p) == place),
                sum(u.flops for p, u in new.items() if held[1].place(p) == place),
            ),
            ms=(
                sum((v for path, v in ms.items() if held[0].place(path) == place), 0.0),
                sum((v for path, v in predicted.items() if held[1].place(path) == place), 0.0),
            ),
        )
        for place in (*places, "")
    )
    return PlanTable(
        rows=made,
        parameters=(count(before), count(after)),
        flops=(sum(u.flops for u in old.values()), sum(u.flops for u in new.values())),
        ms=(sum(ms.values(), 0.0), sum(predicted.values(), 0.0)),
        trained=trained,
    )


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where the modules of a network came from."""

    provenance: Mapping[str, str]

    def of(self, path: str) -> str:
        """The path in the network before."""
        for start in _upwards(path):
            if start in self.provenance:
                return self.provenance[start] + path[len(start) :]
        return path


class _Held:
    """What each place of the table holds of one network."""

    def __init__(self, network: nn.Module, places: tuple[str, ...], sources: _Sources) -> None:
        self._places, self._sources = frozenset(places), sources
        self.now: dict[str, str] = {}
        self.shared: set[str] = set()
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.parameters: dict[str, int] = {}
        counted: set[int] = set()
        seen: set[int] = set()
        for path, part in network.named_modules(remove_duplicate=False):
            source = sources.of(path)
            if path and source in self._places and not isinstance(part, Pass):
                self.now.setdefault(source, path)
                self.shared |= {source} if id(part) in seen else set()
            seen.add(id(part))
        for path, weight in network.named_parameters(remove_duplicate=False):
            place = self.place(path)
            if weight.ndim > 1 and place:
                start = len(self.now[place]) + 1
                self.shapes.setdefault(place, {})[path[start:]] = tuple(weight.shape)
            if id(weight) not in counted:
                self.parameters[place] = self.parameters.get(place, 0) + weight.numel()
            counted.add(id(weight))

    def place(self, path: str) -> str:
        """The row that a path of this network belongs to; empty for the rest."""
        sources = map(self._sources.of, _upwards(path))
        return next((one for one in sources if one in self._places), "")


def _predicted(
    old: Mapping[str, Use], new: Mapping[str, Use], ms: Mapping[str, float], sources: _Sources
) -> dict[str, float]:
    """Milliseconds per module of the cut network that has a counterpart."""
    flops: dict[str, int] = {}
    for path, use in new.items():
        # What was put in the place of one layer is that layer's.
        owner = next((p for p in _upwards(path) if sources.of(p) in old), "")
        flops[owner] = flops.get(owner, 0) + use.flops
    # What multiplies where nothing did before goes at the pace of the whole.
    pace = sum(ms.values()) / max(1, sum(use.flops for use in old.values()))
    predicted = {}
    for path, work in flops.items():
        source = sources.of(path)
        was, spent = old[source], ms.get(source, 0.0)
        if was.flops:
            predicted[path] = spent * work / was.flops
        else:
            share = new[path].elements / was.elements if was.elements and path in new else 1.0
            predicted[path] = spent * share + pace * work
    return predicted


def _chain(network: nn.Module, rows: Tensor) -> tuple[str, ...]:
    """Its blocks; none of a network that repeats nothing, which is shown layer by layer."""
    two = rows[:2] if len(rows) > 1 else rows[:1].repeat(2, *[1] * (rows.ndim - 1))
    try:
        return tuple(chain_of(network, look(network, two)))
    except ModelError:
        return ()


def _places(network: nn.Module, chain: frozenset[str]) -> tuple[str, ...]:
    """Blocks, and layers with weights outside them, in the network's order."""
    found = []
    for path, part in network.named_modules():
        inside = any(start in chain for start in list(_upwards(path))[1:])
        leaf = not any(True for _ in part.children())
        weights = any(True for _ in part.parameters())
        if path in chain or (path and leaf and weights and not inside):
            found.append(path)
    return tuple(found)


def _upwards(path: str) -> Iterator[str]:
    """A path and all that it lies in, innermost first."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _status(place: str, old: _Held, new: _Held) -> Status:
    if place and place not in new.now:
        return "dropped"
    if place in new.shared and place not in old.shared:
        return "shared"
    same = old.shapes.get(place, {}) == new.shapes.get(place, {})
    return "kept" if same and old.parameters.get(place) == new.parameters.get(place) else "changed"


def _shapes(
    old: Mapping[str, tuple[int, ...]], new: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]]:
    return {name: (old.get(name), new.get(name)) for name in dict.fromkeys((*old, *new))}


def _cells(row: LayerRow | PlanTable) -> tuple[str, str, str]:
    return (
        _pair(f"{row.parameters[0]:,}", f"{row.parameters[1]:,}"),
        _pair(f"{row.flops[0] / 1e6:,.2f}", f"{row.flops[1] / 1e6:,.2f}"),
        _pair(f"{row.ms[0]:.3f}", f"{row.ms[1]:.3f}"),
    )


def _pair(old: str, new: str) -> str:
    return old if old == new else f"{old} -> {new}"


def _changes(row: LayerRow) -> list[str]:
    return [
        f"{name} {list(old) if old else 'none'} -> {list(new) if new else 'none'}"
        for name, (old, new) in row.shapes.items()
        if old != new
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
