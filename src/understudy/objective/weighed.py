"""What every objective knows of its terms: for which task they are, and how much each counts."""

from collections.abc import Mapping, Sequence

from torch import nn

from understudy.contracts import Task
from understudy.objective.checks import check_together
from understudy.objective.terms import AUTO, Term, scheduled


class Weighed(nn.Module):
    """Terms with their weights, fixed, scheduled or still to be found; abstract.

    What a batch comes to is the business of those that are made of it: `Objective` and
    `VocabularyObjective`.
    """

    def __init__(self, terms: Sequence[Term], *, task: Task) -> None:
        """Keep the terms.

        Raises:
            ModelError: there are none, two have one name, or none of them teaches.
        """
        super().__init__()
        check_together(terms)
        self.terms = tuple(terms)
        self._task = task
        self._weights = {term.name: term.weight for term in terms}

    @property
    def task(self) -> Task:
        """What is asked of the student."""
        return self._task

    @property
    def unbalanced(self) -> tuple[str, ...]:
        """Terms whose weight is still to be found."""
        return tuple(name for name, weight in self._weights.items() if weight == AUTO)

    def balance(self, weights: Mapping[str, float]) -> None:
        """Fix the weights that were to be found."""
        self._weights.update({name: float(weight) for name, weight in weights.items()})

    def weight(self, name: str, *, epoch: float, epochs: int) -> float:
        """A term's weight at a fractional epoch; 1 where it is still to be found."""
        found = self._weights[name]
        return 1.0 if found == AUTO else scheduled(found, epoch=epoch, epochs=epochs)
