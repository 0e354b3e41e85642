"""Layers cut to low rank: one large product becomes two small ones."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.evaluate.cost import parameters as count
from understudy.features.blocks import blocks
from understudy.students.low_rank.factors import (
    Layer,
    energies,
    factorised,
    numbers,
    rank_at,
    saving_rank,
    sides,
    spectrum,
)
from understudy.students.low_rank.watched import by_reason, called, looked
from understudy.students.wanted import check_number, check_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankPlan:
    """Which layers become two, and how narrow they are in between.

    Attributes:
        ranks: layer path to rank, in the order in which the layers run.
        energy: layer path to the share of its squared singular values that the rank keeps; of the
            layer's answers to the calibration rows where the plan is `aware`.
        aware: whether the factors are best for the calibration rows, or for the weights alone.
        parameters_before: of the whole network.
        parameters_after: of the network with the layers cut.
        left: layers that stay as they are, and why; the first and the last, and those that nobody
            asked for, are not listed.
    """

    ranks: Mapping[str, int]
    energy: Mapping[str, float]
    aware: bool
    parameters_before: int
    parameters_after: int
    left: Mapping[str, str] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """As plain JSON, with `kind: low_rank`."""
        return {
            "kind": "low_rank",
            "ranks": dict(self.ranks),
            "energy": dict(self.energy),
            "aware": self.aware,
            "parameters_before": self.parameters_before,
            "parameters_after": self.parameters_after,
            "left": dict(self.left),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "LowRankPlan":
        """The plan that `to_data` wrote; ModelError for anything else."""
        if data.get("kind") != "low_rank" or {*data} != {"kind", *cls.__dataclass_fields__}:
            raise ModelError("this is no plan of a low-rank cut: plan it again")
        return cls(**{name: value for name, value in data.items() if name != "kind"})

    def lines(self) -> list[str]:
        """What is cut and what is left, for people."""
        basis = "answers to the calibration rows" if self.aware else "weights"
        share = self.parameters_after / max(1, self.parameters_before)
        said = [
            f"{len(self.ranks)} layers become two of low rank: {self.parameters_before:,} "
            f"parameters to {self.parameters_after:,} ({share:.0%})"
        ]
        for path, rank in self.ranks.items():
            said.append(f"{path}: rank {rank} keeps {self.energy[path]:.1%} of its {basis}")
        return said + [f"{path}: left as it is, {why}" for path, why in self.left.items()]


def plan_low_rank(
    network: nn.Module,
    rows: Tensor,
    *,
    energy: float | None = None,
    parameters: int | float | None = None,
    aware: bool = True,
    layers: Sequence[str] = (),
    min_rank: int = 1,
    batch_size: int = 64,
) -> LowRankPlan:
    """Choose the rank of every layer.

    Taken are `nn.Linear`, the `Conv1D` of Hugging Face's GPT-2 and `nn.Conv2d` without groups. A
    layer is cut only where this saves parameters. With `parameters` one threshold of energy for
    all layers is found by bisection, so that a layer with a steep spectrum gives more.

    Layers that share weights, whose weights are read by the module around them (attention of
    PyTorch's own), that have hooks or do not run on the rows are left as they are.

    Args:
        network: any module; it is not changed.
        rows: calibration rows that it takes; also a plan without `aware` runs the first of them.
        energy: the share of squared singular values that every cut layer keeps at least.
        parameters: the whole network's target, as a share (float) or a number (int).
        aware: whether singular values are those of the layer's answers to the rows. A mean over a
            few thousand positions is enough.
        layers: patterns of layer paths, with `*`; by default all but the network's first and last.
        min_rank: no layer gets less.
        batch_size: rows per forward pass.

    Raises:
        ModelError: the target cannot be met, a pattern finds nothing, there is nothing to cut, or
            the rows do not fit.

    Paper:
        Wang et al. 2024, "SVD-LLM", section 3.1, for the optimum on given inputs; Zhang et al.
        2016, "Accelerating Very Deep Convolutional Networks", section 3.1, for convolutions;
        Denton et al. 2014, "Exploiting Linear Structure Within Convolutional Networks".

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 2))
        >>> plan = plan_low_rank(net, torch.randn(99, 8), parameters=0.6)
        >>> sorted(plan.ranks)
        ['1']
    """
    _check(energy, parameters, min_rank)
    rows, moments = (rows, layers or ("*",)) if aware else (rows[:2], ())
    seen = looked(network, rows, batch_size=batch_size, moments=moments)
    wanted = called(network, seen.order, layers)
    left = {path: seen.left[path] for path in wanted if path in seen.left}
    free = {path: seen.layers[path] for path in wanted if path not in left}
    if not free:
        raise ModelError(
            f"there is no layer to cut to low rank{''.join(by_reason(left))}: it takes nn.Linear, "
            "nn.Conv2d without groups and the Conv1D of Hugging Face's; choose others with "
            "`layers`, or another kind of cut"
        )
    shares = {path: energies(spectrum(free[path], seen.moments.get(path))) for path in free}
    before = count(network)
    if energy is None:
        assert parameters is not None
        goal = round(before * parameters) if isinstance(parameters, float) else parameters
        energy = _threshold(free, shares, before=before, goal=goal, min_rank=min_rank)
    ranks = {path: rank_at(shares[path], energy, min_rank) for path in free}
    for path in [path for path in ranks if ranks[path] > saving_rank(free[path])]:
        left[path] = f"as rank {ranks.pop(path)} would not save parameters"
    if not ranks:
        raise ModelError(_nothing(free, shares, energy, min_rank))
    return LowRankPlan(
        ranks=ranks,
        energy={path: float(shares[path][rank - 1]) for path, rank in ranks.items()},
        aware=aware,
        parameters_before=before,
        parameters_after=_total(free, ranks, before),
        left=left,
    )


def cut_low_rank(
    network: nn.Module, plan: LowRankPlan, rows: Tensor, *, batch_size: int = 64
) -> Student:
    """A copy of the network in which every planned layer is two: `PATH.0` and `PATH.1`.

    A linear layer becomes two linear ones, the first without bias. A convolution becomes one of
    the same kernel, stride and padding to `rank` channels, and a 1x1 convolution from these.
    With `aware` no layer of this rank answers the rows with a smaller squared error, given the
    layer's own inputs in the whole network.

    Args:
        network: what the plan was made for, or one of the same architecture; it is not changed.
        plan: of `plan_low_rank`.
        rows: calibration rows; read where the plan is `aware`.
        batch_size: rows per forward pass.

    Raises:
        ModelError: a layer of the plan is not in this network, or the rows do not fit.
    """
    frame = frame_low_rank(network, plan).module
    moments: Mapping[str, Tensor] = {}
    if plan.aware:
        moments = looked(network, rows, batch_size=batch_size, moments=tuple(plan.ranks)).moments
    for path, rank in plan.ranks.items():
        layer = network.get_submodule(path)
        factorised(layer, rank, moments.get(path), into=frame.get_submodule(path))
    return Student(module=frame, provenance=_provenance(network))


def frame_low_rank(network: nn.Module, plan: LowRankPlan) -> Student:
    """The structure that `cut_low_rank` gives, without the work: the new factors are zeros.

    For counting, and for loading trained weights into. Raises ModelError where the plan names a
    layer that this network does not have.
    """
    module = deepcopy(network)
    for path, rank in plan.ranks.items():
        layer = dict(network.named_modules()).get(path)
        most = min(sides(layer)) if path and layer is not None else 0
        if layer is None or not 1 <= rank <= most:
            raise ModelError(
                f"the plan cuts `{path}` to rank {rank}, but this network has no such layer of "
                f"that rank{f' (its rank is {most})' if most else ''}: make the plan from it"
            )
        module.set_submodule(path, factorised(layer, rank))
    return Student(module=module, provenance=_provenance(network))


def _check(energy: float | None, parameters: int | float | None, min_rank: int) -> None:
    if (energy is None) == (parameters is None):
        raise ModelError(
            "one of `energy` and `parameters` must be given, but got "
            f"{energy=}, {parameters=}: usual is energy=0.95"
        )
    for name, value, usual in (("energy", energy, 0.95), ("parameters", parameters, 0.5)):
        if value is not None:
            check_number(name, value, usual=usual)
    check_whole("min_rank", min_rank, usual=1)
    if energy is not None and not 0 < energy <= 1:
        raise ModelError(f"`0 < energy <= 1` must hold, but got {energy=}: usual is 0.9 to 0.99")
    share = isinstance(parameters, float)
    if parameters is not None and not (0 < parameters <= 1 if share else parameters >= 1):
        raise ModelError(
            "`parameters` must be a share above 0 and up to 1.0, or a whole number of parameters, "
            f"but got {parameters}"
        )
    if min_rank < 1:
        raise ModelError(f"`min_rank >= 1` must hold, but got {min_rank=}")


def _total(free: Mapping[str, Layer], ranks: Mapping[str, int], before: int) -> int:
    saved = 0
    for path, rank in ranks.items():
        wide, narrow = sides(free[path])
        saved += max(0, numbers(free[path]) - rank * (wide + narrow))
    return before - saved


def _threshold(
    free: Mapping[str, Layer],
    shares: Mapping[str, Tensor],
    *,
    before: int,
    goal: int,
    min_rank: int,
) -> float:
    """The largest energy at which the whole network is within the goal."""

    def total(energy: float) -> int:
        ranks = {path: rank_at(shares[path], energy, min_rank) for path in free}
        return _total(free, ranks, before)

    if total(0.0) > goal:
        raise ModelError(
            f"low rank can bring this network from {before:,} parameters down to "
            f"{total(0.0):,} (rank {min_rank} in {len(free)} layers), but the target is {goal:,}: "
            "raise the target, name more `layers`, or cut depth or width first"
        )
    low, high = 0.0, 1.0
    if total(high) <= goal:
        return high
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) <= goal else (low, middle)
    return low


def _nothing(
    free: Mapping[str, Layer], shares: Mapping[str, Tensor], energy: float, min_rank: int
) -> str:
    able = {path: saving_rank(free[path]) for path in free}
    best = {path: float(shares[path][rank - 1]) for path, rank in able.items() if rank >= min_rank}
    if not best:
        return f"no layer is large enough to save parameters at rank {min_rank}: name others"
    path = max(best, key=lambda name: best[name])
    return (
        f"no layer can be cut to low rank and keep {energy:.4g} of its energy with fewer "
        f"parameters; the best, `{path}`, keeps {best[path]:.4f} at rank {able[path]}: lower "
        "`energy`, or give a target of `parameters`"
    )


def _provenance(network: nn.Module) -> dict[str, str]:
    try:
        return {path: path for path in blocks(network)}
    except ModelError:  # a network without blocks to pair can be cut all the same
        return {}
