"""What pairs of features must look like before a loss reads them, and maps of a smaller size.

Features are maps `[batch, channels, height, width]`, tokens `[batch, tokens, width]` or vectors
`[batch, width]`, as in the adapters. Nothing is stretched: a map of one pixel beside a map of 64
would broadcast without a word, and the loss would be a number like any other.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

NOTHING: Final = 1e-12
"""A vector of this length or less has no direction: a channel that is switched off."""


def matched(
    student: Tensor, teacher: Tensor
) -> tuple[Float[Tensor, " batch *features"], Float[Tensor, " batch *features"]]:
    """Both sides, once they have the same shape, in one precision of at least float32.

    The teacher's side comes back detached.

    Args:
        student: `[batch, ...]`, one axis or more beside the batch.
        teacher: of exactly the same shape.

    Raises:
        ValueError: the shapes differ, or a row holds nothing.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"`student.shape == teacher.shape` must hold, but got student {_shape(student)} and "
            f"teacher {_shape(teacher)}: bring the student's features to the teacher's shape with "
            "an adapter; nothing is broadcast"
        )
    _check_full(student, name="student")
    return _one_precision(student, teacher)


def same_rows(
    student: Tensor, teacher: Tensor
) -> tuple[Float[Tensor, " batch width"], Float[Tensor, " batch depth"]]:
    """Both sides flattened, `[batch, width]` and `[batch, depth]`, once they have the same rows.

    Raises:
        ValueError: the numbers of rows differ, or a row holds nothing.
    """
    _check_full(student, name="student")
    _check_full(teacher, name="teacher")
    if len(student) != len(teacher):
        raise ValueError(
            f"`len(student) == len(teacher)` must hold, but got student {_shape(student)} and "
            f"teacher {_shape(teacher)}: give both one row per example, in the same order"
        )
    own, goal = _one_precision(student, teacher)
    return own.flatten(1), goal.flatten(1)


def same_places(
    student: Tensor, teacher: Tensor, *, least: int = 2
) -> tuple[Float[Tensor, " batch own places"], Float[Tensor, " batch other places"]]:
    """Both sides as `[batch, channels, places]`: pixels or tokens last, each with own channels.

    Args:
        student: maps or tokens.
        teacher: of the same height and width, or as many tokens; it may have other channels.
        least: the fewest places that mean anything.

    Raises:
        ValueError: rows or places differ, or there are too few places.
    """
    _check_full(student, name="student")
    _check_full(teacher, name="teacher")
    own, goal = as_maps(student), as_maps(teacher)
    if (len(own), own.shape[2:]) != (len(goal), goal.shape[2:]):
        raise ValueError(
            "the same rows, and the same height and width, must hold, but got student "
            f"{_shape(student)} and teacher {_shape(teacher)}: pool the larger of the two; "
            "channels may differ"
        )
    if own.shape[2] * own.shape[3] < least:
        raise ValueError(
            f"`places >= {least}` must hold, but got student {_shape(student)} and teacher "
            f"{_shape(teacher)}: this loss compares pixels or tokens, so name a layer that has "
            "some"
        )
    own, goal = _one_precision(own, goal)
    return own.flatten(2), goal.flatten(2)


def matched_layers(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, least: int = 1
) -> list[tuple[Float[Tensor, " batch _ _ _"], Float[Tensor, " batch _ _ _"]]]:
    """Pairs of maps `[batch, channels, height, width]`, one per layer, all with the same rows.

    Args:
        student: features of several layers.
        teacher: as many, each of the shape of its partner.
        least: the fewest layers that mean anything.

    Raises:
        ValueError: the lists differ in length or are too short, or a pair differs in shape, or
            layers differ in rows.
    """
    if len(student) != len(teacher) or len(student) < least:
        raise ValueError(
            f"`len(student) == len(teacher) >= {least}` must hold, but got {len(student)} layers "
            f"of the student and {len(teacher)} of the teacher: name as many of both"
        )
    pairs = [matched(own, goal) for own, goal in zip(student, teacher, strict=True)]
    rows = [len(own) for own, _ in pairs]
    if len(set(rows)) > 1:
        raise ValueError(
            f"every layer must hold the same rows, but got {rows} rows: give each one row per "
            "example"
        )
    return [(as_maps(own), as_maps(goal)) for own, goal in pairs]


def as_maps(features: Tensor) -> Float[Tensor, " batch channels height width"]:
    """Maps as they are; tokens as a column of pixels; a vector as one pixel.

    Raises:
        ValueError: they are none of the three.
    """
    if features.ndim == 4:
        return features
    if features.ndim == 3:
        return features.transpose(1, 2).unsqueeze(-1)
    if features.ndim == 2:
        return features[:, :, None, None]
    raise ValueError(
        "features must be [batch, channels, height, width], [batch, tokens, width] or "
        f"[batch, width], but got {_shape(features)}: name another layer"
    )


def shrunk(
    maps: Float[Tensor, " batch channels height width"],
    size: tuple[int, int],
    how: Callable[..., Tensor],
) -> Float[Tensor, " batch channels new_height new_width"]:
    """Maps at another size: `how` over the windows of adaptive pooling, each axis by itself.

    Adaptive pooling itself has no deterministic gradient on CUDA. Its windows are rectangles, so
    a mean or a maximum of the one axis and then of the other is the same number. Width comes
    first: the first maximum of the first row that has it is then the first of the window, as in
    adaptive pooling.
    """
    for axis, after in ((3, size[1]), (2, size[0])):
        before = maps.shape[axis]
        if before == after:
            continue
        starts = [i * before // after for i in range(after)]
        ends = [-(-(i + 1) * before // after) for i in range(after)]
        windows = [
            how(maps.narrow(axis, start, end - start), dim=axis)
            for start, end in zip(starts, ends, strict=True)
        ]
        maps = torch.stack(windows, dim=axis)
    return maps


def check_positive(name: str, value: float, *, usual: str) -> None:
    """Refuse what is 0 or less, or not finite.

    Raises:
        ValueError: naming it and what is `usual`.
    """
    if not 0 < value < float("inf"):
        raise ValueError(f"`{name} > 0` must hold, but got {name}={value}: usual is {usual}")


def _check_full(features: Tensor, *, name: str) -> None:
    if features.ndim < 2 or 0 in features.shape[1:]:
        raise ValueError(
            f"`{name}` must hold at least one number per row, but got {_shape(features)}: "
            "give it as [batch, ...]"
        )


def _one_precision(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
