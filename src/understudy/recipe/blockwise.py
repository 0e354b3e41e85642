"""How a student is put together from smaller parts of its teacher, each taught alone."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from understudy.recipe.parts import TARGET, Count, NotNegative, Part, Positive

Kind = Literal[
    "narrower", "low_rank", "fewer", "separable", "grouped", "fewer_heads", "linear_attention",
    "shared", "skip", "linear",
]  # fmt: skip
Several = Literal["narrower", "low_rank", "energy", "fewer", "fewer_heads", "grouped"]
# A share of what the teacher has.
Kept = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=1)]


class PartitionSection(Part):
    """Where the teacher is cut into blocks.

    `by`: `block` (every repeated module), `stage`, `flops` or `memory` (then `parts` blocks as
    equal as can be), or the paths of the blocks' first modules.
    """

    by: (
        Literal["block", "stage", "flops", "memory"]
        | Annotated[tuple[str, ...], Field(strict=False)]
    ) = "block"
    parts: Count | None = None

    @model_validator(mode="after")
    def _parts_where_they_count(self) -> "PartitionSection":
        if (self.by in ("flops", "memory")) != (self.parts is not None):
            raise ValueError(
                "`parts` says how many blocks of equal flops or memory there shall be, and goes "
                f"with these two only, but got by={self.by!r}, parts={self.parts}"
            )
        return self


class OwnCandidate(Part):
    """A candidate of the user's own: `target` is called with `piece`, `call` and `arguments`."""

    target: Annotated[str, Field(pattern=TARGET.pattern)]
    arguments: dict[str, Any] = Field(default={})


class CandidatesSection(Part):
    """What may stand in a block's place beside the block itself.

    `shares` are per kind how much is kept, a candidate each. `rows` training rows are looked at.
    """

    kinds: tuple[Kind, ...] = Field(
        default=(
            "narrower",
            "low_rank",
            "fewer",
            "separable",
            "grouped",
            "fewer_heads",
            "linear_attention",
            "shared",
            "skip",
        ),
        strict=False,
    )
    shares: dict[Several, tuple[float | int, ...]] = Field(default={}, strict=False)
    custom: dict[str, OwnCandidate] = Field(default={})
    rows: Annotated[int, Field(ge=2)] = 64

    @field_validator("shares", mode="before")
    @classmethod
    def _shares_from_yaml(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}


class LocalSection(Part):
    """How every candidate learns its block's answer from its block's input, alone.

    `rows` training rows are used, in `views` random views each where the data has views. `noise` is
    mixed into the inputs. `inputs` come from files that are written once (`files`) or from the
    network at every step (`recompute`); `at_once` blocks are written in one pass.
    """

    rows: Count = 4096
    views: Count = 1
    epochs: Annotated[int, Field(ge=0)] = 5
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    clip: NotNegative = 1.0
    noise: Rate = 0.0
    inputs: Literal["files", "recompute"] = "files"
    precision: Literal["float16", "float32"] = "float16"
    at_once: Count | None = None
    engine: Literal["serial", "process", "ray"] = "serial"
    workers: Count = 1
    threads: Count | None = None

    @model_validator(mode="after")
    def _workers_have_an_engine(self) -> "LocalSection":
        if self.engine == "serial" and self.workers > 1:
            raise ValueError(
                f"`engine: serial` has one worker, but got workers: {self.workers}: use "
                "`engine: process` or `engine: ray`"
            )
        return self


class ScoresSection(Part):
    """How the damage of a candidate is measured: on `rows` validation rows, all where it is null.

    `by` is what counts: `kl` to the teacher's answers, or `metric_drop` against the labels.
    `pairs` also measures what two neighbouring candidates do together, the `pairs` best of each.
    """

    rows: Count | None = None
    by: Literal["kl", "metric_drop"] = "kl"
    pairs: Annotated[int, Field(ge=0)] = 0


class Shares(Part):
    """A budget in shares of what the teacher costs itself."""

    parameters: Kept | None = None
    bytes: Kept | None = None
    flops: Kept | None = None
    ms: Kept | None = None
    memory: Kept | None = None

    def limits(self) -> dict[str, float]:
        """Those that are given."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class Latency(Part):
    """How latency is measured where a student is deployed, by ONNX Runtime."""

    batch: Count = 1
    threads: Count = 1
    seconds: Positive = 0.3


class BlockwiseSection(Part):
    """A student recombined from parts of its teacher, each part taught alone, within the budget.

    `keep` is a budget in shares of the teacher, beside the recipe's `budget`. The student is then
    trained by the recipe's `steps`; `features` is the weight of a term on the blocks' answers in
    it. `target` is the share of the teacher's validation score to reach: where it is missed, up to
    `rounds` rounds train, cut or offer more where damage is highest. `front` points of the whole
    front are shown, along the cost `along`.
    """

    partition: PartitionSection = PartitionSection()
    candidates: CandidatesSection = CandidatesSection()
    local: LocalSection = LocalSection()
    scores: ScoresSection = ScoresSection()
    keep: Shares = Shares()
    latency: Latency = Latency()
    features: NotNegative = 0.0
    target: Kept | None = None
    rounds: Count = 1
    front: Annotated[int, Field(ge=0)] = 8
    along: Literal["parameters", "bytes", "flops", "ms"] = "ms"
