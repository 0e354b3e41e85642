"""The control's objective: the student's without its teacher."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from understudy.contracts import Task
from understudy.objective.joined import Objective
from understudy.objective.terms import Term, usual


def control_objective(terms: Sequence[Term], *, task: Task) -> Objective:
    """The control's objective: the hard-label terms alone, at full weight, and the constraints.

    Where the student has none that counts (all of its knowledge is the teacher's), the task's plain
    hard loss stands in: what somebody without a teacher would train with. Constraints on weights
    need no teacher, so the control keeps them as they are.
    """
    kept = [term for term in terms if term.plain and usual(term.weight) > 0]
    held = [term for term in kept if term.reads == "weights"]
    hard = [term for term in kept if term.reads != "weights"]
    if not hard:
        plain = Term(name="hard", loss=_TaskLoss(task), reads=task.output, labels=True)
        return Objective([plain, *held], task=task, offers=frozenset())
    # The weights' sum is brought to 1: beside a teacher 0.1 is a share, alone it would only be a
    # smaller learning rate. A schedule between teacher and labels has no meaning without a teacher.
    share = sum(usual(term.weight) for term in hard)
    alone = [replace(term, weight=usual(term.weight) / share, temperature=None) for term in hard]
    return Objective([*alone, *held], task=task, offers=frozenset())


class _TaskLoss(nn.Module):
    """The task's own hard loss as a term."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    def forward(self, own: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self._task.hard_loss(own, labels)
        return loss
