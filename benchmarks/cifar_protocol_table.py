"""The arms of `make bench NAME=cifar_protocol`: published accuracy, and the terms of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import mode

NEGATIVES = 16384 if mode() == "full" else 512
STAGES = [{"student": f"stages.{i}", "teacher": f"stages.{i}"} for i in range(3)]
VECTOR = {"student": "head:input", "teacher": "head:input"}
HARD = {"kind": "hard_label", "weight": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One row of the table.

    Attributes:
        published: accuracy in per cent.
        terms: of its objective.
        depth: of the network that is trained.
    """

    published: float
    terms: tuple[Mapping[str, Any], ...]
    depth: int = 20


def rising(weight: float) -> dict[str, float]:
    """From nothing to a weight over the authors' first 20 epochs."""
    return {"start": 0, "end": weight, "epochs": 20}


ARMS: Mapping[str, Arm] = {
    "teacher": Arm(published=72.34, terms=(HARD,), depth=56),
    "alone": Arm(published=69.06, terms=(HARD,)),
    "kd": Arm(
        published=70.66,
        terms=(
            {"kind": "hard_label", "weight": 0.1},
            {"kind": "soft_target", "weight": 0.9, "temperature": 4},
        ),
    ),
    "dkd": Arm(
        published=71.97,
        terms=(HARD, {"kind": "dkd", "weight": rising(1), "beta": 2, "temperature": 4}),
    ),
    "crd": Arm(
        published=71.16,
        terms=(
            HARD,
            {
                "kind": "crd",
                "weight": 0.8,
                "layers": VECTOR,
                "adapter": {"kind": "contrast", "negatives": NEGATIVES},
            },
        ),
    ),
    "fitnets": Arm(
        published=69.21, terms=(HARD, {"kind": "hint", "weight": 100, "layers": STAGES[1]})
    ),
    "at": Arm(
        published=70.55,
        terms=(HARD, {"kind": "attention_transfer", "weight": 1000, "layers": STAGES}),
    ),
    "rkd": Arm(
        published=69.61,
        terms=(
            HARD,
            {"kind": "rkd_distance", "weight": 25, "layers": VECTOR},
            {"kind": "rkd_angle", "weight": 50, "layers": VECTOR},
        ),
    ),
    "dist": Arm(published=71.75, terms=(HARD, {"kind": "dist", "beta": 2, "gamma": 2, "tau": 4})),
    "review": Arm(
        published=71.89,
        terms=(HARD, {"kind": "review", "weight": rising(0.6), "layers": [*STAGES, VECTOR]}),
    ),
}
