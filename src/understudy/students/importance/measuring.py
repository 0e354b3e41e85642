"""How much each block of a network matters for its answer, measured on calibration rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.blocks.branches import answers as ask
from understudy.students.blocks.chain import resting
from understudy.students.blocks.surgery import units
from understudy.students.importance.elimination import Elimination, contributions, eliminate
from understudy.students.importance.measures import check_known, cosine, rise, taylor
from understudy.students.importance.reduction import Reduce, reduction
from understudy.students.importance.regression import bootstrap, check_ridge, gram
from understudy.students.importance.weighting import Output, scales

Measure = Literal["importance", "cosine", "skip", "taylor"]

# A regression's cost grows with the cube of its rows, and its answer settles long before.
MOST_ROWS: Final = 500

_TOLD: Final = {
    "importance": "explained variance lost without the block",
    "cosine": "1 - cosine of input and output",
    "skip": "rise of the loss without the block",
    "taylor": "first-order change of the loss without the block",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much each block matters.

    Attributes:
        by: how it was measured.
        order: paths of the blocks that can go, the least important first.
        scores: by path, in the order in which they run; higher matters more. Blocks that cannot go
            have none.
        low: lower ends of bootstrap intervals of 95 % over rows, by path.
        high: upper ends.
        coefficients: by path, what the branches of the more important half are to be multiplied by
            once the others are gone; only `importance` finds them. For another choice of blocks
            ask `scales`.
        explained: by `importance`: share of the answer's variance that all blocks explain jointly.
        alone: likewise: what each block's features explain by themselves, by path, of all blocks.
    """

    by: str
    order: tuple[str, ...]
    scores: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    coefficients: Mapping[str, float] = field(default_factory=dict)
    explained: float | None = None
    alone: Mapping[str, float] = field(default_factory=dict)

    def ranking(self) -> dict[str, float]:
        """A block's place, 1 for the least important: scores without ties, for `plan_depth`."""
        return {path: float(place) for place, path in enumerate(self.order, start=1)}

    def to_data(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {
            "by": self.by,
            "order": list(self.order),
            "explained": self.explained,
            "scores": dict(self.scores),
            "low": dict(self.low),
            "high": dict(self.high),
            "coefficients": dict(self.coefficients),
            "alone": dict(self.alone),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Importance":
        """What `to_data` wrote.

        Raises:
            ModelError: it is none.
        """
        names = ("scores", "low", "high", "coefficients", "alone")
        try:
            tables = {
                name: {str(path): float(value) for path, value in data[name].items()}
                for name in names
            }
            explained = None if data["explained"] is None else float(data["explained"])
            by, order = str(data["by"]), tuple(map(str, data["order"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"this is no importance of blocks ({error!r} is missing or wrong): measure it again"
            ) from error
        return cls(by=by, order=order, explained=explained, **tables)

    def lines(self) -> list[str]:
        """What was measured, for people, the most important first."""
        told = [f"importance of blocks: {_TOLD.get(self.by, self.by)}"]
        if self.explained is not None:
            told.append(
                f"all blocks together explain {self.explained:.1%} of the answer's variance"
            )
        for path in reversed(self.order):
            line = f"{path}: {self.scores[path]:.4g}"
            line += f" [{self.low[path]:.4g}, {self.high[path]:.4g}]"
            if path in self.coefficients:
                line += f", times {self.coefficients[path]:.3g}"
            told.append(line)
        return told


def importance(
    network: nn.Module,
    rows: Tensor,
    *,
    by: Measure = "importance",
    answers: Tensor | None = None,
    labels: Tensor | None = None,
    output: Output = "logits",
    reduce: Reduce = "none",
    components: int = 16,
    ridge: float | int | Literal["auto"] = "auto",
    coefficients: bool = True,
    draws: int = 200,
    seed: int = 0,
    batch_size: int = 64,
) -> Importance:
    """How much each repeated block of a network matters for its answer.

    `importance` regresses the teacher's answer on what its blocks add. The features of a block are
    what it adds to what goes through it, averaged over space or tokens and standardised; what the
    first block is given is there too. A ridge regression tells the answer from all of them
    jointly, every row by the others. Then the block without which the least variance is left
    unexplained goes, the regression is fitted again, and so on: of two blocks that say the same,
    one may go, not both. A block's score is the explained variance that is lost by the time it is
    gone. Blocks that cannot go stay in the regression, as in a cut network. All of it takes one
    forward pass per row. The coefficients take more: see `scales`.

    It asks what is there to be learned from: it keeps the blocks that the answer is made of, and
    gives up those whose part others can take over in training. It does not ask what the cut does
    before any training; `skip` does.

    The others look at one block at a time. `cosine`: 1 minus the cosine of a block's input and
    output, mean over places; a block that changes the shape of what goes through cannot go anyway.
    `skip`: how much the loss rises when the block passes its input on. `taylor`: |gradient of the
    loss times what the block adds|, summed over features. The loss is cross-entropy where there
    are labels; else that of the teacher's answer: the divergence from it for `skip` (squared
    difference for values), and for `taylor`, where that has no slope, cross-entropy with its first
    choice (half the squared length of centred values).

    Args:
        network: it is not changed.
        rows: calibration rows that it takes. `importance` reads the first 500 at most; with
            fewer rows than a hundred its regression tells little.
        by: see above.
        answers: the teacher's answers to the rows, by default the network's own; averaged over
            positions for the regression where it has some.
        labels: int64 `[rows]`, classes; or values in the form of the answer.
        output: whether the answer is `logits` or `values`.
        reduce: what is done to a block's features first: `pca`, `lda` (classes are `labels`, or the
            teacher's first choices), `attention` (places weighted by the length of their vectors
            instead of averaged), or nothing.
        components: how many features of a block `pca` and `lda` leave.
        ridge: share of the mean eigenvalue of the features' Gram matrix; `auto`: what tells rows
            best that were left out.
        coefficients: whether to find them.
        draws: of the bootstrap.
        seed: of the bootstrap.
        batch_size: rows per forward pass.

    Raises:
        ModelError: the network does not take the rows, has no block that can go, or the answers or
            labels are not one per row; `lda` lacks classes.

    Paper:
        Alain and Bengio 2017, "Understanding Intermediate Layers Using Linear Classifier Probes"
        (what features tell, by a linear map); Men et al. 2024, "ShortGPT", section 3 (cosine);
        Muralidharan et al. 2024, "Minitron", section 2.2 (loss without a layer); Molchanov et al.
        2019, "Importance Estimation for Neural Network Pruning", section 3 (Taylor).

    Example:
        >>> from understudy.models import CifarResNet
        >>> network = CifarResNet(channels=1, width=2, depth=14, base=2)
        >>> found = importance(network, torch.rand(8, 1, 8, 8), by="cosine")
        >>> list(found.scores)
        ['stages.0.0', 'stages.0.1', 'stages.1.1', 'stages.2.1']
    """
    _check(rows, by=by, answers=answers, labels=labels, draws=draws, batch_size=batch_size)
    check_ridge(ridge)
    chain = units(network, rows)
    paths = [unit.path for unit in chain]
    free = [unit.path for unit in chain if unit.removable]
    outer = {unit.path for unit in chain if unit.outer}
    if not free:
        raise ModelError(
            f"no block of {type(network).__name__} can be left out: each of {', '.join(paths)} "
            "changes the shape of what it is given, or the network does not run without it"
        )
    if by == "importance":
        rows = rows[:MOST_ROWS]
        answers = None if answers is None else answers[:MOST_ROWS]
        labels = None if labels is None else labels[:MOST_ROWS]
    with resting(network):
        if by != "importance":
            goal = ask(network, rows, batch_size=batch_size) if answers is None else answers
            check_known(goal, labels, output)
            if by == "cosine":
                table = cosine(network, rows, free, batch_size=batch_size, outer=outer)
            elif by == "skip":
                table = rise(
                    network, rows, free, goal, labels, output, batch_size=batch_size, outer=outer
                )
            else:
                table = taylor(
                    network, rows, free, goal, labels, output, batch_size=batch_size, outer=outer
                )
            return _one_by_one(by, free, table, draws=draws, seed=seed)
        parts, made = contributions(
            network,
            rows,
            paths,
            attention=reduce == "attention",
            batch_size=batch_size,
            outer=outer,
        )
    goal = made if answers is None else answers
    check_known(goal, None, output)
    flat = goal.flatten(1, -2).mean(dim=1) if goal.ndim > 2 else goal
    classes = flat.argmax(dim=1) if labels is None or labels.is_floating_point() else labels
    kernels = {
        path: gram(reduction(part, reduce, components=components, classes=classes)(part))
        for path, part in parts.items()
    }
    found = _jointly(eliminate(kernels, free, flat, ridge=ridge), free, draws=draws, seed=seed)
    if not coefficients:
        return found
    gone = found.order[: len(found.order) // 2]
    kept = [path for path in paths if path not in gone]
    weights = scales(network, rows, kept, output=output, goal=answers, batch_size=batch_size)
    return _with(found, weights)


def _with(found: Importance, coefficients: Mapping[str, float]) -> Importance:
    return Importance.from_data({**found.to_data(), "coefficients": coefficients})


def _one_by_one(
    by: str, free: Sequence[str], table: Tensor, *, draws: int, seed: int
) -> Importance:
    """Means over rows of a table `[rows, blocks]`."""
    means = table.double().mean(dim=0).tolist()
    low, high = bootstrap(table, torch.ones(len(table)), draws=draws, seed=seed)
    # Of equal blocks the first in the chain counts as the least important.
    order = sorted(range(len(free)), key=lambda place: (means[place], place))
    return Importance(
        by=by,
        order=tuple(free[place] for place in order),
        scores=dict(zip(free, means, strict=True)),
        low=dict(zip(free, low.tolist(), strict=True)),
        high=dict(zip(free, high.tolist(), strict=True)),
    )


def _jointly(found: Elimination, free: Sequence[str], *, draws: int, seed: int) -> Importance:
    whole = found.whole.totals
    low, high = bootstrap(found.lost, whole, draws=draws, seed=seed)
    share = found.lost.sum(dim=0) / whole.sum()
    columns = {
        name: {path: float(values[found.order.index(path)]) for path in free}
        for name, values in (("scores", share), ("low", low), ("high", high))
    }
    return Importance(
        by="importance",
        order=found.order,
        explained=found.whole.explained,
        alone=found.alone,
        scores=columns["scores"],
        low=columns["low"],
        high=columns["high"],
    )


def _check(
    rows: Tensor,
    *,
    by: str,
    answers: Tensor | None,
    labels: Tensor | None,
    draws: int,
    batch_size: int,
) -> None:
    if by not in get_args(Measure):
        raise ModelError(f"`by` must be one of {', '.join(get_args(Measure))}, but got {by}")
    if draws < 1 or batch_size < 1:
        raise ModelError(
            f"`draws >= 1` and `batch_size >= 1` must hold, but got {draws=} and {batch_size=}"
        )
    for name, values in (("answers", answers), ("labels", labels)):
        if values is not None and len(values) != len(rows):
            raise ModelError(
                f"`{name}` must have one entry per row, but has {len(values)} for {len(rows)} rows"
            )
