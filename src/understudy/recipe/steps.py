"""The steps of a run: what happens to the student, in order, and the phases of its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from understudy.recipe.cuts import Cut, ToKeep
from understudy.recipe.parts import Count, Part, Share, TermEntry, Training

# Over the whole network every layer keeps a hundredth of its weights.
Gone = Annotated[float, Field(gt=0, le=0.99)]

Calibration = Literal["minmax", "entropy", "percentile", "mse"]
Form = Literal["int8", "weight_int8", "weight_int4"]


class Phase(Part):
    """One phase of a distillation: its own objective, and its own training where it differs."""

    objective: tuple[TermEntry, ...] = Field(strict=False, min_length=1)
    training: Training | None = None


class Learning(Part):
    """What every step has in which student and control are trained."""

    kind: str
    objective: tuple[TermEntry, ...] | None = Field(default=None, strict=False, min_length=1)
    phases: tuple[Phase, ...] | None = Field(default=None, strict=False, min_length=1)
    training: Training = Training()
    control: bool = True

    @model_validator(mode="after")
    def _objective_or_phases(self) -> "Learning":
        if self.objective is not None and self.phases is not None:
            raise ValueError(
                "`objective` and `phases` exclude each other, but both are given: "
                "move the objective into the last phase"
            )
        return self


class DistilStep(Learning):
    """The student learns from the teacher, and its control beside it from the labels."""

    kind: Literal["distil"] = "distil"


class CutStep(Part):
    """The student as it is by now is cut, as `student.from_teacher` cuts the teacher."""

    kind: Literal["cut"]
    cuts: tuple[Cut, ...] = Field(strict=False, min_length=1)

    @field_validator("cuts", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return one_or_several(value)

    @model_validator(mode="after")
    def _nothing_fresh(self) -> "CutStep":
        if any(cut.kind == "scratch" for cut in self.cuts):
            raise ValueError(
                "`kind: scratch` makes a fresh network, which forgets what was learned: write it "
                "as the first of `student.from_teacher`"
            )
        if any(cut.kind == "lora" for cut in self.cuts):
            raise ValueError(
                "`kind: lora` freezes what was learned by then, which a step cannot: write it as "
                "the last of `student.from_teacher`"
            )
        return self


def _changed(step: Part, names: Sequence[str]) -> list[str]:
    """The fields that are not as by default; a recipe that was written down has them all."""
    fields = type(step).model_fields
    return [name for name in names if getattr(step, name) != fields[name].get_default()]


_FOR_WEIGHTS = ("schedule", "begin", "end", "layers")
_FOR_CHANNELS = ("protect", "rounds")


class PruneStep(Learning):
    """Weights become zero, or channels go, little by little while the student learns.

    With `structure: weights`, `to` is the share of weights that are zero at the end, or a pattern
    such as `2:4` (two of every four stay), of `layers`. With `structure: channels`, `to` is the
    share of channels, heads and hidden units that are gone at the end, in `rounds` cuts with a
    part of the epochs after each; the layers of `protect` keep their width.
    """

    kind: Literal["prune"]
    to: Gone | Annotated[str, Field(pattern=r"^\d+:\d+$")]
    structure: Literal["weights", "channels"] = "weights"
    schedule: Literal["cubic", "linear", "once"] = "cubic"
    begin: Share = 0.0
    end: Annotated[float, Field(gt=0, le=1)] = 0.75
    layers: tuple[str, ...] = Field(default=(), strict=False)
    by: Literal["magnitude", "taylor", "activation", "gradient"] = "magnitude"
    protect: tuple[str, ...] = Field(default=(), strict=False)
    rounds: Count = 3

    @field_validator("to")
    @classmethod
    def _a_pattern_leaves_some(cls, value: float | str) -> float | str:
        if isinstance(value, str):
            kept, group = map(int, value.split(":"))
            if not 0 < kept < group:
                raise ValueError(
                    f"a pattern is `N:M` with `0 < N < M`, but got {value}: 2:4 leaves two of "
                    "every four weights"
                )
        return value

    @model_validator(mode="after")
    def _fits_the_structure(self) -> "PruneStep":
        if self.structure == "channels" and isinstance(self.to, str):
            raise ValueError(
                f"a pattern is for single weights, but got `to: {self.to}` with `structure: "
                "channels`: give the share of channels that go, such as 0.3"
            )
        if self.structure == "channels" and self.phases is not None:
            raise ValueError(
                "`structure: channels` divides one training into its `rounds`, but `phases` are "
                "given: write `objective` and `training`"
            )
        if self.structure == "weights" and self.by != "magnitude":
            raise ValueError(
                f"single weights are chosen by magnitude, but got `by: {self.by}`: remove it, or "
                "use `structure: channels`"
            )
        others = _FOR_WEIGHTS if self.structure == "channels" else _FOR_CHANNELS
        foreign = _changed(self, others)
        if foreign:
            raise ValueError(
                f"`{foreign[0]}` means nothing with `structure: {self.structure}`, but is given: "
                "remove it, or choose the other structure"
            )
        if self.begin >= self.end:
            raise ValueError(
                f"`begin < end` must hold, but got {self.begin} and {self.end}: they are shares of "
                "the training"
            )
        return self


class QuantizeStep(Learning):
    """The exported student is in fewer bits: weights and activations, or the weights alone.

    With `aware: true` the student learns while its numbers are rounded as they will be; then
    `training` and an objective belong to it.
    """

    kind: Literal["quantize"]
    form: Form = "int8"
    aware: bool = False
    calibration: Calibration = "minmax"
    calibration_rows: Count = 256
    reduce_range: bool = True

    @model_validator(mode="after")
    def _learns_if_aware(self) -> "QuantizeStep":
        if self.aware and self.form != "int8":
            raise ValueError(
                f"`aware: true` rounds weights and activations to int8, but got `form: "
                f"{self.form}`: remove one of them"
            )
        given = _changed(self, ("objective", "phases", "training", "control"))
        if given and not self.aware:
            raise ValueError(
                f"`{given[0]}` is for `aware: true`: without it nothing is trained in this step"
            )
        return self


def _kind_of_step(value: Any) -> str:
    kind = value.get("kind", "distil") if isinstance(value, dict) else getattr(value, "kind", "")
    return kind if isinstance(kind, str) else ""


Step = Annotated[
    Annotated[DistilStep, Tag("distil")]
    | Annotated[CutStep, Tag("cut")]
    | Annotated[PruneStep, Tag("prune")]
    | Annotated[QuantizeStep, Tag("quantize")],
    Discriminator(_kind_of_step),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One piece of the chain: what is done to the student, then the phases in which it learns.

    Attributes:
        step: which step of the recipe it belongs to.
        kind: of that step.
        cuts: what is cut off first.
        sparsity: the step whose zeros come while it learns.
        aware: the step whose rounding it learns with.
        phases: each with its training; none where nothing is trained.
        last: whether the step is finished with it.
    """

    step: int
    kind: str
    cuts: tuple[Cut, ...] = ()
    sparsity: PruneStep | None = None
    aware: QuantizeStep | None = None
    phases: tuple[Phase, ...] = ()
    last: bool = True


