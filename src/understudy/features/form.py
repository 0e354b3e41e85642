"""What an adapter is, and the three kinds of features that adapters tell apart.

An adapter holds whatever a term learns or remembers between a student's and a teacher's features.
Shapes are those of one row, as a dry run found them, without the batch axis.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError, TrainingError

Shape = tuple[int, ...]
Kind = Literal["map", "tokens", "vector"]

_KINDS: dict[int, Kind] = {3: "map", 2: "tokens", 1: "vector"}
_WORDS = {
    "map": "maps [channels, height, width]",
    "tokens": "tokens [tokens, width]",
    "vector": "vectors [width]",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """What an adapter made of the captured features of one batch.

    Attributes:
        student: the student's side, one tensor per pair of layers.
        teacher: the teacher's side.
        values: what else the loss is called with, by name, one tensor per pair of layers.
        mask: bool `[batch, places]`, which places of a row count, where the adapter has made other
            ones of a text's tokens.
    """

    student: list[Tensor]
    teacher: list[Tensor]
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    mask: Tensor | None = None


@runtime_checkable
class Adapter(Protocol):
    """Stands between captured features and a loss; the objective calls it once per batch."""

    def __call__(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """What the loss receives for these features, `[batch, ...]` per pair of layers."""


def kind_of(shape: Shape) -> Kind:
    """Whether a row is a map, a list of tokens or a vector.

    Raises:
        ModelError: it has another number of axes, or an empty one.
    """
    if len(shape) not in _KINDS or min(shape) < 1:
        raise ModelError(
            f"features must be {_listing(_KINDS.values())} per row, but got one of shape "
            f"{list(shape)}: name another layer"
        )
    return _KINDS[len(shape)]


def check_pairs(student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
    """Refuse lists of layers of different lengths, and empty ones.

    Raises:
        ModelError: naming both lengths.
    """
    if len(student) != len(teacher) or not student:
        raise ModelError(
            "each layer of the student must have one of the teacher, and one pair at least, but "
            f"got {len(student)} and {len(teacher)} layers: name as many of the one as of the other"
        )
    for shape in (*student, *teacher):
        kind_of(shape)


def check_kinds(
    name: str, student: Shape, teacher: Shape, *, takes: Sequence[Kind], remedy: str
) -> Kind:
    """The kind of a pair of layers, once both are of the same and the adapter takes it.

    Raises:
        ModelError: naming both shapes.
    """
    kinds = {kind_of(student), kind_of(teacher)}
    if len(kinds) > 1 or not kinds <= set(takes):
        raise ModelError(
            f"the adapter `{name}` takes pairs of {_listing(takes)}, but got a student of "
            f"{list(student)} and a teacher of {list(teacher)}: {remedy}"
        )
    return kinds.pop()


def check_normalised(module: nn.Module, features: Sequence[Tensor]) -> None:
    """Refuse to normalise one row by its own statistics, which is what training would do with it.

    Raises:
        TrainingError: the module trains, and the batch has fewer than two rows.
    """
    rows = min(len(layer) for layer in features)
    if module.training and rows < 2:
        raise TrainingError(
            f"batch normalisation needs two rows or more while it trains, but the batch has {rows}:"
            " choose a larger batch size, or drop the last batch of an epoch"
        )


def check_share(name: str, value: float) -> None:
    """Refuse a share outside 0 to 1.

    Raises:
        ModelError: naming it.
    """
    if not 0 < value < 1:
        raise ModelError(
            f"`0 < {name} < 1` must hold, but got {name}={value}: usual is 0.15 to 0.65"
        )


def check_least(name: str, value: int) -> None:
    """Refuse a size below 1.

    Raises:
        ModelError: naming it.
    """
    if value < 1:
        raise ModelError(f"`{name} >= 1` must hold, but got {name}={value}")


def pooled(features: Tensor, real: Tensor | None = None) -> Tensor:
    """One vector per row, `[batch, width]`: the mean over space or over tokens.

    Args:
        features: of some rows.
        real: bool `[batch, tokens]`, of texts: the tokens that are no padding. A row without any
            has the mean 0.
    """
    if features.ndim == 4:
        # A mean, as adaptive pooling has no deterministic gradient on CUDA.
        return features.mean(dim=(2, 3))
    if features.ndim == 3 and real is not None and features.shape[1] == real.shape[1]:
        # Not times 0: what stands in padding may be no number.
        total = torch.where(real.unsqueeze(2), features, 0.0).sum(dim=1)
        return total / real.sum(dim=1, keepdim=True).clamp(min=1)
    return features.mean(dim=1) if features.ndim == 3 else features


def width_of(shape: Shape) -> int:
    """Numbers per place of a row: a map's channels, a token's or a vector's width."""
    return shape[0] if kind_of(shape) == "map" else shape[-1]


def _listing(kinds: Iterable[Kind]) -> str:
    words = [_WORDS[k] for k in kinds]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
