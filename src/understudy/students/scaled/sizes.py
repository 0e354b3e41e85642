"""Searching the sizes of a family for the largest that is within a target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.evaluate.cost import flops
from understudy.evaluate.cost import parameters as count
from understudy.students.scaled.knobs import Knobs

_REFUSED_IN_A_ROW = 64
_LARGEST = 64
UNCOUNTED = (
    "the operations of {name} cannot be counted (it is recurrent, or does not take these rows), so "
    "that its latency cannot be predicted: give a target of `parameters` or `bytes`"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One size of a family.

    Attributes:
        arguments: for the factory.
        reached: what it has of each target.
        parameters: counted.
    """

    arguments: dict[str, Any]
    reached: dict[str, float | int]
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """One search: sizes are whole steps, and each is counted.

    Attributes:
        factory: makes a network from arguments.
        knobs: what of them changes.
        rows: what the network takes.
        target: what must not be passed, by name.
        ms_per_flop: of the teacher.
        bytes_per_weight: in the exported file.
        graph: bytes of the file per innermost module.
    """

    factory: Callable[..., nn.Module]
    knobs: Knobs
    rows: Tensor
    target: Mapping[str, float | int]
    ms_per_flop: float
    bytes_per_weight: float | int
    graph: float

    def largest(self) -> Candidate:
        """The largest that is within the target.

        Raises:
            ModelError: not even the smallest is, or nothing can be built or counted.
        """
        full, steps = max(self.knobs.depths.values(), default=1), self.knobs.steps
        if not self.knobs.depths:
            return self._widest(full, steps)
        # Up while it fits, where depth is all there is to grow; then down until it does.
        if not steps and (found := self._deeper(full)) is not None:
            return found
        depth, smallest = full, None
        for tried in range(full, max(1, full // 2 if steps else 1) - 1, -1):
            made = self._candidate(tried, steps)
            if made is not None:
                depth, smallest = tried, made
                if self._fits(made):
                    break
        if not steps and (smallest is None or not self._fits(smallest)):
            raise ModelError(self._too_large(smallest))
        if smallest is not None and self._fits(smallest) and depth < full:
            return smallest
        return self._widest(depth, steps)

    def _deeper(self, full: int) -> Candidate | None:
        best, refused = None, 0
        for depth in range(full, _LARGEST * full + 1):
            made = self._candidate(depth, 0)
            refused = refused + 1 if made is None else 0
            if refused > _REFUSED_IN_A_ROW or (made is not None and not self._fits(made)):
                break
            best = made or best
        return best

    def _widest(self, depth: int, steps: int) -> Candidate:
        """Bisection on the common factor."""
        smallest = next(
            (c for c in (self._candidate(depth, n) for n in range(1, steps + 1)) if c), None
        )
        if smallest is None or not self._fits(smallest):
            raise ModelError(self._too_large(smallest))
        best, low, high = smallest, 1, steps
        while (upper := self._near(depth, high, low)) is not None and self._fits(upper):
            best, low, high = upper, high, 2 * high
            if high > _LARGEST * steps:
                return best
        while high - low > 1:
            middle = (low + high) // 2
            made = self._near(depth, middle, low)
            if made is None or self._fits(made):
                best, low = made or best, middle
            else:
                high = middle
        return best

    def _near(self, depth: int, step: int, low: int) -> Candidate | None:
        """The candidate of this step, or of the next smaller one that can be built."""
        for tried in range(step, max(low, step - _REFUSED_IN_A_ROW), -1):
            made = self._candidate(depth, tried)
            if made is not None:
                return made
        return None

    def _candidate(self, depth: int, step: int) -> Candidate | None:
        arguments = self.knobs.at(depth, step)
        module = built(self.factory, arguments, device="meta")
        module = module if module is not None else built(self.factory, arguments, device="cpu")
        if module is None:
            return None
        weights = count(module)
        reached: dict[str, float | int] = {"parameters": weights}
        if "bytes" in self.target:
            size = weights * self.bytes_per_weight + self.graph * parts(module)
            reached["bytes"] = round(size)
        if "latency_ms" in self.target:
            reached["latency_ms"] = self.ms_per_flop * self._flops(module, arguments)
        return Candidate(
            arguments=arguments,
            reached={name: reached[name] for name in self.target},
            parameters=weights,
        )

    def _flops(self, module: nn.Module, arguments: Mapping[str, Any]) -> int:
        found = counted(module, self.rows)
        if found is None:
            # What looks at values has none on the meta device.
            real = built(self.factory, arguments, device="cpu")
            found = None if real is None else counted(real, self.rows)
        if found is None:
            raise ModelError(UNCOUNTED.format(name=type(module).__name__))
        return found

    def _fits(self, made: Candidate) -> bool:
        return all(made.reached[name] <= goal for name, goal in self.target.items())

    def _too_large(self, smallest: Candidate | None) -> str:
        if smallest is None:
            return (
                "no size of this family can be built: its constructor refuses all of "
                f"{', '.join(self.knobs.names)}; name what may be scaled with `vary`"
            )
        goals = " and ".join(f"{told(goal)} {name}" for name, goal in self.target.items())
        least = " and ".join(f"{told(own)} {name}" for name, own in smallest.reached.items())
        sizes = ", ".join(f"{name}={smallest.arguments[name]}" for name in self.knobs.names)
        return (
            f"a student of at most {goals} is asked for, but the smallest of this family has "
            f"{least} ({sizes}): raise the target, or let more vary with `vary`"
        )


def parts(module: nn.Module) -> int:
    """How many innermost modules there are."""
    return sum(not any(True for _ in part.children()) for part in module.modules())


def counted(module: nn.Module, rows: Tensor) -> int | None:
    """Operations for the first row, wherever the module is; None where they cannot be told."""
    device = next((p.device for p in module.parameters()), rows.device)
    try:
        return flops(module, rows[:1].to(device))
    except Exception:  # whatever the network's own forward raises
        return None


def built(
    factory: Callable[..., nn.Module], arguments: Mapping[str, Any], *, device: str
) -> nn.Module | None:
    """What a factory makes on a device; None where it refuses."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return factory(**arguments)
    except Exception:  # a refusal in whatever words the constructor has
        return None


def told(value: float | int) -> str:
    """A number for people."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
