"""What `make bench NAME=methods` compares: every method as the terms of its objective.

Weights are the usual ones of the methods' pages, on CIFAR-100 where these differ. Warm-ups that
authors give in epochs are as long a share of our ten as of their 240.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.recipe import TermEntry

Terms = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of the table.

    Attributes:
        name: of the row and of its parts.
        ground: `cifar` or `vit`, see `methods_grounds`.
        phases: one or two objectives, as terms of a recipe.
        reused_head: whether the student answers with its teacher's last layer.
        note: for the reader of the table.
    """

    name: str
    phases: tuple[Terms, ...]
    ground: str = "cifar"
    reused_head: bool = False
    note: str = ""

    def entries(self) -> tuple[tuple[TermEntry, ...], ...]:
        """The phases, checked."""
        return tuple(tuple(TermEntry.model_validate(t) for t in phase) for phase in self.phases)

    @property
    def control(self) -> bool:
        """Whether it learns from hard labels alone."""
        return self.name.endswith("control")


# Student and teacher; the teacher's stages are read before their ReLU, which stands outside them.
STAGES = [{"student": f"stages.{i}", "teacher": f"layer{i + 1}"} for i in range(3)]
BEFORE_RELU = [{"student": f"stages.{i}.0.norm2", "teacher": f"layer{i + 1}"} for i in range(3)]
MIDDLE, LAST = STAGES[1], STAGES[2]
VECTOR = {"student": "head:input", "teacher": "linear:input"}

HARD = {"kind": "hard_label", "weight": 1}
LITTLE = {"kind": "hard_label", "weight": 0.1}
SOFT = {"kind": "soft_target", "weight": 0.9, "temperature": 4}

WARM_UP = {"start": 0, "end": 1, "epochs": 1}

CONTROL = Method(name="control", phases=((HARD,),))
VIT_CONTROL = Method(name="vit_control", ground="vit", phases=((HARD,),))

LOGITS = (
    Method(name="soft_target", phases=((LITTLE, SOFT),)),
    Method(
        name="logit_mse",
        phases=(({"kind": "hard_label", "weight": 0.5}, {"kind": "logit_mse", "weight": 0.5}),),
    ),
    Method(name="reverse_kl", phases=((HARD, {"kind": "reverse_kl", "temperature": 1}),)),
    Method(
        name="jensen_shannon",
        phases=((HARD, {"kind": "jensen_shannon", "beta": 0.5, "temperature": 1}),),
    ),
    Method(name="skew_kl", phases=((HARD, {"kind": "skew_kl", "skew": 0.1, "temperature": 1}),)),
    Method(
        name="dkd",
        phases=(
            (HARD, {"kind": "dkd", "weight": WARM_UP, "alpha": 1, "beta": 2, "temperature": 4}),
        ),
    ),
    Method(name="dist", phases=((HARD, {"kind": "dist", "beta": 2, "gamma": 2, "tau": 4}),)),
    Method(name="nkd", phases=((HARD, {"kind": "nkd", "gamma": 1.5, "temperature": 1}),)),
    Method(name="wsld", phases=((HARD, {"kind": "wsld", "weight": 2.5, "temperature": 2}),)),
    Method(
        name="standardize",
        phases=(
            (
                LITTLE,
                {
                    "kind": "standardize",
                    "weight": 9,
                    "of": {"kind": "soft_target", "temperature": 2},
                },
            ),
        ),
    ),
    Method(
        name="ctkd",
        phases=(
            (
                LITTLE,
                {"kind": "ctkd", "weight": 0.9, "adapter": {"kind": "temperature", "epochs": 0.5}},
            ),
        ),
    ),
    Method(name="multi_level", phases=((LITTLE, {"kind": "multi_level", "weight": 0.9}),)),
    Method(
        name="teacher_free",
        phases=(({"kind": "hard_label", "weight": 0.9}, {"kind": "teacher_free", "weight": 10}),),
        note="asks no teacher",
    ),
)

