"""Groups of classes: what makes a division of all classes, and finding one of like classes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from understudy.errors import DataError, ModelError

Groups = tuple[tuple[int, ...], ...]


def divided(groups: Sequence[Sequence[int]], classes: int) -> Groups:
    """The groups, if each of the classes is in just one of them.

    Args:
        groups: two or more, of two classes or more each.
        classes: how many there are.

    Raises:
        ModelError: a class is in no group, in two, or not there; or a group is too small.
    """
    found = tuple(tuple(int(one) for one in group) for group in groups)
    every = [one for group in found for one in group]
    counts = np.bincount([one for one in every if 0 <= one < classes], minlength=classes)
    if len(every) != classes or not (counts == 1).all():
        wrong = {
            "not classes": sorted({one for one in every if not 0 <= one < classes}),
            "in two groups": np.flatnonzero(counts > 1).tolist(),
            "in none": np.flatnonzero(counts == 0).tolist(),
        }
        said = "; ".join(f"{what}: {some[:5]}" for what, some in wrong.items() if some)
        raise ModelError(
            f"each of the {classes} classes must be in just one group, but there are {said}"
        )
    small = [group for group in found if len(group) < 2]
    if small or len(found) < 2:
        raise ModelError(
            f"two groups or more of two classes or more are needed, but got "
            f"{[list(group) for group in found]}: join groups, or leave specialists out"
        )
    return found


def likeness(answers: Tensor) -> NDArray[np.float64]:
    """How alike a teacher finds classes: the correlation of their logits over rows.

    Each row's mean logit is taken off before, as it says nothing of classes. What a teacher
    confuses rises and falls together, also on rows that it learned and no longer confuses.

    Args:
        answers: logits `[rows, classes]`, such as those that a label store holds.

    Returns:
        `[classes, classes]` from -1 to 1; 0 for a class whose logit never changes, and 1 on the
        diagonal.

    Raises:
        DataError: fewer than three rows or classes, or a logit is not finite.
    """
    if answers.ndim != 2 or min(answers.shape) < 3:
        raise DataError(
            "logits of three rows and classes or more are needed to group classes, but got "
            f"{list(answers.shape)}"
        )
    if not bool(torch.isfinite(answers).all()):
        raise DataError("logits must be finite to group classes: leave such rows out")
    table = answers.detach().cpu().double().numpy()
    table = table - table.mean(axis=1, keepdims=True)
    table = table - table.mean(axis=0)
    size = np.sqrt((table**2).sum(axis=0))
    # What rounding leaves of a constant is no change.
    moves = size > 1e-9 * size.max()
    table = np.divide(table, size, out=np.zeros_like(table), where=moves)
    found: NDArray[np.float64] = np.clip(table.T @ table, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def grouped(answers: Tensor, count: int) -> Groups:
    """Divide the classes into groups of like ones whose sizes differ by one at the most.

    The leaves of a hierarchical clustering (average linkage, ordered so that neighbours are alike)
    are cut into runs; then two classes of different groups change places as long as that raises
    the likeness inside groups.

    Args:
        answers: logits `[rows, classes]` of rows that the teacher was asked for anyway.
        count: how many groups, of two classes or more each.

    Returns:
        The groups by their smallest class, the classes of each in order.

    Raises:
        ModelError: there are too few classes for so many groups.
        DataError: as of `likeness`.
    """
    alike = likeness(answers)
    classes = len(alike)
    if not 2 <= count <= classes // 2:
        raise ModelError(
            f"`2 <= count <= classes / 2` must hold, but got {count=} and {classes} classes"
        )
    apart = squareform(np.maximum(1.0 - alike, 0.0), checks=False)
    order = leaves_list(linkage(apart, method="average", optimal_ordering=True))
    own = np.empty(classes, np.int64)
    for number, run in enumerate(np.array_split(order, count)):
        own[run] = number
    _exchange(alike, own, count)
    found = [tuple(np.flatnonzero(own == number).tolist()) for number in range(count)]
    return divided(sorted(found), classes)


def within(alike: NDArray[np.float64], groups: Sequence[Sequence[int]]) -> float:
    """The sum of the likeness of all pairs inside groups."""
    return float(
        sum(alike[np.ix_(group, group)].sum() - alike[group, group].sum() for group in groups) / 2
    )


def _exchange(alike: NDArray[np.float64], own: NDArray[np.int64], count: int) -> None:
    """Change places, the best two classes first, until nothing is gained."""
    pairs = alike - np.diag(np.diag(alike))
    every = np.arange(len(own))
    while True:
        bonds = pairs @ np.eye(count)[own]
        # What each class gains by going to the group of each other one.
        gain = bonds[:, own] - bonds[every, own][:, None]
        both = gain + gain.T - 2 * pairs
        both[own[:, None] == own[None, :]] = 0.0
        one, other = np.unravel_index(int(both.argmax()), both.shape)
        if both[one, other] <= 1e-9:
            return
        own[[one, other]] = own[[other, one]]
