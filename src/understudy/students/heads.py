"""A new last layer on features that are frozen: fitted on few labelled rows, for another task."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import Tensor, nn

from understudy.errors import DataError, ModelError

# Strengths of the penalty on standardised features, from the strongest, so that each fit can start
# from the one before. Beyond these ends nothing changes any more.
PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(4.0, -4.0, -1.0))
MOST_FOLDS = 5

TaskKind = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A linear layer on raw features; the standardisation it was fitted with is folded in.

    Attributes:
        weight: `[width, features]`.
        bias: `[width]`.
        penalty: the strength that cross-validation chose.
    """

    weight: Float[np.ndarray, " width features"]
    bias: Float[np.ndarray, " width"]
    penalty: float

    def __call__(
        self, features: Float[np.ndarray, " rows features"]
    ) -> Float[np.ndarray, " rows width"]:
        """Logits, or values in the labels' units."""
        return np.asarray(features.astype(np.float64) @ self.weight.T + self.bias)


def fit_head(
    features: Float[np.ndarray, " rows features"],
    labels: Shaped[np.ndarray, "*labels"],
    *,
    kind: TaskKind,
    width: int,
    seed: int = 0,
) -> Head:
    """A linear head on features that stay as they are, from a few labelled rows and nothing else.

    Features are standardised with the mean and the deviation of these rows. A classification gets a
    multinomial logistic regression, a regression gets ridge; both with an L2 penalty whose strength
    has the best held-out log loss (of up to five folds, stratified) or squared error (leave one
    out) on these very rows. Every model that is compared goes through the same procedure.

    Args:
        features: one vector per labelled row.
        labels: int64 `[rows]`, every class in two rows or more, or float `[rows, width]`.
        kind: what the labels are for.
        width: how many classes or targets.
        seed: of the folds.

    Raises:
        DataError: a feature is not finite, a class has fewer than two rows, or labels do not fit.

    Paper:
        Kornblith, Shlens and Le 2019, "Do Better ImageNet Models Transfer Better?", section 3: the
        logistic regression on frozen penultimate features.

    Example:
        >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]])
        >>> head = fit_head(rows, np.array([0, 0, 1, 1]), kind="classification", width=2)
        >>> head(rows).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    _check(features, labels, kind, width)
    given = features.astype(np.float64)
    mean, spread = given.mean(axis=0), given.std(axis=0)
    # What does not vary among these rows says nothing, and must not blow up on others.
    scale = np.where(spread > 1e-9 * (1.0 + np.abs(mean)), spread, np.inf)
    standard = (given - mean) / scale
    fit = _logistic if kind == "classification" else _ridge
    weight, bias, penalty = fit(standard, labels, width, seed)
    return Head(weight=weight / scale, bias=bias - (weight / scale) @ mean, penalty=penalty)


def head_spot(network: nn.Module, rows: Tensor) -> str:
    """The place that a network's last linear layer reads, as a spot: `head:input`.

    Args:
        network: takes `rows`; it is left as it was.
        rows: two rows or more, for a dry run.

    Raises:
        ModelError: no linear layer runs.
    """
    called: list[str] = []
    modes = {module: module.training for module in network.modules()}
    hooks = [
        module.register_forward_hook(partial(_note, called, path))
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network.eval()(rows)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if not called:
        raise ModelError(
            "features are what the last nn.Linear reads, but no nn.Linear runs in "
            f"{type(network).__name__}: name the layer that gives them"
        )
    if not called[-1]:
        raise ModelError("a network of one linear layer has no features of its own: give it layers")
    return f"{called[-1]}:input"


def _note(called: list[str], path: str, module: nn.Module, given: Any, made: Any) -> None:
    del module, given, made
    called.append(path)


def _logistic(
    features: Float[np.ndarray, " rows features"],
    labels: Shaped[np.ndarray, " rows"],
    width: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, float]:
    folds = _folds(labels, width, seed)
    losses = np.zeros(len(PENALTIES))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        for at, model in enumerate(_path(features[~held], labels[~held])):
            weight, bias = _parts(model, width)
            losses[at] += _log_loss(features[held] @ weight.T + bias, labels[held])
    best = int(np.argmin(losses))
    weight, bias = _parts(_path(features, labels, last=best)[-1], width)
    return weight, bias, PENALTIES[best]


def _parts(model: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias, one line per class."""
    weight, bias = model.coef_, model.intercept_
    if width > 2:
        return weight, bias
    # Of two classes scikit-learn keeps the difference of the logits.
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The sum over rows in nats, finite however sure and wrong the logits are."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - own).sum())


