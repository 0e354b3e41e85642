"""How a loss is called: with one pair or all of them, its adapter's values, and what comes back."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from understudy.contracts import Outcomes
from understudy.errors import ModelError
from understudy.objective.terms import Term


def compare(
    term: Term,
    ours: Sequence[Tensor],
    goals: Sequence[Tensor],
    values: Mapping[str, Sequence[Tensor]],
    constants: Mapping[str, float],
    extra: Mapping[str, Tensor],
) -> Tensor:
    """One value per row: of all pairs at once, or of each pair and then added up.

    Args:
        term: whose loss is called.
        ours: the student's side, one tensor per pair.
        goals: the teacher's side.
        values: of the term's adapter, by the name of the loss's argument: one per pair.
        constants: what a schedule has changed.
        extra: one entry per row, such as labels.
    """
    if term.together:
        whole: Tensor = term.loss(
            list(ours), list(goals), **{n: list(v) for n, v in values.items()}, **constants, **extra
        )
        return whole
    found = [
        term.loss(own, goal, **{n: v[i] for n, v in values.items()}, **constants, **extra)
        for i, (own, goal) in enumerate(zip(ours, goals, strict=True))
    ]
    total: Tensor = torch.stack(found).sum(dim=0) if len(found) > 1 else found[0]
    return total


def on_outcomes(term: Term, own: Tensor, told: Outcomes, constants: Mapping[str, float]) -> Tensor:
    """One value per row from a teacher that tells some of its outcomes.

    Raises:
        ModelError: it knows another number of classes.
    """
    if told.classes != own.shape[1]:
        raise ModelError(
            f"the stored labels know {told.classes} classes, but the student answers "
            f"{own.shape[1]}: they must know the same classes in the same order"
        )
    values: Tensor = term.loss.outcomes(  # type: ignore[operator]
        own,
        ids=told.ids,
        log_mass=told.log_mass,
        rest=told.rest,
        sampled=told.sampled,
        entropy=told.entropy,
        **constants,
    )
    return values


def per_row(term: Term, values: Tensor, own: Tensor) -> Tensor:
    """One value per row: a loss that has taken its own mean would change what a weight means.

    Raises:
        ModelError: it has.
    """
    if values.shape != own.shape[:1]:
        raise ModelError(
            f"a loss gives one value per row, [{len(own)}], but `{term.name}` gave "
            f"{list(values.shape)}: return each row's value, the objective takes the mean"
        )
    return values


def kept(side: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """The chosen rows of every tensor."""
    return list(side) if bool(rows.all()) else [value[rows] for value in side]


def nothing(own: Tensor) -> Tensor:
    """0 with a graph to go back through, and without the NaN of rows that nothing reads."""
    return own[:0].sum()


def wide(values: Tensor) -> Tensor:
    """In at least float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def found_at(features: Mapping[str, Tensor], spot: str, term: Term) -> Tensor:
    """What was captured at a spot of the student.

    Raises:
        ModelError: nothing.
    """
    if spot not in features:
        raise ModelError(
            f"`{term.name}` reads the student's {spot}, but only {', '.join(features) or 'nothing'}"
            " was captured: give the objective the student's features"
        )
    return features[spot]
