"""The sections of a recipe. Every default of a run stands here and nowhere else."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from understudy.recipe.judging import PairsSection, ProbeSection
from understudy.recipe.models import (
    PreprocessSection,
    StudentSection,
    TeacherSection,
)
from understudy.recipe.parts import (
    Count,
    Entry,
    NotNegative,
    Part,
    Positive,
    TermEntry,
)
from understudy.recipe.steps import (
    DistilStep,
    Learning,
    Link,
    Phase,
    QuantizeStep,
    Step,
    check_order,
    links,
)
from understudy.recipe.texts import TokenizerSection

Backend = Literal[
    "auto",
    "eager",
    "channels_last",
    "folded",
    "bf16",
    "onnxruntime",
    "onnxruntime_pieces",
    "compile",
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class TaskSection(Part):
    """What is asked of the models.

    `dimension` is how many numbers a vector of an `embedding` has; `null` is what the teacher has.
    """

    kind: Literal[
        "classification", "regression", "embedding", "token_classification", "language_model"
    ] = "classification"
    dimension: Count | None = None

    @property
    def has_labels(self) -> bool:
        """Whether rows have hard labels; where they have none, the control learns nothing."""
        return self.kind != "embedding"

    @model_validator(mode="after")
    def _vectors_have_dimensions(self) -> "TaskSection":
        if self.dimension is not None and self.kind != "embedding":
            raise ValueError(f"`dimension` is of `kind: embedding`, but got kind {self.kind}")
        return self


class DataSection(Part):
    """Where rows come from, and how they are split. Test rows are used once, at the end."""

    source: Entry = Entry(kind="digits")
    test: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | Literal["given"] = 0.2
    validation: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] = 0.1
    rows: Count | None = None
    labelled: Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=0)] | None = None
    unlabelled: tuple[str | Entry, ...] = Field(default=(), strict=False)
    overlap: Literal["error", "drop", "allow"] = "drop"
    seed: Seed = 0
    preprocess: PreprocessSection = PreprocessSection()
    tokenizer: TokenizerSection = TokenizerSection()
    views: tuple[Entry, ...] = Field(default=(), strict=False)

    @field_validator("unlabelled", mode="before")
    @classmethod
    def _path_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict | Entry) else value


class LabelsSection(Part):
    """What the teacher says of the training rows, stored once.

    `use: live` asks the teacher at every step instead. Rows with random views are stored in
    `views` views each, which the student cycles through; without `views` the teacher is asked live.
    `codec` is how its answer is stored, `features` the precision of its layers.
    `store` keeps the labels outside the run, for other runs to share.
    """

    use: Literal["auto", "live"] = "auto"
    views: Count | None = None
    codec: Entry = Entry(kind="dense")
    features: Literal["float32", "float16", "bfloat16"] = "float16"
    backend: Backend = "auto"
    tolerance: Positive = 0.001
    batch_size: Count | Literal["auto"] = "auto"
    memory_gb: Positive = 2.0
    shard_rows: Count = 8192
    on_bad_rows: Literal["error", "skip"] = "error"
    engine: Literal["serial", "ray"] = "serial"
    workers: Count = 2
    store: str | None = None

    @model_validator(mode="after")
    def _stored_or_live(self) -> "LabelsSection":
        if self.use == "live" and (self.views is not None or self.store is not None):
            raise ValueError(
                "`use: live` stores nothing, but `views` or `store` is given: remove one of them"
            )
        return self


class LatencyBudget(Part):
    """Milliseconds per call at a batch size and a number of threads, in ONNX Runtime."""

    value: Positive
    batch: Count = 1
    threads: Count = 1


class BudgetSection(Part):
    """What the student must fit. A student outside is never recommended."""

    parameters: Count | None = None
    bytes: Count | None = None
    flops: Count | None = None
    latency_ms: LatencyBudget | None = None
    accuracy_kept: Annotated[float, Field(gt=0, le=1)] | None = None


class EvaluateSection(Part):
    """How the evidence is taken. `margin` is the smallest difference that matters.

    `pairs` and `probes` say what vectors are good for, of an `embedding`.
    """

    margin: NotNegative = 0.01
    draws: Annotated[int, Field(ge=200)] = 2000
    batch_size: Count = 256
    latency_seconds: Positive = 0.3
    pairs: PairsSection | None = None
    probes: tuple[ProbeSection, ...] = Field(default=(), strict=False)

    @field_validator("probes")
    @classmethod
    def _probes_differ(cls, value: tuple[ProbeSection, ...]) -> tuple[ProbeSection, ...]:
        names = [probe.name for probe in value]
        if len(set(names)) < len(names):
            raise ValueError(f"every probe needs a name of its own, but got {', '.join(names)}")
        return value


class ExportSection(Part):
    """What is made for deployment."""

    int8: bool = True
    calibration_rows: Count = 256
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"


class TransferSection(Part):
    """Another task with few labels, for which the student's features are to be good too.

    `labelled` rows (a share or a number) are drawn `draws` times from those that are not test rows;
    on each draw a linear head is fitted for every model's frozen features. `features` and
    `teacher_features` name the layers; empty, it is what the last linear layer reads.
    """

    source: Entry
    test: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | Literal["given"] = 0.2
    labelled: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=3)]
    draws: Annotated[int, Field(ge=2)] = 5
    features: str = ""
    teacher_features: str = ""


class Recipe(Part):
    """A run, written down."""

    name: Annotated[str, Field(pattern=r"^\w[\w .-]*$")] | None = None
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    teacher: TeacherSection
    student: StudentSection
    labels: LabelsSection = LabelsSection()
    steps: tuple[Step, ...] = Field(default=(DistilStep(),), strict=False, min_length=1)
    budget: BudgetSection = BudgetSection()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
    transfer: TransferSection | None = None
    seeds: Annotated[int, Field(ge=1, le=10_000)] | tuple[Seed, ...] = 5

    @model_validator(mode="before")
    @classmethod
    def _few_outcomes_of_many(cls, value: Any) -> Any:
        """A language model's labels are stored as its 64 likeliest tokens where nobody says how."""
        if not isinstance(value, dict) or not isinstance(value.get("task"), dict):
            return value
        labels = value.get("labels", {})
        if value["task"].get("kind") != "language_model" or not isinstance(labels, dict):
            return value
        return value | {"labels": {"codec": {"kind": "top_k", "k": 64}} | labels}

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_from_yaml(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and (not value or len(set(value)) < len(value)):
            raise ValueError(f"seeds must differ and be at least one, but got {list(value)}")
        return value

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds themselves: `seeds: 3` means 0, 1 and 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @field_validator("steps")
    @classmethod
    def _steps_in_order(cls, value: tuple[Step, ...]) -> tuple[Step, ...]:
        check_order(value)
        return value

    @property
    def chain(self) -> tuple[Link, ...]:
        """What happens to the student, in order."""
        return links(self.steps, default_objective(self.task.kind))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Every phase of every step in order, each with its training."""
        return tuple(phase for link in self.chain for phase in link.phases)

    @property
    def has_control(self) -> bool:
        """Whether every step that trains also trains the control."""
        return all(step.control for step in self.steps if isinstance(step, Learning))

    @property
    def quantized(self) -> QuantizeStep | None:
        """How the exported student is put into fewer bits: the last step, or `export.int8`."""
        last = self.steps[-1]
        if isinstance(last, QuantizeStep):
            return last
        if not self.export.int8:
            return None
        return QuantizeStep(
            kind="quantize",
            calibration=self.export.calibration,
            calibration_rows=self.export.calibration_rows,
            form="weight_int8" if self.task.kind == "language_model" else "int8",
        )


def default_objective(task: str) -> tuple[TermEntry, ...]:
    """Hinton's combination: a little of the hard labels, much of the teacher."""
    if task == "regression":
        return (TermEntry(kind="hard_value", weight=0.5), TermEntry(kind="soft_value", weight=0.5))
    if task == "embedding":
        scores = TermEntry(kind="score_distribution", weight=0.3)
        return (TermEntry(kind="cosine", weight=1.0), scores)
    # Over a vocabulary the teacher's own sharpness is what is to be learned.
    calm = 1.0 if task == "language_model" else 4.0
    soft = TermEntry.model_validate({"kind": "soft_target", "weight": 0.9, "temperature": calm})
    return (TermEntry(kind="hard_label", weight=0.1), soft)