def _path(features: np.ndarray, labels: np.ndarray, *, last: int = len(PENALTIES) - 1) -> list[Any]:
    """One model per penalty up to `last`, each started from the one before."""
    models: list[Any] = []
    with catch_warnings():
        # A weak penalty on separable rows has no end; what it has reached is judged like the rest.
        simplefilter("ignore", ConvergenceWarning)
        for penalty in PENALTIES[: last + 1]:
            model = LogisticRegression(C=1.0 / penalty, max_iter=200, warm_start=True)
            if models:
                model.classes_ = models[-1].classes_
                model.coef_ = models[-1].coef_.copy()
                model.intercept_ = models[-1].intercept_.copy()
            models.append(model.fit(features, labels))
    return models


def _ridge(
    features: Float[np.ndarray, " rows features"],
    labels: Shaped[np.ndarray, " rows targets"],
    width: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, float]:
    del seed  # leaving out one row at a time needs no chance
    mean, spread = labels.mean(axis=0), labels.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    model = RidgeCV(alphas=PENALTIES).fit(features, (labels - mean) / scale)
    weight = np.asarray(model.coef_).reshape(width, -1) * scale[:, None]
    bias = np.asarray(model.intercept_).reshape(width) * scale + mean
    return weight, bias, float(model.alpha_)


def _folds(labels: np.ndarray, width: int, seed: int) -> np.ndarray:
    """The fold of each row: every class is dealt out in turn, so no fold's rest lacks one."""
    counts = np.bincount(labels, minlength=width)
    many = int(min(MOST_FOLDS, counts.min()))
    random = np.random.Generator(np.random.Philox(key=seed))
    folds = np.empty(len(labels), np.int64)
    for number in range(width):
        rows = np.flatnonzero(labels == number)
        folds[random.permutation(rows)] = (np.arange(len(rows)) + number) % many
    return folds


def _check(features: np.ndarray, labels: np.ndarray, kind: TaskKind, width: int) -> None:
    if len(features) != len(labels):
        raise DataError(
            f"a head needs one label per row of features, but got {len(features)} rows and "
            f"{len(labels)} labels"
        )
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise DataError(
            f"features must be finite, but those of {int(bad.sum())} of {len(features)} rows are "
            "not: look at the layer they are read from"
        )
    if kind == "regression":
        if labels.shape[1:] != (width,) or not np.isfinite(labels).all() or len(labels) < 3:
            raise DataError(
                f"a regression's head needs three rows or more of {width} finite targets, but got "
                f"labels of shape {list(labels.shape)}"
            )
        return
    if width < 2 or labels.min(initial=0) < 0 or labels.max(initial=0) >= width:
        raise DataError(
            f"`width >= 2` and labels from 0 to width - 1 must hold for a head, but got {width=} "
            f"and labels from {labels.min(initial=0)} to {labels.max(initial=0)}"
        )
    counts = np.bincount(labels, minlength=width)
    if counts.min() < 2:
        raise DataError(
            "a head needs two labelled rows of every class or more, one to learn from and one to "
            f"choose the penalty by, but class {int(counts.argmin())} has {int(counts.min())}: "
            "label more rows"
        )
