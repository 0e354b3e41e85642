"""The sections of a recipe. Every default of a run stands here and nowhere else."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from understudy.recipe.parts import Count, Entry, NotNegative, Part, Positive, TermEntry, Training

Backend = Literal["auto", "eager", "channels_last", "folded", "bf16", "compile", "onnxruntime"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class TaskSection(Part):
    """What is asked of the models."""

    kind: Literal["classification", "regression"] = "classification"


class PreprocessSection(Part):
    """How raw rows become what a network takes; what is null is found on the training rows."""

    scale: Positive | None = None
    mean: tuple[float, ...] | None = Field(default=None, strict=False)
    std: tuple[Positive, ...] | None = Field(default=None, strict=False)


class DataSection(Part):
    """Where rows come from, and how they are split. Test rows are used once, at the end."""

    source: Entry = Entry(kind="digits")
    test: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | Literal["given"] = 0.2
    validation: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] = 0.1
    rows: Count | None = None
    labelled: Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=1)] | None = None
    overlap: Literal["error", "drop", "allow"] = "drop"
    seed: Seed = 0
    preprocess: PreprocessSection = PreprocessSection()
    views: tuple[Entry, ...] = Field(default=(), strict=False)


class MemberSection(Part):
    """One model that knows, loaded: a member of an ensemble.

    Exactly one of `model`, `onnx` and `predictor`. A `model` has `weights` (a file); a custom one
    may have none, when its factory returns it trained.
    """

    model: Entry | None = None
    weights: str | None = None
    onnx: str | None = None
    predictor: Entry | None = None
    answers: Literal["logits", "probabilities"] = "logits"
    preprocess: PreprocessSection | None = None

    @model_validator(mode="after")
    def _one_member(self) -> "MemberSection":
        _one_of(self, ("model", "onnx", "predictor"))
        if self.model is not None and self.answers != "logits":
            raise ValueError(
                "`answers: probabilities` is for `onnx` and `predictor`; a `model` answers with "
                "logits: remove it"
            )
        if self.model is None and self.weights is not None:
            raise ValueError("`weights` belongs to `model`, but there is none: remove it")
        if self.model is not None and self.model.kind != "custom" and self.weights is None:
            raise ValueError("a member's `model` needs `weights`, a file to load, but got none")
        return self


def _one_of(part: Part, names: tuple[str, ...]) -> str:
    given = [name for name in names if getattr(part, name)]
    if len(given) != 1:
        listed = ", ".join(f"`{name}`" for name in names[:-1]) + f" and `{names[-1]}`"
        raise ValueError(
            f"exactly one of {listed} must be given, but got {' and '.join(given) or 'none'}"
        )
    return given[0]


class TeacherSection(Part):
    """The model that knows: loaded, trained here, an ONNX file, any callable, or several together.

    Exactly one of `model`, `onnx`, `predictor` and `ensemble`. A `model` has `weights` (a file) or
    `training`; a custom one may have neither, when its factory returns it trained. An `ensemble`
    answers with the mean of its members' probabilities.
    """

    model: Entry | None = None
    weights: str | None = None
    training: Training | None = None
    onnx: str | None = None
    predictor: Entry | None = None
    ensemble: tuple[MemberSection, ...] = Field(default=(), strict=False)
    answers: Literal["logits", "probabilities"] = "logits"
    preprocess: PreprocessSection | None = None

    @property
    def members(self) -> "tuple[MemberSection | TeacherSection, ...]":
        """Every model that is asked: those of the ensemble, or this one."""
        return self.ensemble or (self,)

    @model_validator(mode="after")
    def _one_teacher(self) -> "TeacherSection":
        kind = _one_of(self, ("model", "onnx", "predictor", "ensemble"))
        if kind == "ensemble" and (self.preprocess is not None or self.answers != "logits"):
            raise ValueError(
                "`preprocess` and `answers` differ from member to member: write them into the "
                "members of the `ensemble`"
            )
        if self.model is not None and self.answers != "logits":
            raise ValueError(
                "`answers: probabilities` is for `onnx` and `predictor`; a `model` answers with "
                "logits: remove it"
            )
        sources = [n for n in ("weights", "training") if getattr(self, n) is not None]
        if self.model is None and sources:
            raise ValueError(f"`{sources[0]}` belongs to `model`, but got `{kind}` with it")
        if len(sources) == 2 or (self.model and self.model.kind != "custom" and not sources):
            raise ValueError(
                "a teacher `model` needs `weights` (a file to load) or `training` (train it here), "
                f"one of the two, but got {' and '.join(sources) or 'neither'}"
            )
        return self


class ReusedHead(Part):
    """A student that answers with its teacher's own last layer (SimKD).

    Paths are found where they are empty. `factor` is how many times narrower than the teacher's map
    the projector before that layer is inside.
    """

    student_head: str = ""
    teacher_head: str = ""
    student_features: str = ""
    teacher_features: str = ""
    factor: Count = 2


class StudentSection(Part):
    """The model that learns, built anew for every seed."""

    model: Entry
    reused_head: ReusedHead | None = None


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


class Phase(Part):
    """One phase of a distillation: its own objective, and its own training where it differs."""

    objective: tuple[TermEntry, ...] = Field(strict=False, min_length=1)
    training: Training | None = None


class Step(Part):
    """One step of the run. `distil` trains the student, and its control beside it."""

    kind: Literal["distil"] = "distil"
    objective: tuple[TermEntry, ...] | None = Field(default=None, strict=False, min_length=1)
    phases: tuple[Phase, ...] | None = Field(default=None, strict=False, min_length=1)
    training: Training = Training()
    control: bool = True

    @model_validator(mode="after")
    def _objective_or_phases(self) -> "Step":
        if self.objective is not None and self.phases is not None:
            raise ValueError(
                "`objective` and `phases` exclude each other, but both are given: "
                "move the objective into the last phase"
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
    latency_ms: LatencyBudget | None = None
    accuracy_kept: Annotated[float, Field(gt=0, le=1)] | None = None


class EvaluateSection(Part):
    """How the evidence is taken. `margin` is the smallest difference that matters."""

    margin: NotNegative = 0.01
    draws: Annotated[int, Field(ge=200)] = 2000
    batch_size: Count = 256
    latency_seconds: Positive = 0.3


class ExportSection(Part):
    """What is made for deployment."""

    int8: bool = True
    calibration_rows: Count = 256
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"


class Recipe(Part):
    """A run, written down."""

    name: Annotated[str, Field(pattern=r"^\w[\w .-]*$")] | None = None
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    teacher: TeacherSection
    student: StudentSection
    labels: LabelsSection = LabelsSection()
    steps: tuple[Step, ...] = Field(default=(Step(),), strict=False, min_length=1)
    budget: BudgetSection = BudgetSection()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
    seeds: Annotated[int, Field(ge=1, le=10_000)] | tuple[Seed, ...] = 5

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

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Every phase of every step in order, each with its training."""
        default = default_objective(self.task.kind)
        flat: list[Phase] = []
        for step in self.steps:
            phases = step.phases or (Phase(objective=step.objective or default),)
            flat.extend(
                Phase(objective=p.objective, training=p.training or step.training) for p in phases
            )
        return tuple(flat)

    @property
    def has_control(self) -> bool:
        """Whether every step trains the control."""
        return all(step.control for step in self.steps)


def default_objective(task: str) -> tuple[TermEntry, ...]:
    """Hinton's combination: a little of the hard labels, much of the teacher."""
    if task == "regression":
        return (TermEntry(kind="hard_value", weight=0.5), TermEntry(kind="soft_value", weight=0.5))
    soft = TermEntry.model_validate({"kind": "soft_target", "weight": 0.9, "temperature": 4.0})
    return (TermEntry(kind="hard_label", weight=0.1), soft)