def links(steps: Sequence[Step], default: tuple[TermEntry, ...]) -> tuple[Link, ...]:
    """The chain of a run; a structured pruning is a link per round."""
    chain: list[Link] = []
    for number, step in enumerate(steps):
        chain += _links(step, number, default)
    return tuple(chain)


def _links(step: Step, number: int, default: tuple[TermEntry, ...]) -> list[Link]:
    if isinstance(step, CutStep):
        return [Link(step=number, kind=step.kind, cuts=step.cuts)]
    phases = step.phases or (Phase(objective=step.objective or default),)
    whole = tuple(
        Phase(objective=p.objective, training=p.training or step.training) for p in phases
    )
    if isinstance(step, QuantizeStep):
        if not step.aware:
            return [Link(step=number, kind=step.kind)]
        return [Link(step=number, kind=step.kind, aware=step, phases=whole)]
    if isinstance(step, PruneStep):
        if step.structure == "channels":
            return _rounds(step, number, whole[0])
        return [Link(step=number, kind=step.kind, sparsity=step, phases=whole)]
    return [Link(step=number, kind=step.kind, phases=whole)]


def _rounds(step: PruneStep, number: int, phase: Phase) -> list[Link]:
    """Equal shares of what is left, so that every round asks the same of the network."""
    assert phase.training is not None
    assert isinstance(step.to, float)
    count = min(step.rounds, phase.training.epochs)
    keep: ToKeep = (1 - step.to) ** (1 / count)
    found = []
    for turn in range(count):
        epochs = phase.training.epochs * (turn + 1) // count - phase.training.epochs * turn // count
        training = phase.training.model_copy(update={"epochs": epochs})
        cut = {"kind": "width", "keep": keep, "by": step.by, "protect": step.protect}
        found.append(
            Link(
                step=number,
                kind=step.kind,
                cuts=CutStep.model_validate({"kind": "cut", "cuts": [cut]}).cuts,
                phases=(Phase(objective=phase.objective, training=training),),
                last=turn == count - 1,
            )
        )
    return found


def one_or_several(value: Any) -> Any:
    """A single cut is a list of one."""
    return (value,) if isinstance(value, dict) else value


def check_order(steps: Sequence[Step]) -> None:
    """What may follow what.

    Raises:
        ValueError: numbers are rounded before something else changes them.
    """
    quantized = [number for number, step in enumerate(steps) if step.kind == "quantize"]
    if quantized and quantized[0] < len(steps) - 1:
        after = steps[quantized[0] + 1].kind
        raise ValueError(
            f"`quantize` must be the last step, but `{after}` follows: what is trained or cut "
            "after the rounding would have to be rounded again"
        )
    if not any(isinstance(step, Learning) and _learns(step) for step in steps):
        raise ValueError("a run needs a step that trains, but there is none: add `kind: distil`")


def _learns(step: Learning) -> bool:
    return not isinstance(step, QuantizeStep) or step.aware
