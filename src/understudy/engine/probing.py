"""A look at every term before training: how large it is, and how hard it pulls at the student.

Nothing is changed by looking: running statistics, memory banks and random numbers are put back.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from understudy.contracts import Batch, Teacher
from understudy.errors import ModelError, TrainingError
from understudy.features.hooks import capture
from understudy.models.deployable import inner
from understudy.objective import AUTO, AnyObjective, Term, answer, trained, usual

BATCHES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One term on the first batches, by the student's start weights.

    Attributes:
        term: its name.
        value: its mean without the weight.
        gradient: the norm of its gradient with respect to the student's weights, likewise.
        weight: what it counts at the beginning of training; one that was to be found, if `found`.
        found: whether the weight was `auto`.
        like: the term whose gradient a found weight brings this one's to; empty where it is 1.
    """

    term: str
    value: float
    gradient: float
    weight: float
    found: bool
    like: str = ""

    def line(self) -> str:
        """For the log."""
        goal = f"as strong as {self.like}" if self.like else "its gradient brought to 1"
        how = f" (found: {goal})" if self.found else ""
        return (
            f"{self.term}: {self.value:.4g}, gradient {self.gradient:.3g}, "
            f"weight {self.weight:.4g}{how}"
        )


def probe(
    *,
    student: nn.Module,
    objective: AnyObjective,
    teacher: Teacher | None,
    loader: Iterable[Batch],
    epochs: int,
    seed: int = 0,
) -> tuple[Reading, ...]:
    """Value and gradient of every term on the first batches; weights that are `auto` are found.

    An `auto` weight brings the term's gradient norm to that of the heaviest term with a weight of
    its own (a schedule counts with the mean of its ends), or, where there is none, to 1. Batches in
    which a term had no row, since none was labelled, do not count for it.

    Args:
        student: as it will begin, in training mode while it is looked at.
        objective: its `auto` weights are fixed here.
        teacher: as in training.
        loader: training batches; the first four are looked at.
        epochs: of the training that follows.
        seed: of everything random while looking, so that the same weights are found again.

    Raises:
        ModelError: a term that does not move the student at all, layers that cannot be read, or a
            term that relates rows and gets one at a time.
        TrainingError: a weight is to be found, and a gradient is not finite.
    """
    values: dict[str, list[float]] = {term.name: [] for term in objective.terms}
    norms: dict[str, list[float]] = {term.name: [] for term in objective.terms}
    objective.begin(student)
    with _as_it_was(student, objective, seed):
        for batch in islice(loader, BATCHES):
            _refuse_alone(objective, batch)
            for name, (value, norm) in _look(student, objective, teacher, batch, epochs).items():
                values[name].append(value)
                norms[name].append(norm)
            for term in objective.terms:
                _refuse(term, values[term.name], norms[term.name])
    middle = {n: _mean_where(values[n], v) for n, v in norms.items()}
    wanted = objective.unbalanced
    like, goal = _strongest(objective, middle)
    objective.balance({n: goal / middle[n] if middle[n] > 0 else 1.0 for n in wanted})
    return tuple(
        Reading(
            term=term.name,
            value=_mean_where(values[term.name], values[term.name]),
            gradient=middle[term.name],
            weight=objective.weight(term.name, epoch=0.0, epochs=epochs),
            found=term.name in wanted,
            like=like if term.name in wanted else "",
        )
        for term in objective.terms
    )


def _mean_where(values: Sequence[float], numbers: Sequence[float]) -> float:
    """The mean over the batches in which the term had a row."""
    there = [number for value, number in zip(values, numbers, strict=True) if value != 0]
    return statistics.fmean(there) if there else 0.0


def _strongest(objective: AnyObjective, norms: Mapping[str, float]) -> tuple[str, float]:
    """The term with a weight of its own that pulls hardest, and how hard."""
    bad = [n for n in norms if not math.isfinite(norms[n])] if objective.unbalanced else []
    if bad:
        raise TrainingError(
            f"a weight that is `auto` is found by gradients, but that of `{bad[0]}` is "
            f"{norms[bad[0]]:.4g} on the first batches: give every weight as a number, and see "
            "what of it is too large"
        )
    given = {
        term.name: usual(term.weight) * norms[term.name]
        for term in objective.terms
        if term.weight != AUTO
    }
    name = max(given, key=lambda n: given[n], default="")
    return (name, given[name]) if name and given[name] > 0 else ("", 1.0)


