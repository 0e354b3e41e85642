"""How a candidate learns: settings, the learning rate, and which layers practise."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

_WARM_UP = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Learning:
    """How a candidate learns.

    Attributes:
        epochs: passes over the rows; 0 only measures.
        batch_size: rows per step.
        learning_rate: at its largest; it rises for a twentieth of the steps and falls as a cosine.
        weight_decay: of AdamW.
        clip: the largest norm of a gradient; 0: any.
        noise: relative size of what is mixed into the inputs, from 0 to 1. By itself the standard
            deviation of Gaussian noise in units of each feature's own; with a student's inputs at
            hand the share of rows that are replaced by them. Whole numbers take no noise.
        seed: of the order of rows and the noise.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float | int = 1e-3
    weight_decay: float | int = 0.01
    clip: float | int = 1.0
    noise: float | int = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if self.epochs < 0 or self.batch_size < 1:
            raise ValueError(
                "`epochs >= 0` and `batch_size >= 1` must hold, but got "
                f"epochs={self.epochs}, batch_size={self.batch_size}: usual are 5 and 64"
            )
        if not (self.learning_rate > 0 and 0 <= self.noise <= 1 and self.clip >= 0):
            raise ValueError(
                "`learning_rate > 0`, `0 <= noise <= 1` and `clip >= 0` must hold, but got "
                f"{self.learning_rate}, {self.noise} and {self.clip}: usual are 0.001, 0 and 1"
            )


def rate_factor(step: int, total: int) -> float:
    """What the learning rate is multiplied by in a step, from 0: warm-up, then a cosine."""
    warm = round(_WARM_UP * total)
    if step < warm:
        return (step + 1) / (warm + 1)
    return (1 + math.cos(math.pi * (step - warm) / max(1, total - warm))) / 2


@contextmanager
def practising(module: nn.Module) -> Iterator[None]:
    """Batch normalisation and recurrent layers train; nothing is dropped out."""
    module.eval()
    for part in module.modules():
        learns = any(p.requires_grad for p in part.parameters())
        # Recurrent layers have a gradient on a GPU only so.
        recurrent = isinstance(part, nn.RNNBase) and not part.dropout
        if learns and (recurrent or isinstance(part, nn.modules.batchnorm._BatchNorm)):
            part.train()
    try:
        yield
    finally:
        module.eval()
