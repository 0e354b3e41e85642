"""A fresh student of a family, scaled to a target by arithmetic: nothing is made or trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.evaluate.cost import parameters as count
from understudy.students.blocks.chain import answer_of
from understudy.students.scaled.knobs import knobs
from understudy.students.scaled.sizes import UNCOUNTED, Scale, built, counted, parts, told

# What an exported graph adds to its weights, per innermost module: names, shapes and operators.
# Our exporter's files have 20 (folded batch normalisation) to 180 (attention).
GRAPH_BYTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledPlan:
    """The arguments of the largest network of a family that is within a target.

    Attributes:
        arguments: for the factory, complete.
        parameters: of that network, counted exactly.
        target: what was asked for, in numbers: `parameters`, `bytes`, `latency_ms`.
        reached: what this network has of each; bytes and latency are predictions.
        varied: the arguments that were scaled.
    """

    arguments: Mapping[str, Any]
    parameters: int
    target: Mapping[str, float | int]
    reached: Mapping[str, float | int]
    varied: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        """As plain JSON, with `kind: scaled`."""
        return {"kind": "scaled", **{k: _plain(v) for k, v in asdict(self).items()}}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "ScaledPlan":
        """The plan that `to_data` wrote."""
        fields = {name: value for name, value in data.items() if name != "kind"}
        return cls(**fields | {"varied": tuple(data["varied"])})

    def lines(self) -> list[str]:
        """What was chosen, and how close to the target it is, for people."""
        said = [f"{self.parameters:,} parameters"]
        for name, goal in self.target.items():
            word = name if name == "parameters" else f"predicted {name}"
            own = self.reached[name]
            said.append(f"{word}: {told(own)} of at most {told(goal)} ({own / goal:.1%})")
        return [*said, ", ".join(f"{name}={self.arguments[name]}" for name in self.varied)]


def plan_scaled(
    factory: Callable[..., nn.Module],
    arguments: Mapping[str, Any],
    *,
    teacher: nn.Module,
    rows: Tensor,
    parameters: int | float | None = None,
    bytes: int | None = None,  # the recipe's own word
    latency_ms: float | None = None,
    teacher_latency_ms: float | None = None,
    teacher_bytes: int | None = None,
    bytes_per_weight: float | int = 4,
    vary: Sequence[str] = (),
) -> ScaledPlan:
    """Scale a family's width, and its depth where asked, to the largest that fits.

    Widths go by one common factor, above 1 too where the target is larger than what `arguments`
    give. Heads keep their size, so that their number changes with the width they divide; groups
    of queries that share a key stay as large. Widths from 256 on that are multiples of 8 stay so.
    A depth changes only where `vary` names it, and goes first: down to half, at full width, then
    the widths take the rest. Named alone, it goes down to one, or up.

    Every candidate is built on PyTorch's meta device, where weights have a shape and no memory.
    Sizes that the network's constructor refuses are stepped over.

    The latency is the teacher's times the ratio of both networks' operations: a prediction that
    is too low for a narrow network, whose small products use the processor less well. The bytes
    are those of the weights and of an estimated graph: the teacher's own, where `teacher_bytes`
    is known, by the number of modules.

    Args:
        factory: called as `factory(**arguments)`; for a Hugging Face network see `of_config`.
        arguments: of the network to be scaled, with all that the data says.
        teacher: what shares and the latency are relative to.
        rows: what both take; its first row is counted.
        parameters: at most so many, as a number (int) or a share of the teacher's (float).
        bytes: at most so many in the exported file.
        latency_ms: at most so long for one row.
        teacher_latency_ms: how long the teacher takes for one row, as it was measured.
        teacher_bytes: the size of the teacher's exported file with 4 bytes per weight.
        bytes_per_weight: 4 for float32, 2 for half precision, 1 for int8.
        vary: the arguments to scale; by default all widths that are known by their names.

    Raises:
        ModelError: there is no target or nothing to scale; the smallest of the family is too
            large; operations cannot be counted; the network of that size does not run.

    Example:
        >>> import torch
        >>> from understudy.models import MLP
        >>> arguments = {"inputs": 8, "width": 2, "hidden": [64, 64]}
        >>> net = MLP(**arguments)
        >>> plan = plan_scaled(MLP, arguments, teacher=net, rows=torch.zeros(1, 8), parameters=0.25)
        >>> plan.arguments["hidden"]
        [29, 29]
    """
    target = _targets(teacher, parameters, bytes, latency_ms, teacher_latency_ms)
    scale = Scale(
        factory=factory,
        knobs=knobs(factory, arguments, vary=vary),
        rows=rows,
        target=target,
        ms_per_flop=_rate(teacher, rows, teacher_latency_ms) if latency_ms else 0.0,
        bytes_per_weight=bytes_per_weight,
        graph=_graph(teacher, teacher_bytes),
    )
    found = scale.largest()
    _check_runs(scale, arguments, found.arguments)
    return ScaledPlan(
        arguments=_plain(found.arguments),
        parameters=found.parameters,
        target=target,
        reached=found.reached,
        varied=scale.knobs.names,
    )


def of_config(network: nn.Module) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """Factory and arguments of a network that is built from a config, as Hugging Face's are.

    Raises:
        ModelError: it has no such config.
    """
    config = getattr(network, "config", None)
    if config is None or not hasattr(config, "to_dict") or not hasattr(config, "from_dict"):
        raise ModelError(
            f"{type(network).__name__} has no `config` to scale: give a factory and its arguments"
        )

    def make(**arguments: Any) -> nn.Module:
        made: nn.Module = type(network)(type(config).from_dict(arguments))
        return made

    return make, dict(config.to_dict())


def _check_runs(scale: Scale, given: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse sizes that fit together for the constructor, and not for a forward pass.

    On the meta device, so a network that looks at values is not known to run there, nor refused.
    """
    row = scale.rows[:1].to("meta")

    def trouble(arguments: Mapping[str, Any]) -> ModelError | None:
        made = built(scale.factory, arguments, device="meta")
        try:
            _ = None if made is None else answer_of(made, row)
        except ModelError as error:
            return error
        return None

    if (error := trouble(found)) is not None and trouble(given) is None:
        sizes = ", ".join(f"{name}={found[name]}" for name in scale.knobs.names)
        raise ModelError(
            f"a network of {sizes} does not run, {error}: name all that must change together with "
            "`vary`"
        )


