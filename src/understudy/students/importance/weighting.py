"""How strongly kept blocks must speak when others are gone: one number per residual branch."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.students.blocks.branches import answers, scaled
from understudy.students.blocks.chain import resting
from understudy.students.blocks.surgery import skipped, units

Output = Literal["logits", "values"]

_NUDGE = 0.05
# Further from 1 a branch would be cut rather than weighted, before training has had its say.
_LEAST, _MOST = 0.5, 2.0
_SHORTEST = 0.1


def scales(
    network: nn.Module,
    rows: Tensor,
    keep: Sequence[str],
    *,
    output: Output = "logits",
    goal: Tensor | None = None,
    steps: int = 3,
    ridge: float | int = 0.05,
    batch_size: int = 64,
) -> dict[str, float]:
    """What the residual branches of kept blocks are to be multiplied by.

    The network runs without the other blocks. The teacher's answer is regressed on what every kept
    branch does to the answer: each scale is nudged in turn, and a ridge regression towards 1 finds
    the scales that bring the answer closest to the teacher's. For logits, errors count as the
    Kullback-Leibler divergence counts them (a Gauss-Newton step with the Fisher matrix); for values
    they are squares. A step that does not help on these rows is halved, then left out, so the
    answer is never further from the teacher's than with all scales 1.

    Here a scale multiplies all that a block adds. Weights that are scaled instead multiply each of
    its branches, which is not the same where one branch reads what another gave, or a norm stands
    behind the sum: whoever does that has to look whether the answer is still nearer.

    It takes about one forward pass per kept block and step.

    Args:
        network: it is not changed.
        rows: that it takes; a few per kept block do.
        keep: paths of the blocks that stay, those that cannot go among them.
        output: what the answer is: `logits` of classes in its last axis, or `values`.
        goal: the answer to come close to; by default the whole network's own.
        steps: how often to regress.
        ridge: how hard scales are held at 1, as a share of the mean curvature, above 0.
        batch_size: rows per forward pass.

    Returns:
        A scale from 0.5 to 2 for each kept block that could go, in the order in which they run;
        nothing where nothing is dropped.

    Raises:
        ModelError: `keep` names what is no block, or leaves out one that must stay; the network
            does not take the rows.

    Paper:
        Hoerl and Kennard 1970, "Ridge Regression"; Schraudolph 2002, "Fast Curvature
        Matrix-Vector Products", section 2.3 (the matrix for logits).
    """
    chain = units(network, rows)
    paths = [unit.path for unit in chain]
    if unknown := [path for path in keep if path not in paths]:
        raise ModelError(
            f"`keep` must name blocks of the network, but {', '.join(unknown)} is none: there are "
            f"{', '.join(paths)}"
        )
    if needed := [u.path for u in chain if not u.removable and u.path not in keep]:
        raise ModelError(f"{', '.join(needed)} cannot be dropped: add them to `keep`")
    gone = [path for path in paths if path not in keep]
    kept = [unit.path for unit in chain if unit.removable and unit.path not in gone]
    if not gone or not kept:
        return {}
    with resting(network):
        aim = answers(network, rows, batch_size=batch_size) if goal is None else goal
        if len(aim) != len(rows):
            raise ModelError(
                f"there must be an answer per row, but got {len(aim)} for {len(rows)} rows"
            )
        outer = {unit.path for unit in chain if unit.outer}
        with without(network, gone, outer):
            fitted = _Fit(network, rows, kept, aim, output, batch_size, outer)
            found = fitted.run(steps, float(ridge))
    return dict(zip(kept, found.tolist(), strict=True))


@contextmanager
def without(network: nn.Module, gone: Sequence[str], outer: Collection[str] = ()) -> Iterator[None]:
    """Inside, several blocks give what they are given; those of `outer` zeros, see `skipped`."""
    with ExitStack() as stack:
        for path in gone:
            stack.enter_context(skipped(network, path, outer=path in outer))
        yield


def distances(found: Tensor, goal: Tensor, output: Output) -> Tensor:
    """How far answers are from others, one number per row, mean over positions.

    Logits: the divergence KL(goal || found) in nats. Values: the mean squared difference.
    """
    if found.shape != goal.shape:
        raise ModelError(
            f"the answers to come close to must be as the network's own, {list(found.shape)}, but "
            f"got {list(goal.shape)}: pass such, or measure what needs none"
        )
    if output == "values":
        return (found - goal).square().flatten(1).mean(dim=1)
    own, aim = found.log_softmax(dim=-1), goal.log_softmax(dim=-1)
    each = (aim.exp() * (aim - own)).sum(dim=-1)
    return each.flatten(1).mean(dim=1) if each.ndim > 1 else each


def distance(network: nn.Module, rows: Tensor, goal: Tensor, output: Output) -> float:
    """How far a network's answers at rest are from others, mean over rows; see `distances`."""
    with resting(network):
        return float(distances(answers(network, rows, batch_size=64), goal, output).double().mean())