FEATURES = (
    Method(
        name="hint",
        phases=(({"kind": "hint", "weight": 100, "layers": MIDDLE},), (LITTLE, SOFT)),
        note="then soft_target, as in the paper",
    ),
    Method(
        name="attention_transfer",
        phases=((HARD, {"kind": "attention_transfer", "weight": 1000, "layers": STAGES}),),
    ),
    Method(name="nst", phases=((HARD, {"kind": "nst", "weight": 50, "layers": STAGES}),)),
    Method(
        name="fsp",
        phases=(({"kind": "fsp", "weight": 50, "layers": STAGES},), (HARD,)),
        note="then hard labels",
    ),
    Method(
        name="similarity_preserving",
        phases=((HARD, {"kind": "similarity_preserving", "weight": 3000, "layers": LAST}),),
    ),
    Method(
        name="factor_transfer",
        phases=(
            ({"kind": "paraphraser", "layers": LAST},),
            (HARD, {"kind": "factor_transfer", "weight": 500, "layers": LAST}),
        ),
        note="the student learns in the second phase only",
    ),
    Method(
        name="activation_boundary",
        phases=(({"kind": "activation_boundary", "layers": BEFORE_RELU},), (HARD,)),
        note="then hard labels",
    ),
    Method(name="overhaul", phases=((HARD, {"kind": "overhaul", "layers": BEFORE_RELU}),)),
    Method(name="vid", phases=((HARD, {"kind": "vid", "layers": STAGES}),)),
    Method(name="mgd", phases=((HARD, {"kind": "mgd", "weight": 0.00007, "layers": LAST}),)),
    Method(
        name="channel_wise",
        phases=((HARD, {"kind": "channel_wise", "weight": 50, "layers": LAST}),),
    ),
    Method(
        name="review",
        phases=(
            (
                HARD,
                {
                    "kind": "review",
                    "weight": {"start": 0, "end": 0.6, "epochs": 1},
                    "layers": [*STAGES, VECTOR],
                },
            ),
        ),
    ),
    Method(
        name="simkd",
        phases=(({"kind": "simkd", "layers": VECTOR},),),
        reused_head=True,
        note="the projector answers place by place, as this teacher pools to 2x2",
    ),
)

RELATIONS = (
    Method(
        name="rkd_distance",
        phases=((HARD, {"kind": "rkd_distance", "weight": 25, "layers": VECTOR}),),
    ),
    Method(
        name="rkd_angle", phases=((HARD, {"kind": "rkd_angle", "weight": 50, "layers": VECTOR}),)
    ),
    Method(
        name="rkd_both",
        phases=(
            (
                HARD,
                {"kind": "rkd_distance", "weight": 25, "layers": VECTOR},
                {"kind": "rkd_angle", "weight": 50, "layers": VECTOR},
            ),
        ),
    ),
    Method(name="pkt", phases=((HARD, {"kind": "pkt", "weight": 30000, "layers": VECTOR}),)),
    Method(
        name="correlation_congruence",
        phases=(
            (LITTLE, SOFT, {"kind": "correlation_congruence", "weight": 100, "layers": VECTOR}),
        ),
        note="beside soft_target",
    ),
    Method(
        name="crd",
        phases=(
            (
                HARD,
                {
                    "kind": "crd",
                    "weight": 0.8,
                    "layers": VECTOR,
                    "adapter": {"kind": "contrast", "negatives": 4096},
                },
            ),
        ),
        note="4,096 negatives: as large a share of the rows as the authors' 16,384",
    ),
    Method(name="cka", phases=((HARD, {"kind": "cka", "layers": VECTOR}),)),
)

HIDDEN = {"kind": "tinybert_hidden", "layers": "auto"}
TRANSFORMERS = (
    Method(name="vit_soft_target", ground="vit", phases=((LITTLE, SOFT),)),
    Method(name="tinybert_hidden", ground="vit", phases=((HARD, HIDDEN),)),
    Method(
        name="tinybert_attention",
        ground="vit",
        phases=((HARD, HIDDEN, {"kind": "tinybert_attention", "layers": "auto"}),),
        note="beside tinybert_hidden",
    ),
    Method(
        name="minilm",
        ground="vit",
        phases=(({"kind": "minilm", "layers": "auto"},), (HARD,)),
        note="then hard labels",
    ),
    Method(
        name="minilm_v2",
        ground="vit",
        phases=(({"kind": "minilm_v2", "layers": "auto"},), (HARD,)),
        note="then hard labels",
    ),
    Method(
        name="pkd",
        ground="vit",
        phases=(
            (
                {"kind": "hard_label", "weight": 0.3},
                {"kind": "soft_target", "weight": 0.7, "temperature": 4},
                {"kind": "pkd", "weight": 10, "layers": "auto"},
            ),
        ),
        note="beside soft_target",
    ),
)

# Controls first: every other row is compared with one.
METHODS = (CONTROL, VIT_CONTROL, *LOGITS, *FEATURES, *RELATIONS, *TRANSFORMERS)
