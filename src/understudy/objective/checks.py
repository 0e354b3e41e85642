"""What an objective refuses before anything is trained."""

import math
from collections.abc import Sequence
from numbers import Real

from understudy.contracts import Task
from understudy.errors import ModelError
from understudy.objective.terms import AUTO, Term
from understudy.recipe import Schedule


def check_together(terms: Sequence[Term]) -> None:
    """Refuse terms that make no objective: none, two of one name, weights that mean nothing.

    Constraints alone make none either.

    Raises:
        ModelError: naming them.
    """
    if not terms:
        raise ModelError("an objective needs at least one term, but got none")
    names = [term.key for term in terms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelError(
            "every term of an objective needs a name of its own, but "
            f"{', '.join(twice)} stands there more than once: number them"
        )
    for term in terms:
        _check_weight(term)
    if all(term.reads == "weights" for term in terms):
        raise ModelError(
            "an objective needs a term that teaches, but "
            f"{', '.join(f'`{term.name}`' for term in terms)} only holds weights: add `hard_label` "
            "or `soft_target`"
        )


def _check_weight(term: Term) -> None:
    """A recipe's weights are checked where it is read; those of a `Term` made by hand here."""
    weight = term.weight
    if weight == AUTO or isinstance(weight, Schedule):
        return
    number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not (number and math.isfinite(weight) and weight >= 0):
        raise ModelError(
            f"a weight must be a number that is finite and not negative, a schedule or `auto`, but "
            f"`{term.name}` has {weight!r}: usual is 1"
        )


def check(term: Term, *, task: Task, offers: frozenset[str], listed: frozenset[str]) -> None:
    """Refuse a term that this task or this teacher cannot serve.

    Raises:
        ModelError: naming what it lacks.
    """
    lacking = [name for name in term.wants if name not in offers]
    if lacking:
        inside = [p.teacher for p in term.pairs if p.teacher in lacking]
        remedy = (
            "read layers of a teacher that is a PyTorch `model`, or a label store that holds these"
            if inside
            else "choose another teacher or another term"
        )
        raise ModelError(
            f"`{term.name}` needs the teacher's {', '.join(lacking)}, but the teacher "
            f"offers {', '.join(sorted(offers)) or 'nothing'}: {remedy}"
        )
    partly = [name for name in term.wants if name in listed]
    if partly and not hasattr(term.loss, "outcomes"):
        raise ModelError(
            f"`{term.name}` needs every number of the teacher's {', '.join(partly)}, but "
            "the store lists some outcomes only: choose a dense `labels.codec`, or a term "
            "that reads outcomes, such as soft_target"
        )
    if "features" in (term.reads, *term.needs) and not term.pairs:
        raise ModelError(
            f"`{term.name}` compares layers, but no pair of layers is given: name them, "
            "`layers: {student: PATH, teacher: PATH}`"
        )
    if term.reads == "weights" and term.weight == AUTO:
        raise ModelError(
            f"`{term.name}` holds weights, and its pull says nothing at the start, so its weight "
            "cannot be found: give `weight` as a number"
        )
    if term.reads not in (task.output, "features", "weights"):
        raise ModelError(
            f"`{term.name}` reads {term.reads}, but a student of {task.name} gives "
            f"{task.output}: choose a term made for {task.name}"
        )
