"""How far answers are from the original's, and how much worse they are at the task."""

from collections.abc import Callable
from math import inf, isfinite
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from understudy.errors import DataError, ModelError

Number = int | float
Output = Literal["logits", "values", "embedding"]
# All answers, `[rows, ...]`, to a number that is higher for better ones.
Metric = Callable[[Tensor], Number]


class Tally:
    """What the answers of one network came to so far."""

    def __init__(self) -> None:
        self.away = 0.0
        self.bad = 0.0
        self.answers: list[Tensor] = []


class Ruler:
    """Damage and drop of answers that come in portions.

    Args:
        labels: of all rows, or None for the original's own answers in their place.
        rows: how many there are.
        output: what an answer is.
        metric: in place of the metric of the labels.

    Raises:
        DataError: the labels are not one per row, none is known, or they do not vary.
        ModelError: embeddings with labels and no metric.
    """

    def __init__(
        self, labels: Tensor | None, *, rows: int, output: Output, metric: Metric | None = None
    ) -> None:
        self._output, self._metric = output, metric
        self._labels = None if metric is not None else labels
        if self._labels is not None:
            _check(self._labels, rows, output)
            self._prepare(self._labels)
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, tally: Tally, answer: Tensor, truth: Tensor, here: slice) -> None:
        """Count one portion of a network's answers.

        Raises:
            ModelError: they do not have the shape of the original's.
        """
        if answer.shape != truth.shape:
            raise ModelError(
                f"the answers must have the original's shape {list(truth.shape)}, but have "
                f"{list(answer.shape)}"
            )
        tally.away += (
            _divergence(answer, truth) if self._output == "logits" else _squared(answer, truth)
        )
        if self._metric is not None:
            tally.answers.append(answer)
        elif self._output == "logits":
            tally.bad += self._wrong(answer, truth, here)
        elif self._labels is not None:
            tally.bad += self._errors(answer, here)

    def add_original(self, tally: Tally, truth: Tensor, here: slice) -> None:
        """Count one portion of the original's answers.

        Raises:
            ModelError: they are not finite.
        """
        if not torch.isfinite(truth).all():
            raise ModelError(
                "the original's answers to these rows are not finite: check its weights and rows"
            )
        flat = truth.double().flatten(0, -2) if truth.ndim > 1 else truth.double()[:, None]
        self._count += len(flat)
        self._sum = self._sum + flat.sum(dim=0)
        self._squares = self._squares + flat.square().sum(dim=0)
        self.add(tally, truth, truth, here)

    def damage(self, tally: Tally) -> float:
        """Mean KL in nats, or squared error over variance; infinite where it is not finite."""
        if self._output == "logits":
            found = tally.away / self._count
        else:
            spread = torch.as_tensor(self._squares - self._sum * self._sum / self._count).sum()
            found = tally.away / max(float(spread), 1e-300)
        return found if isfinite(found) else inf

    def drop(self, tally: Tally, original: Tally) -> float:
        """How much worse the metric is than the original's; infinite for answers not finite."""
        damage = self.damage(tally)
        if not isfinite(damage):
            return inf
        if self._metric is not None:
            best, now = (self._metric(torch.cat(one.answers)) for one in (original, tally))
            return float(best - now)
        if self._labels is not None:
            return tally.bad - original.bad
        return tally.bad / self._count if self._output == "logits" else damage

    def _prepare(self, labels: Tensor) -> None:
        if self._output == "logits":
            self._known = int((labels >= 0).sum())
            return
        table = labels.double().flatten(1) if labels.ndim > 1 else labels.double()[:, None]
        known = ~table.isnan()
        count = known.sum(dim=0).clamp(min=1)
        mean = torch.where(known, table, 0.0).sum(dim=0) / count
        spread = torch.where(known, (table - mean).square(), 0.0).sum(dim=0)
        if not bool((spread > 0).all()):
            raise DataError("every target must vary among the labelled rows: choose other rows")
        self._table, self._spread = table, spread

    def _wrong(self, answer: Tensor, truth: Tensor, here: slice) -> float:
        """The share of labelled places that are wrong; without labels, the number of other tops."""
        top = answer.argmax(dim=-1)
        if self._labels is None:
            return float((top != truth.argmax(dim=-1)).sum())
        labels = self._labels[here].to(top.device)
        if labels.shape != top.shape:
            raise DataError(
                f"class labels must be {list(top.shape)} for these answers, but are "
                f"{list(labels.shape)}"
            )
        return float(((top != labels) & (labels >= 0)).sum()) / self._known

    def _errors(self, answer: Tensor, here: slice) -> float:
        """Squared errors over the labels' squares, the mean over targets: 1 - R2 when summed."""
        labels = self._table[here]
        found = answer.double().reshape(len(answer), -1).cpu()
        if labels.shape != found.shape:
            raise DataError(
                f"labels of {labels.shape[1]} numbers do not fit answers of {found.shape[1]}"
            )
        errors = torch.where(labels.isnan(), 0.0, (found - labels).square()).sum(dim=0)
        return float((errors / self._spread).mean())


def _check(labels: Tensor, rows: int, output: Output) -> None:
    if output == "embedding":
        raise ModelError("labels say nothing of embeddings by themselves: give a `metric`")
    if len(labels) != rows:
        raise DataError(f"one label per row is needed, but got {len(labels)} for {rows} rows")
    known = labels >= 0 if output == "logits" else ~labels.isnan()
    if not bool(known.any()):
        raise DataError("no row has a label: pass None, or rows with labels")


def _divergence(answer: Tensor, truth: Tensor) -> float:
    """KL(truth || answer), the sum over rows and positions."""
    log_answer = log_softmax(answer.double(), dim=-1)
    log_truth = log_softmax(truth.double(), dim=-1)
    return float((log_truth.exp() * (log_truth - log_answer)).sum())


def _squared(answer: Tensor, truth: Tensor) -> float:
    return float((answer.double() - truth.double()).square().sum())