def _look(
    student: nn.Module,
    objective: AnyObjective,
    teacher: Teacher | None,
    batch: Batch,
    epochs: int,
) -> dict[str, tuple[float, float]]:
    told = teacher(batch) if teacher is not None else None
    with capture(inner(student), objective.spots) as captured:
        answers = answer(objective, student, batch.inputs)
    features = captured.found()
    try:
        means = objective.means(
            answers,
            told,
            batch,
            epoch=0.0,
            epochs=epochs,
            features=features,
            weights=trained(student) if objective.constrained else None,
        )
    except ValueError as error:  # a loss without an adapter, on layers of two shapes
        pairs = [f"{p.student} and {p.teacher}" for t in objective.terms for p in t.pairs]
        if not pairs:
            raise
        raise ModelError(f"{error} (the layers compared are {', '.join(pairs)})") from error
    own = [p for p in student.parameters() if p.requires_grad]
    adapters = [p for p in objective.parameters() if p.requires_grad]
    found = {}
    for term in objective.terms:
        mean = means[term.name]
        # A term that only prepares an adapter pulls at that one.
        pulled = own if term.teaches else adapters
        found[term.name] = float(mean.detach()), _norm(mean, pulled, [*own, *adapters])
    return found


def _norm(mean: Tensor, pulled: list[nn.Parameter], every: list[nn.Parameter]) -> float:
    if not mean.requires_grad or not pulled:
        return 0.0
    kept = [p.grad for p in every]
    for parameter in every:
        parameter.grad = None
    # Not `autograd.grad`, which a student that recomputes its activations may not allow.
    mean.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    found = sum(float(p.grad.double().square().sum()) for p in pulled if p.grad is not None)
    for parameter, grad in zip(every, kept, strict=True):
        parameter.grad = grad
    return math.sqrt(found)


def _refuse_alone(objective: AnyObjective, batch: Batch) -> None:
    """Say no to a batch without anything to relate, before a student's batch norm does."""
    for term in objective.terms:
        if term.related and len(batch) < 2:
            raise ModelError(
                f"`{term.name}` compares the rows of a batch with one another, so it needs "
                f"`batch_size >= 2`, but got batches of {len(batch)}"
            )


def _refuse(term: Term, values: list[float], norms: list[float]) -> None:
    """Say no to what would teach nothing, before hours are spent on it."""
    if term.reads == "weights":  # it may be content with the start: it is there for later
        return
    # At equality there is nothing to learn, and nothing wrong; a batch may have no labelled row.
    first = next((number for number, value in enumerate(values) if value != 0), None)
    if first is not None and norms[first] == 0:
        what = ", ".join(pair.student for pair in term.pairs) or term.reads
        raise ModelError(
            f"`{term.name}` is {values[first]:.4g} on the first batch, but its gradient is exactly "
            f"0: what it reads of the student ({what}) depends on no weight that is trained, or is "
            "the same for all classes or rows, as with an output layer of zeros, so that it has no "
            "direction to be compared. Name another layer, unfreeze the weights before it, or "
            "start the output layer with random weights"
        )


@contextmanager
def _as_it_was(student: nn.Module, objective: AnyObjective, seed: int) -> Iterator[None]:
    """Training mode, and afterwards everything as it was found."""
    parts = (student, objective)
    modes = [{m: m.training for m in part.modules()} for part in parts]
    states = [{k: v.detach().clone() for k, v in p.state_dict().items()} for p in parts]
    # Some buffers are in no state dict.
    buffers = [{k: v.detach().clone() for k, v in p.named_buffers()} for p in parts]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in parts:
            part.train()
        try:
            yield
        finally:
            for part, mode, state, kept in zip(parts, modes, states, buffers, strict=True):
                part.load_state_dict(state)
                for name, buffer in part.named_buffers():
                    if name in kept:
                        buffer.copy_(kept[name])
                for module, training in mode.items():
                    module.training = training
