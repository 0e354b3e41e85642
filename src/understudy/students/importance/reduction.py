"""Making features small: one vector per row, and fewer numbers in it."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from understudy.errors import ModelError

Reduce = Literal["none", "pca", "lda", "attention"]
Reduction = Callable[[Tensor], Tensor]

# How much of the scatter within classes is made round, as rows may be fewer than features.
_SHRINKAGE = 0.1


def pooled(features: Tensor, *, attention: bool = False) -> Tensor:
    """One vector per row.

    Maps `[rows, channels, height, width]` (and whatever has more axes) are averaged over places,
    sequences `[rows, tokens, width]` over tokens; vectors stay. Padding is not known here, so it
    counts.

    With `attention` places are weighted by the softmax of their vectors' length, divided by the
    mean length in the row: where features are large counts most, whatever their unit. It has no
    weights to learn.

    Args:
        features: `[rows, ...]`.
        attention: see above.

    Raises:
        ModelError: there is no axis of features.

    Example:
        >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 7, 5)).shape
        (torch.Size([2, 3]), torch.Size([2, 5]))
    """
    places = at_places(features)
    if not attention:
        return places.mean(dim=1)
    length: Tensor = torch.linalg.vector_norm(places, dim=2)
    share = (length / length.mean(dim=1, keepdim=True).clamp(min=1e-12)).softmax(dim=1)
    return (share[:, :, None] * places).sum(dim=1)


def at_places(features: Tensor) -> Tensor:
    """Features as `[rows, places, width]`; a vector has one place.

    Raises:
        ModelError: there is no axis of features.
    """
    if features.ndim < 2:
        raise ModelError(
            f"features must be `[rows, width]` or have more axes, but got {list(features.shape)}: "
            "name a block that gives some"
        )
    if features.ndim == 2:
        return features[:, None]
    if features.ndim == 3:
        return features
    return features.flatten(2).transpose(1, 2)


def reduction(
    features: Tensor, how: Reduce, *, components: int, classes: Tensor | None = None
) -> Reduction:
    """A map to fewer features, learned on some rows, to be used on any.

    Args:
        features: `[rows, width]`.
        how: `pca`, the directions in which features vary most; `lda`, those in which classes lie
            apart most, measured by the scatter within classes (a tenth of it made round). Others
            leave features as they are.
        components: how many there are to be; fewer where rows, features or classes allow no more.
        classes: int64 `[rows]`, for `lda`.

    Raises:
        ModelError: `components < 1`, or classes are missing or all the same.

    Paper:
        Pearson 1901, "On Lines and Planes of Closest Fit"; Rao 1948, "The Utilization of Multiple
        Measurements in Problems of Biological Classification".
    """
    if components < 1:
        raise ModelError(f"`components >= 1` must hold, but got {components=}: use 16")
    if how in ("none", "attention"):
        return lambda given: given
    values = features.double()
    mean = values.mean(dim=0)
    ways = _pca(values - mean) if how == "pca" else _lda(values - mean, classes)
    ways = ways[:, :components]
    return lambda given: (given.double() - mean) @ ways


def _pca(centred: Tensor) -> Tensor:
    """Orthonormal directions, most variance first, `[width, most]`."""
    _, _, ways = torch.linalg.svd(centred, full_matrices=False)
    return _pointing(ways.T)


def _lda(centred: Tensor, classes: Tensor | None) -> Tensor:
    """Discriminant directions, best first, `[width, classes - 1]` at most."""
    if classes is None or len(classes) != len(centred):
        told = "none" if classes is None else f"{len(classes)} for {len(centred)} rows"
        raise ModelError(f"`lda` needs a class per row, but got {told}: pass `labels`")
    names, numbers = torch.unique(classes, return_inverse=True)
    if len(names) < 2:
        raise ModelError("`lda` needs rows of two classes or more, but got one: pass other rows")
    member = torch.nn.functional.one_hot(numbers, len(names)).to(centred)
    sizes = member.sum(dim=0)
    means = (member.T @ centred) / sizes[:, None]
    inner = centred - means[numbers]
    within = inner.T @ inner / len(centred)
    size = within.diagonal().mean().clamp(min=1e-12)
    round_one = size * torch.eye(len(within), dtype=within.dtype, device=within.device)
    factor = torch.linalg.cholesky((1 - _SHRINKAGE) * within + _SHRINKAGE * round_one)
    # In whitened coordinates the directions between classes are singular vectors of their means.
    apart = torch.linalg.solve_triangular(factor, (means * sizes.sqrt()[:, None]).T, upper=False)
    ways, strength, _ = torch.linalg.svd(apart, full_matrices=False)
    kept = min(len(names) - 1, int((strength > 1e-9 * strength.max().clamp(min=1e-300)).sum()))
    found = torch.linalg.solve_triangular(factor.T, ways[:, : max(kept, 1)], upper=True)
    return _pointing(found)


def _pointing(ways: Tensor) -> Tensor:
    """Each direction with its largest entry positive, so that all machines agree on its sign."""
    largest = ways.gather(0, ways.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -ways, ways)
