"""The two models of a recipe: the teacher, loaded or trained, and the student."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from understudy.recipe.blockwise import BlockwiseSection
from understudy.recipe.cuts import Cut
from understudy.recipe.parts import Count, Entry, Part, Positive, Share, Training
from understudy.recipe.steps import one_or_several
from understudy.recipe.zero_shot import ZeroShotSection

# Models that come with their weights and are not trained.
FROZEN = frozenset({"sentence_encoder", "hf_classifier"})
CLASSIFIER = "hf_classifier"
# A causal model of Hugging Face has its weights in its folder; it may be trained on from there.
PRETRAINED = "hf_causal"
_MEMBERS = ("model", "onnx", "predictor", "zero_shot")


class PreprocessSection(Part):
    """How raw rows become what a network takes; what is null is found on the training rows."""

    scale: Positive | None = None
    mean: tuple[float, ...] | None = Field(default=None, strict=False)
    std: tuple[Positive, ...] | None = Field(default=None, strict=False)


class MemberSection(Part):
    """One model that knows, loaded: a member of an ensemble.

    Exactly one of `model`, `onnx`, `predictor` and `zero_shot`. A `model` has `weights` (a file); a
    custom one may have none, when its factory returns it trained, and a fine-tuned one has none.
    """

    model: Entry | None = None
    weights: str | None = None
    onnx: str | None = None
    predictor: Entry | None = None
    zero_shot: ZeroShotSection | None = None
    answers: Literal["logits", "probabilities"] = "logits"
    preprocess: PreprocessSection | None = None

    @model_validator(mode="after")
    def _one_member(self) -> "MemberSection":
        _check_answers(self, _one_of(self, _MEMBERS))
        if self.model is None and self.weights is not None:
            raise ValueError("`weights` belongs to `model`, but there is none: remove it")
        if self.model is not None and self.model.kind == CLASSIFIER:
            if self.weights is not None:
                raise ValueError(
                    f"a `{CLASSIFIER}` is taken as it is in its folder, so it has no `weights`: "
                    "remove it"
                )
        elif self.model is not None and self.model.kind != "custom" and self.weights is None:
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


def _check_answers(part: "MemberSection | TeacherSection", kind: str) -> None:
    if kind == "zero_shot" and part.preprocess is not None:
        raise ValueError("`preprocess` is for rows of numbers, and `zero_shot` reads texts")
    if kind in ("model", "zero_shot") and part.answers != "logits":
        raise ValueError(
            f"`answers: probabilities` is for `onnx` and `predictor`; a `{kind}` answers with "
            "logits: remove it"
        )


class TeacherSection(Part):
    """The model that knows: loaded, trained here, an ONNX file, any callable, or several together.

    Exactly one of `model`, `onnx`, `predictor`, `zero_shot` and `ensemble`. A `model` has `weights`
    (a file) or `training`; a custom one may have neither, when its factory returns it trained. An
    `ensemble` answers with the mean of its members' probabilities.
    """

    model: Entry | None = None
    weights: str | None = None
    training: Training | None = None
    onnx: str | None = None
    predictor: Entry | None = None
    zero_shot: ZeroShotSection | None = None
    ensemble: tuple[MemberSection, ...] = Field(default=(), strict=False)
    answers: Literal["logits", "probabilities"] = "logits"
    preprocess: PreprocessSection | None = None

    @property
    def members(self) -> "tuple[MemberSection | TeacherSection, ...]":
        """Every model that is asked: those of the ensemble, or this one."""
        return self.ensemble or (self,)

    @property
    def told_classes(self) -> tuple[str, ...] | None:
        """The classes that a zero-shot teacher is told of; None where there is none."""
        found = [member.zero_shot for member in self.members if member.zero_shot is not None]
        return tuple(found[0].classes) if found else None

    @model_validator(mode="after")
    def _one_teacher(self) -> "TeacherSection":
        kind = _one_of(self, (*_MEMBERS, "ensemble"))
        if kind == "ensemble" and (self.preprocess is not None or self.answers != "logits"):
            raise ValueError(
                "`preprocess` and `answers` differ from member to member: write them into the "
                "members of the `ensemble`"
            )
        _check_answers(self, kind)
        sources = [n for n in ("weights", "training") if getattr(self, n) is not None]
        if self.model is None and sources:
            raise ValueError(f"`{sources[0]}` belongs to `model`, but got `{kind}` with it")
        if self.model is not None and self.model.kind in FROZEN:
            if sources:
                raise ValueError(
                    f"a `{self.model.kind}` is taken as it is in its folder, so it has no "
                    f"`{sources[0]}`: remove it"
                )
            return self
        own = self.model is not None and self.model.kind in ("custom", PRETRAINED)
        if len(sources) == 2 or (self.model is not None and not own and not sources):
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


class TokenVectors(Part):
    """A student of texts that begins with its teacher's token vectors, by their principal axes.

    `frozen` keeps them as they are; all else learns.
    """

    scale: Positive = 1.0
    frozen: bool = False


class StudentSection(Part):
    """The model that learns: built anew for every seed, cut from the teacher, or put together.

    Exactly one of `model`, `from_teacher` (one cut or several in sequence) and `blockwise` (parts
    of the teacher, each taught alone). `dropout` and `stochastic_depth` are shares of activations
    and of blocks that are left out while training.
    """

    model: Entry | None = None
    from_teacher: tuple[Cut, ...] = Field(default=(), strict=False)
    blockwise: BlockwiseSection | None = None
    reused_head: ReusedHead | None = None
    token_vectors: TokenVectors | None = None
    dropout: Share = 0.0
    stochastic_depth: Share = 0.0

    @field_validator("from_teacher", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return one_or_several(value)

    @model_validator(mode="after")
    def _one_student(self) -> "StudentSection":
        _one_of(self, ("model", "from_teacher", "blockwise"))
        if self.inherits and self.reused_head is not None:
            raise ValueError(
                "`reused_head` is for a `model`; a student cut from its teacher has the teacher's "
                "last layer already: remove it"
            )
        if self.inherits and self.token_vectors is not None:
            raise ValueError(
                "`token_vectors` is for a `model`; a student cut from its teacher has the "
                "teacher's token vectors already: remove it"
            )
        if any(cut.kind == "scratch" for cut in self.from_teacher[1:]):
            raise ValueError(
                "`kind: scratch` makes a fresh network, so it must be the first of `from_teacher`"
            )
        kinds = [cut.kind for cut in self.from_teacher]
        if "lora" in kinds[:-1] or ("lora" in kinds and "scratch" in kinds):
            raise ValueError(
                "`kind: lora` freezes the weights that the teacher has learned, so it must be the "
                f"last of `from_teacher`, and not with `scratch`, but got {', '.join(kinds)}"
            )
        return self

    @property
    def inherits(self) -> bool:
        """Whether the student is made of the teacher."""
        return bool(self.from_teacher) or self.blockwise is not None

    @property
    def takes_weights(self) -> bool:
        """Whether weights of the teacher are a part of the student's start."""
        parts = (self.reused_head, self.token_vectors)
        return self.inherits or self.computed or any(part is not None for part in parts)

    @property
    def computed(self) -> bool:
        """Whether its start is computed from what the teacher says of the training rows."""
        return self.model is not None and self.model.kind == "static"
