"""What a row of the catalogue of losses says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Authors:
    """Which form of a loss is its authors' own, where published ones disagree.

    Attributes:
        source: where they wrote it down: repository and file, or the paper's equation.
        arguments: what to call the function with to get their scalar as the mean over rows;
            empty where the defaults are theirs.
        note: what differs elsewhere, or why the default is another form; may be empty.
    """

    source: str
    arguments: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One loss or constraint, for whoever chooses, checks or lists them.

    Attributes:
        loss: the class. Its constructor takes only keywords and refuses bad constants; called
            with what it reads of the student and then its target, it gives one value per row.
        function: the pure function that the class holds the constants of.
        needs: the names of the teacher's knowledge it compares with, none for hard labels.
            `features` stands for the layers that the term names.
        reads: the name of what it reads of the student: of its answers, `features`, or `weights`
            for a constraint, which is called with its weights and their starts by name and gives
            one value.
        labels: whether its target is the data set's own label.
        family: what is matched.
        paper: who, when, what and which section.
        authors: which form is the authors'.
        usual_weight: the weight to start from, and beside what.
        tasks: the tasks that it makes sense for.
        whole: why it needs the teacher's number for every class and cannot read a store that
            lists only some outcomes; None where its class has a method `outcomes` that can, and
            where it needs nothing of the teacher.
        also: what else of the batch it is called with, by name: `labels` where it compares with
            the teacher and must know the true class too. Such a term counts labelled rows only.
        layers: how it takes features: "each" pair of layers by itself, its values added up, or
            "all" of them at once, as two lists; "none" where it reads no features.
        which: which of the pairs that are found by themselves it takes where nobody says so.
        adapter: the kind of adapter that it learns with, empty where it learns nothing.
        settings: that adapter's own, where this loss needs other than its defaults.
        teaches: whether it moves the student, and not only an adapter for a later phase.
        related: whether a row's value depends on the rest of its batch, so that it needs two.
        control: whether the control trains with it too: learning from labels, or a constraint on
            weights, not distillation.
    """

    loss: type[nn.Module]
    function: Callable[..., Tensor]
    needs: tuple[str, ...]
    reads: str
    labels: bool
    family: str
    paper: str
    authors: Authors
    usual_weight: str
    tasks: tuple[str, ...]
    whole: str | None
    also: tuple[str, ...] = ()
    layers: Literal["none", "each", "all"] = "none"
    which: Literal["all", "middle", "last"] = "all"
    adapter: str = ""
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    teaches: bool = True
    related: bool = False
    control: bool = False