def _targets(
    teacher: nn.Module,
    parameters: int | float | None,
    size: int | None,
    latency_ms: float | None,
    teacher_latency_ms: float | None,
) -> dict[str, float | int]:
    if isinstance(parameters, float):
        parameters = round(parameters * count(teacher))
    given = {"parameters": parameters, "bytes": size, "latency_ms": latency_ms}
    target = {name: goal for name, goal in given.items() if goal is not None}
    if not target:
        raise ModelError(
            "a target must be given, `parameters`, `bytes` or `latency_ms`: usual is "
            "parameters=0.25"
        )
    for name, goal in target.items():
        if goal <= 0:
            raise ModelError(f"a target must be above 0, but got {name}={goal}")
    if latency_ms is not None and not (teacher_latency_ms or 0) > 0:
        raise ModelError(
            "a target of `latency_ms` needs the teacher's own, which the prediction starts from: "
            "give `teacher_latency_ms`, measured for one row"
        )
    return target


def _rate(teacher: nn.Module, rows: Tensor, teacher_latency_ms: float | None) -> float:
    found = counted(teacher, rows)
    if not found:
        raise ModelError(UNCOUNTED.format(name=type(teacher).__name__))
    return (teacher_latency_ms or 0.0) / found


def _graph(teacher: nn.Module, teacher_bytes: int | None) -> float:
    """Bytes per innermost module that are not weights."""
    if teacher_bytes is None:
        return float(GRAPH_BYTES)
    return max(0.0, (teacher_bytes - 4 * count(teacher)) / parts(teacher))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
