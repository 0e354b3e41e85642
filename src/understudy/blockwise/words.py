"""The words of this room as data: blocks, partitions, candidates and what they do."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from understudy.errors import ModelError, did_you_mean

Number = int | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A run of neighbouring modules of a network that are replaced together.

    Attributes:
        name: of the block; also good as the name of a folder.
        paths: of its modules, in the order in which they run.
        takes: the shape of one row of the stream, the first tensor that its first module takes.
        gives: the shape of one row of the first tensor that its last module gives.
        parameters: of its modules; what they share with an earlier block is counted there.
        flops: for one row; a multiply-add counts as two.
        ms: measured for one row; None where nothing was measured.
        extras: names of the other arguments with tensors in them, such as attention masks and
            carried skip connections.
        items: for each path, how many items its tuple has; 0 where it gives a bare tensor.
        bare: paths that are called with the stream alone though others get the extras.
    """

    name: str
    paths: tuple[str, ...]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    parameters: int
    flops: int
    ms: Number | None = None
    extras: tuple[str, ...] = ()
    items: tuple[int, ...] = ()
    bare: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """As plain JSON."""
        data = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in data.items()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Block":
        """What `to_data` wrote."""
        fields: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in data.items()
        }
        return cls(**fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """What lies outside all blocks: parameters, operations and milliseconds.

    Attributes:
        parameters: of it.
        flops: for one row.
        ms: per call; None where nothing was measured.
        call_ms: what a call costs that does nothing, and that a block by itself has paid.
        pace: how many times as long a block takes inside the network, whose other weights have
            been through the caches, as by itself.
    """

    parameters: int
    flops: int
    ms: Number | None = None
    call_ms: Number = 0.0
    pace: Number = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """A network as a chain of blocks, and the rest around them.

    Attributes:
        blocks: in the order in which they run.
        rest: the cost of what lies outside all blocks.
    """

    blocks: tuple[Block, ...]
    rest: Rest

    def __getitem__(self, name: str) -> Block:
        """The block of that name.

        Raises:
            ModelError: there is none.
        """
        found = next((block for block in self.blocks if block.name == name), None)
        if found is None:
            known = did_you_mean(name, (block.name for block in self.blocks))
            raise ModelError(f"there is no block `{name}`: {known}")
        return found

    def inside(self, ms: Number) -> float:
        """Milliseconds inside the network of what takes so many by itself."""
        return float(self.rest.pace * max(0.0, ms - self.rest.call_ms))

    def to_data(self) -> dict[str, Any]:
        """As plain JSON."""
        blocks = [block.to_data() for block in self.blocks]
        return {"kind": "partition", "blocks": blocks, "rest": asdict(self.rest)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Partition":
        """What `to_data` wrote."""
        blocks = tuple(Block.from_data(block) for block in data["blocks"])
        return cls(blocks=blocks, rest=Rest(**data["rest"]))

    def lines(self) -> list[str]:
        """A table for a terminal: a line per block, then the rest and the sums."""
        cells = [("block", "modules", "takes", "gives", "parameters", "MFLOPs", "ms", "extras")]
        cells += [
            (b.name, str(len(b.paths)), _shape(b.takes), _shape(b.gives), *_costs(b), _names(b))
            for b in self.blocks
        ]
        cells.append(("(rest)", "", "", "", *_costs(self.rest), ""))
        every: tuple[Block | Rest, ...] = (*self.blocks, self.rest)
        times = [one.ms for one in every if one.ms is not None]
        total = Rest(
            parameters=sum(one.parameters for one in every),
            flops=sum(one.flops for one in every),
            ms=sum(times) if times else None,
        )
        cells.append(("total", "", "", "", *_costs(total), ""))
        wide = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        return [
            "  ".join(c.ljust(size) for c, size in zip(line, wide, strict=True)).rstrip()
            for line in cells
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """How a block was called in one forward pass, without gradient.

    Attributes:
        stream: `[rows, ...]`, its first tensor.
        args: the positional arguments behind it.
        kwargs: the named ones; caches of keys and values are None.
        gives: `[rows, ...]`, the first tensor of its answer.
    """

    stream: Tensor
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    gives: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One smaller replacement of a block, without its module.

    Attributes:
        kind: `keep`, `narrow`, `low_rank`, ...
        label: unique among the candidates of one block; also good as the name of a folder.
        parameters: of its module.
        bytes: of its weights.
        ms: measured for one row; None where it could not be.
        flops: for one row; a multiply-add counts as two.
        settings: from which its structure is rebuilt, as plain JSON.
        note: one line for people.
    """

    kind: str
    label: str
    parameters: int
    bytes: int
    ms: Number | None
    flops: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def to_data(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "settings": dict(self.settings)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Candidate":
        """What `to_data` wrote."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What replacing one block by one candidate does to the whole network.

    Attributes:
        block: its name.
        candidate: its label.
        kl: of the network's answers to the original's, in nats per row.
        metric_drop: how much worse the task's metric is.
    """

    block: str
    candidate: str
    kl: Number
    metric_drop: Number

    def to_data(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Damage":
        """What `to_data` wrote."""
        return cls(**data)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _costs(one: Block | Rest) -> tuple[str, str, str]:
    ms = "" if one.ms is None else f"{one.ms:.4g}"
    return f"{one.parameters:,}", f"{one.flops / 1e6:.4g}", ms


def _names(block: Block) -> str:
    return ", ".join(block.extras)
