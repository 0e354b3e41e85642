"""The typed parts of a recipe that are shared by several sections, and how numbers are bounded."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_serializer,
    model_validator,
)

TARGET = re.compile(r"^(?:[\w.]+|[^:]+\.py):[A-Za-z_]\w*$")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """Typed, frozen, and strict: an unknown key is a mistake, a string is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(BaseModel):
    """A thing by its `kind` and parameters; `build` checks these against the thing's signature.

    `kind: custom` with `target: package.module:name` or `path/to/file.py:name` and
    `arguments: {...}` brings in what is the user's own, the same way everywhere.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything beside `kind`, as written."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _custom_is_whole(self) -> "Entry":
        if self.kind != "custom":
            return self
        extra = self.parameters
        target = extra.get("target")
        if not isinstance(target, str) or not TARGET.match(target):
            raise ValueError(
                "`kind: custom` needs `target: package.module:name` or "
                f"`target: path/to/file.py:name`, but got target {target!r}"
            )
        if not isinstance(extra.get("arguments", {}), dict):
            law = f"`arguments` must be a mapping, but got {extra['arguments']!r}"
            raise ValueError(law)  # noqa: TRY004 (pydantic turns only ValueError into a mistake)
        unknown = sorted(set(extra) - {"target", "arguments", *self._own_keys()})
        if unknown:
            raise ValueError(
                f"`kind: custom` takes `target` and `arguments`, but got {', '.join(unknown)}: "
                "put the parameters into `arguments`"
            )
        return self

    @classmethod
    def _own_keys(cls) -> set[str]:
        return set(cls.model_fields)


class Schedule(Part):
    """A number that changes while training: from `start` to `end` over `epochs`.

    `epochs` null means the whole training; after them the value stays at `end`.
    """

    kind: Literal["linear", "cosine"] = "linear"
    start: NotNegative
    end: NotNegative
    epochs: Positive | None = None


def _kind_of_weight(value: Any) -> str:
    if value == "auto":
        return "auto"
    return "schedule" if isinstance(value, (dict, Schedule)) else "number"


Weight = Annotated[
    Annotated[NotNegative, Tag("number")]
    | Annotated[Schedule, Tag("schedule")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(_kind_of_weight),
]


class LayerPair(Part):
    """A layer of the student and the one of the teacher that it is compared with.

    Both are written as `path`, `path:input` or `path:output[1]`. With `*` in both they are
    patterns: what the stars stand for is paired in order.
    """

    student: str
    teacher: str


class FoundLayers(Part):
    """Layers that are found: the repeated blocks of both networks, paired as told."""

    auto: Literal["evenly", "end", "provenance"]
    which: Literal["all", "middle", "last"] | None = None


def _kind_of_layers(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "pairs"
    if isinstance(value, FoundLayers) or (isinstance(value, dict) and "auto" in value):
        return "found"
    return "pair" if isinstance(value, (dict, LayerPair)) else "word"


Layers = Annotated[
    Annotated[Literal["auto"], Tag("word")]
    | Annotated[LayerPair, Tag("pair")]
    | Annotated[tuple[LayerPair, ...], Field(strict=False, min_length=1), Tag("pairs")]
    | Annotated[FoundLayers, Tag("found")],
    Discriminator(_kind_of_layers),
]


class TermEntry(Entry):
    """One term of an objective: a loss by its kind, its weight, its parameters.

    `layers` belongs to losses that compare layers; `auto` finds and pairs the networks' repeated
    blocks. `adapter` replaces what the loss learns with by default.
    """

    weight: Weight = 1.0
    layers: Layers | None = None
    adapter: Entry | None = None


class Optimizer(Part):
    """How weights are moved. `momentum` and `nesterov` belong to SGD."""

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 0.001
    weight_decay: NotNegative = 0.01
    momentum: Share = 0.9
    nesterov: bool = False


class LearningRate(Part):
    """How the learning rate changes over training, after a linear warm-up.

    `warm_up` is a share of all steps; `milestones` are epochs at which a step schedule
    multiplies the rate by `factor`.
    """

    kind: Literal["constant", "cosine", "step"] = "cosine"
    warm_up: Share = 0.05
    milestones: tuple[Count, ...] = Field(default=(), strict=False)
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> "LearningRate":
        if (self.kind == "step") != bool(self.milestones):
            raise ValueError(
                "`milestones` (epochs) belong to `kind: step` and to no other, but got "
                f"kind {self.kind} with milestones {list(self.milestones)}"
            )
        return self


class EarlyStopping(Part):
    """Stop when the validation score has not risen by `minimum` for `patience` epochs."""

    patience: Count = 10
    minimum: NotNegative = 0.0


class OnPolicySection(Part):
    """Batches that a language model writes itself, from the beginnings of rows; the teacher scores.

    `share` is the probability that a batch is written, `refresh` that it is written now and not
    drawn from the `buffer` of earlier texts.
    """

    share: Schedule | Annotated[float, Field(ge=0, le=1)] = 0.5
    max_tokens: Count = 64
    prompt: Count = 1
    temperature: Positive = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    buffer: Annotated[int, Field(ge=0)] = 0
    refresh: Annotated[float, Field(ge=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _shares_and_a_buffer(self) -> "OnPolicySection":
        if isinstance(self.share, Schedule) and max(self.share.start, self.share.end) > 1:
            raise ValueError(
                f"`share` is a probability, but goes from {self.share.start} to {self.share.end}: "
                "write numbers from 0 to 1"
            )
        if self.refresh < 1 and not self.buffer:
            raise ValueError(
                f"`refresh: {self.refresh}` draws texts from the `buffer`, but there is none: give "
                "the buffer room, such as 256 texts"
            )
        return self


class Training(Part):
    """How a model is trained. The same for student and control, but for `on_policy`.

    `precision` is that of the layers' arithmetic; `auto` takes bfloat16 where it is faster.
    """

    epochs: Count = 30
    batch_size: Count = 64
    optimizer: Optimizer = Optimizer()
    schedule: LearningRate = LearningRate()
    gradient_clip: Positive | None = None
    early_stopping: EarlyStopping | None = None
    choose: Literal["last", "validation"] = "last"
    validate_every: Count = 1
    checkpoint_seconds: NotNegative = 10.0
    tensorboard: bool = False
    on_policy: OnPolicySection | None = None
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    trainer: dict[str, Any] = {}

    @model_serializer(mode="wrap")
    def _as_before(self, write: Callable[[Any], Any]) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        # What a run is a function of is told by this: those from before there was a choice stay.
        if data.get("precision") == "float32":
            del data["precision"]
        return data
