"""What a row of the catalogue of losses says. The one table of rows is in the package itself."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One loss, for whoever chooses, checks or lists losses.

    Attributes:
        loss: the class. Its constructor takes only keywords and refuses bad constants; called
            with what it reads of the student and then its target, it gives one value per row.
        needs: the names of the teacher's knowledge it compares with, none for hard labels.
        reads: the name of what it reads of the student.
        labels: whether its target is the data set's own label.
        family: what is matched, which is also the file it lives in.
        paper: who, when, what and which section.
        usual_weight: the weight to start from, and beside what.
        tasks: the tasks that it makes sense for.
        whole: why it needs the teacher's number for every class and cannot read a store that
            lists only some outcomes; None where its class has a method `outcomes` that can, and
            where it needs nothing of the teacher.
    """

    loss: type[nn.Module]
    needs: tuple[str, ...]
    reads: str
    labels: bool
    family: str
    paper: str
    usual_weight: str
    tasks: tuple[str, ...]
    whole: str | None
