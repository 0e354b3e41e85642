"""How a student is made of its teacher: depth, width, low rank, sharing, updates; or a family."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from understudy.recipe.parts import Count, Part, Positive

ToKeep = Annotated[float, Field(gt=0, le=1)]
# A share of what there was, or a number of them.
Target = Annotated[float, Field(gt=0, lt=1)] | Count


class Importance(Part):
    """How the importance of blocks is measured: on `rows` training rows, by a ridge regression."""

    rows: Count = 1000
    reduce: Literal["none", "pca", "lda", "attention"] = "none"
    components: Count = 32


class DepthCut(Part):
    """Whole blocks are left out.

    `keep` is how many blocks stay, as a share, a number, or their positions from 0. With
    `by: importance` the kept blocks are also scaled, unless `scale: false`.
    """

    kind: Literal["depth"] = "depth"
    keep: (
        ToKeep
        | Count
        | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    )
    by: Literal["importance", "cosine", "skip", "taylor", "evenly", "first", "last", "random"] = (
        "importance"
    )
    scale: bool = True
    importance: Importance = Importance()


class WidthCut(Part):
    """Channels, heads and hidden units are left out: of every layer the share that is not kept.

    `parameters` finds that share so that the network has so many, as a share or a number.
    """

    kind: Literal["width"]
    keep: ToKeep | None = None
    parameters: Target | None = None
    by: Literal["magnitude", "taylor", "activation", "gradient", "random"] = "magnitude"
    even: bool = True
    protect: tuple[str, ...] = Field(default=(), strict=False)
    round_to: Count = 1
    rows: Count = 256

    @model_validator(mode="after")
    def _one_target(self) -> "WidthCut":
        _exactly_one(self, ("keep", "parameters"))
        return self


class LowRankCut(Part):
    """Layers become two thin ones each, by a singular value decomposition.

    `energy` is the share of the squared singular values that every layer keeps; `parameters` finds
    it so that the network has so many. `aware` weighs directions by how far `rows` training rows
    use them.
    """

    kind: Literal["low_rank"]
    energy: ToKeep | None = None
    parameters: Target | None = None
    aware: bool = True
    layers: tuple[str, ...] = Field(default=(), strict=False)
    rows: Count = 256

    @model_validator(mode="after")
    def _one_target(self) -> "LowRankCut":
        _exactly_one(self, ("energy", "parameters"))
        return self


class SharingCut(Part):
    """Neighbouring blocks become one that runs several times: `groups` different ones stay."""

    kind: Literal["sharing"]
    groups: Count
    by: Literal["mean", "representative"] = "representative"
    rows: Count = 256


class LoraUpdates(Part):
    """Nothing is cut: all weights are frozen, and `layers` learn updates of a low rank.

    An update is multiplied by `alpha / rank`, and added to its weights when the student is
    exported.
    """

    kind: Literal["lora"]
    rank: Count = 8
    alpha: Positive = 16.0
    layers: tuple[str, ...] = Field(default=(), strict=False)


class ScratchCut(Part):
    """A fresh, smaller network of the teacher's family, the largest one within the target.

    `parameters` is a share or a number, `bytes` the size of the exported float file, and
    `latency_ms` what one row may take on one thread. `vary` names the arguments that may change.
    """

    kind: Literal["scratch"]
    parameters: Target | None = None
    bytes: Count | None = None
    latency_ms: Positive | None = None
    vary: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_target(self) -> "ScratchCut":
        _exactly_one(self, ("parameters", "bytes", "latency_ms"))
        return self


def _exactly_one(part: Part, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(part, name) is not None]
    if len(given) != 1:
        listed = ", ".join(f"`{name}`" for name in names[:-1]) + f" and `{names[-1]}`"
        raise ValueError(
            f"exactly one of {listed} must be given, but got {' and '.join(given) or 'none'}"
        )


def _kind_of_cut(value: Any) -> str:
    kind = value.get("kind", "depth") if isinstance(value, dict) else getattr(value, "kind", "")
    return kind if isinstance(kind, str) else ""


Cut = Annotated[
    Annotated[DepthCut, Tag("depth")]
    | Annotated[WidthCut, Tag("width")]
    | Annotated[LowRankCut, Tag("low_rank")]
    | Annotated[SharingCut, Tag("sharing")]
    | Annotated[LoraUpdates, Tag("lora")]
    | Annotated[ScratchCut, Tag("scratch")],
    Discriminator(_kind_of_cut),
]
