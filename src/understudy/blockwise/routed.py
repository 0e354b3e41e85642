"""A router and specialists as one model over all classes, and what it costs to run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum, isclose
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from understudy.blockwise.groups import divided
from understudy.blockwise.program import Number
from understudy.errors import DataError, ModelError
from understudy.models.deployable import read_answer
from understudy.students.blocks.chain import resting

# Costs of what lies in a file, and of what runs.
_HELD, _SPENT = ("parameters", "bytes"), ("ms", "flops")


class Routed(nn.Module):
    """`p(class) = p(group) * p(class | group)`: a router for the first, specialists for the second.

    The router is any network that answers for all classes; a group has the sum of its classes'
    probabilities. Called as a module it is soft: all specialists run and are mixed, which is also
    what is exported. `hard` runs one specialist per row.

    Args:
        router: rows to logits `[batch, classes]`, such as a family's smallest member.
        specialists: one for each group, rows to logits `[batch, classes of the group]`.
        groups: of classes, each class in one.

    Raises:
        ModelError: the groups do not divide the classes, or there are not as many specialists.

    Paper:
        Jacobs, Jordan, Nowlan and Hinton 1991, "Adaptive Mixtures of Local Experts", section 1,
        for experts and a gate; here the gate is a classifier, and the experts share no class.
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 5,
        for specialists of classes that a large model confuses.
    """

    order: Tensor
    places: Tensor

    def __init__(
        self, router: nn.Module, specialists: Sequence[nn.Module], groups: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        every = [one for group in groups for one in group]
        self.groups = divided(groups, len(every))
        if len(specialists) != len(self.groups):
            raise ModelError(
                f"one specialist per group is needed, but got {len(specialists)} for "
                f"{len(self.groups)} groups"
            )
        self.router = router
        self.specialists = nn.ModuleList(specialists)
        self.classes = len(every)
        order = torch.tensor(every)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("places", order.argsort(), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows to the logarithm of the mixture, `[batch, classes]`: the powers of e sum to 1."""
        parts = self._routed(rows)
        answers = [
            torch.logsumexp(part, dim=1, keepdim=True) + self._told(number, rows)
            for number, part in enumerate(parts)
        ]
        return torch.cat(answers, dim=1).index_select(1, self.places)

    def hard(self, rows: Tensor) -> Tensor:
        """As `forward`, with only the specialist of each row's most probable group.

        It divides the mass that the router gives to its group; the classes of other groups keep
        what the router says of them, so that the powers of e sum to 1 here too.
        """
        parts = self._routed(rows)
        masses = torch.stack([torch.logsumexp(part, dim=1) for part in parts], dim=1)
        best = masses.argmax(dim=1)
        made = [part.clone() for part in parts]
        for number in range(len(parts)):
            own = (best == number).nonzero()[:, 0]
            if len(own):
                told = self._told(number, rows[own])
                made[number][own] = masses[own, number, None] + told
        return torch.cat(made, dim=1).index_select(1, self.places)

    def chosen(self, rows: Tensor) -> Tensor:
        """The number of each row's most probable group, int64 `[batch]`."""
        parts = self._routed(rows)
        return torch.stack([torch.logsumexp(p, dim=1) for p in parts], dim=1).argmax(dim=1)

    def _routed(self, rows: Tensor) -> list[Tensor]:
        """The logarithms of the router's probabilities, group by group."""
        told = log_softmax(read_answer(self.router(rows), self.classes), dim=1)
        sizes = [len(group) for group in self.groups]
        return list(torch.split(told.index_select(1, self.order), sizes, dim=1))

    def _told(self, number: int, rows: Tensor) -> Tensor:
        width = len(self.groups[number])
        return log_softmax(read_answer(self.specialists[number](rows), width), dim=1)


def shares_of(routed: Routed, rows: Tensor, *, batch_size: int = 256) -> list[float]:
    """How large a share of the rows goes to each specialist, at rest.

    Raises:
        DataError: there are no rows.
    """
    if not len(rows):
        raise DataError("shares of the groups need rows, but got none")
    with resting(routed):
        chosen = torch.cat([routed.chosen(part) for part in torch.split(rows, batch_size)])
    counts = torch.bincount(chosen, minlength=len(routed.groups))
    return [float(one) / len(rows) for one in counts.tolist()]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutedCosts:
    """What a router and its specialists cost.

    Attributes:
        total: `parameters` and `bytes` of all of them together: all must be at hand.
        expected: `ms` and `flops` of a row: the router's and the mean specialist's.
        worst: the router's and the dearest specialist's.
        soft: the router's and all specialists', where the mixture is asked for.
    """

    total: Mapping[str, float]
    expected: Mapping[str, float]
    worst: Mapping[str, float]
    soft: Mapping[str, float]

    def to_data(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def routed_costs(
    router: Mapping[str, Number],
    specialists: Sequence[Mapping[str, Number]],
    shares: Sequence[Number] | None = None,
) -> RoutedCosts:
    """The arithmetic of routing, from the costs of the parts; a cost that one lacks is left out.

    Args:
        router: such as the `costs` of its choice.
        specialists: likewise, one or more.
        shares: of the rows that each gets (`shares_of`); None: equal ones.

    Raises:
        ModelError: not one share per specialist, or their sum is not 1.

    Example:
        >>> costs = routed_costs({"ms": 1.0}, [{"ms": 2.0}, {"ms": 4.0}], [0.75, 0.25])
        >>> costs.expected["ms"], costs.worst["ms"], costs.soft["ms"]
        (3.5, 5.0, 7.0)
    """
    count = len(specialists)
    parts = [1 / max(count, 1)] * count if shares is None else [float(one) for one in shares]
    if not count or len(parts) != count or not isclose(fsum(parts), 1, abs_tol=1e-6):
        raise ModelError(
            f"shares must be one per specialist and sum to 1, but got {parts} for {count}"
        )
    known = set(router).intersection(*specialists)
    spent = [name for name in _SPENT if name in known]
    own = {name: float(router[name]) for name in known}

    def each(name: str) -> list[float]:
        return [float(one[name]) for one in specialists]

    return RoutedCosts(
        total={name: own[name] + fsum(each(name)) for name in _HELD if name in known},
        expected={
            name: own[name] + fsum(s * c for s, c in zip(parts, each(name), strict=True))
            for name in spent
        },
        worst={name: own[name] + max(each(name)) for name in spent},
        soft={name: own[name] + fsum(each(name)) for name in spent},
    )
