"""Ridge regression in its dual form: one matrix of rows by rows, however many features there are.

Features are standardised and answers centred, so that the intercept is not punished. With K the
Gram matrix of the features and n rows, the answer fitted to the rows is K (K + ridge I)^-1 Y. What
every row would get from a fit to all the others follows without fitting again.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from understudy.errors import ModelError

# Shares of the mean eigenvalue of the Gram matrix.
_RIDGES: Final = tuple(10.0 ** (step / 2) for step in range(-10, 7))
# A feature that moves less than rounding has nothing to say.
_STILL: Final = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """How well features tell answers, with every row told by the others.

    Attributes:
        explained: share of the answers' variance that is explained, at most 1; below 0 where the
            mean of the other rows tells more.
        ridge: that was used, as a share of the mean eigenvalue of the Gram matrix.
        errors: float64 `[rows]`, squared error of a row that was left out of the fit.
        totals: float64 `[rows]`, squared distance of a row from the mean of the others.
    """

    explained: float
    ridge: float
    errors: Tensor
    totals: Tensor


def gram(features: Tensor) -> Tensor:
    """The Gram matrix of standardised features, float64 `[rows, rows]`.

    Matrices of several groups of features add up to that of all of them.

    Args:
        features: `[rows, width]`; columns that do not move count for nothing.
    """
    centred = features.double()
    centred = centred - centred.mean(dim=0)
    spread = centred.square().mean(dim=0).sqrt()
    moves = spread > _STILL * features.double().abs().mean(dim=0).clamp(min=1e-12)
    scaled = torch.where(moves, centred / spread.clamp(min=1e-300), torch.zeros_like(centred))
    return scaled @ scaled.T


def fit(kernel: Tensor, answers: Tensor, *, ridge: float | int | Literal["auto"] = "auto") -> Fit:
    """Tell every row's answer from the features of all the others.

    The error of a left-out row is its error in the fit to all rows, divided by one minus its
    leverage, which is exact for a given ridge and standardisation (Hastie, Tibshirani and Friedman
    2009, "The Elements of Statistical Learning", section 7.10.1 and equation 7.64).

    Args:
        kernel: of `gram`, `[rows, rows]`.
        answers: `[rows, width]`.
        ridge: share of the mean eigenvalue of the kernel, above 0; `auto` takes the one of the
            smallest error of left-out rows.

    Raises:
        ModelError: there are fewer than three rows, or their answers are all equal.
    """
    rows = len(answers)
    if rows < 3:
        raise ModelError(f"a regression needs three rows or more, but got {rows}: pass more rows")
    goal = answers.double() - answers.double().mean(dim=0)
    # A left-out row is no part of the mean that it is measured against either.
    totals = (goal * rows / (rows - 1)).square().sum(dim=1)
    if not bool(totals.sum() > 0):
        raise ModelError(
            f"the answers to the {rows} rows must differ for a regression on them, but are all "
            "equal: pass more and other rows"
        )
    scale = float(kernel.diagonal().mean())
    if scale <= 0:
        return Fit(explained=0.0, ridge=1.0, errors=totals, totals=totals)
    if ridge != "auto":
        return _measured(float(ridge), _by_inverse(kernel, goal, ridge * scale), totals)
    values, vectors = torch.linalg.eigh(kernel)
    turned = vectors.T @ goal
    found = [(r, _by_spectrum(values, vectors, turned, r * scale)) for r in _RIDGES]
    best, errors = min(found, key=lambda pair: float(pair[1].sum()))
    return _measured(best, errors, totals)


def check_ridge(ridge: float | int | Literal["auto"]) -> None:
    """Refuse a ridge that does not hold a fit.

    Raises:
        ModelError: it is not above 0.
    """
    if ridge != "auto" and not 0 < ridge < float("inf"):
        raise ModelError(f"`ridge > 0` must hold, but got {ridge=}: use `auto`")


def bootstrap(
    parts: Tensor, whole: Tensor, *, draws: int, seed: int, level: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Interval of the sum of `parts` over the sum of `whole`, when rows are drawn again.

    Rows are drawn with replacement, as often as there are; the interval is between percentiles
    (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife").

    Args:
        parts: `[rows, columns]`.
        whole: `[rows]`; ones for means over rows.
        draws: how often; the interval is a function of it and of `seed`.
        seed: of the draws.
        level: share of the draws inside.

    Returns:
        Low and high ends, float64 `[columns]` each.
    """
    rows = len(parts)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(rows, (draws, rows), generator=generator)
    weights = torch.zeros(draws, rows, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones(draws, rows, dtype=torch.float64))
    values = weights @ parts.double().cpu() / (weights @ whole.double().cpu())[:, None]
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.quantile(ends, dim=0)
    return low, high


def _by_inverse(kernel: Tensor, goal: Tensor, ridge: float) -> Tensor:
    """Squared errors of left-out rows, by one Cholesky factor."""
    shifted = kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
    free = ridge * inverse.diagonal() - 1 / len(kernel)
    return _left_out(ridge * (inverse @ goal), free)


def _by_spectrum(values: Tensor, vectors: Tensor, turned: Tensor, ridge: float) -> Tensor:
    """The same from eigenvalues, which serve for many ridges."""
    shrunk = ridge / (values.clamp(min=0) + ridge)
    free = vectors.square() @ shrunk - 1 / len(values)
    return _left_out(vectors @ (shrunk[:, None] * turned), free)


def _left_out(errors: Tensor, free: Tensor) -> Tensor:
    # A row that the fit passes through has no freedom left: rounding must not make it negative.
    return (errors / free.clamp(min=1e-9)[:, None]).square().sum(dim=1)


def _measured(ridge: float, errors: Tensor, totals: Tensor) -> Fit:
    explained = 1 - float(errors.sum() / totals.sum())
    return Fit(explained=explained, ridge=ridge, errors=errors, totals=totals)
