"""An objective: terms, their weights and schedules, their masks, and the one mean.

A distillation method is an objective. Losses give one value per row; here it is decided which
rows count, and that a term is the mean over the rows that count for it: a term that needs hard
labels over the labelled rows, any other over all of them. A batch without a labelled row adds
nothing to the former.

A constraint is a term that reads the student's weights and where they started; it has no rows.
"""

from understudy.objective.choosing import (
    AnyObjective,
    answer,
    control_of,
    objective_of,
    scored_rows,
    surprised,
)
from understudy.objective.control import control_objective
from understudy.objective.joined import Objective, Total
from understudy.objective.positions import scored
from understudy.objective.terms import AUTO, Pair, Term, scheduled, usual
from understudy.objective.vocabulary import VocabularyObjective
from understudy.objective.weights import trained

__all__ = [
    "AUTO",
    "AnyObjective",
    "Objective",
    "Pair",
    "Term",
    "Total",
    "VocabularyObjective",
    "answer",
    "control_objective",
    "control_of",
    "objective_of",
    "scheduled",
    "scored",
    "scored_rows",
    "surprised",
    "trained",
    "usual",
]