class _Fit:
    """The regression, around a network without its dropped blocks."""

    def __init__(
        self,
        network: nn.Module,
        rows: Tensor,
        kept: Sequence[str],
        goal: Tensor,
        output: Output,
        batch_size: int,
        outer: Collection[str],
    ) -> None:
        self._outer = outer
        self._network, self._kept, self._output = network, kept, output
        self._parts = list(
            zip(torch.split(rows, batch_size), torch.split(goal, batch_size), strict=True)
        )
        self._rows = len(rows)

    def run(self, steps: int, ridge: float) -> Tensor:
        """The scales, float64 `[kept]`."""
        now = torch.ones(len(self._kept), dtype=torch.float64)
        best = self._loss(now)
        for _ in range(steps):
            slope, curve = self._derivatives(now)
            hold = ridge * curve.diagonal().mean() + 1e-12
            shifted = curve + hold * torch.eye(len(now), dtype=curve.dtype)
            way = -torch.linalg.solve(shifted, slope + hold * (now - 1))
            length = 1.0
            while length > _SHORTEST:
                there = (now + length * way).clamp(_LEAST, _MOST)
                loss = self._loss(there)
                if loss < best:
                    break
                length /= 2
            else:
                break
            best, now = loss, there
        return now

    def _answer(self, rows: Tensor, at: Tensor) -> Tensor:
        scales = dict(zip(self._kept, at.tolist(), strict=True))
        with scaled(self._network, scales, self._outer):
            return answers(self._network, rows, batch_size=len(rows))

    def _loss(self, at: Tensor) -> float:
        parts = (
            distances(self._answer(rows, at), goal, self._output) for rows, goal in self._parts
        )
        return sum(float(part.double().sum()) for part in parts) / self._rows

    def _derivatives(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and curvature of the loss in the scales, means over rows."""
        slope = torch.zeros(len(at), dtype=torch.float64)
        curve = torch.zeros(len(at), len(at), dtype=torch.float64)
        for rows, goal in self._parts:
            here = self._answer(rows, at)
            moved = torch.stack([self._answer(rows, p) for p in at + _NUDGE * torch.eye(len(at))])
            change = ((moved - here) / _NUDGE).flatten(1, -2)
            flat, aim = here.flatten(0, -2), goal.flatten(0, -2)
            if self._output == "logits":
                share = flat.softmax(dim=-1)
                error = share - aim.softmax(dim=-1)
                change = change - (share * change).sum(dim=-1, keepdim=True)
                weighted = change * share
            else:
                error, weighted = (flat - aim) / flat.shape[-1], change / flat.shape[-1]
            # Positions of one row share its weight.
            per_row = len(rows) / len(flat) / self._rows
            slope += per_row * torch.einsum("pc,kpc->k", error, change).double().cpu()
            curve += per_row * torch.einsum("kpc,jpc->kj", weighted, change).double().cpu()
        return slope, curve
