"""Two vocabularies compared on the tokens that they share, with what is masked in a stated place.

`renormalised`: both distributions are those of the shared tokens alone, brought back to a sum of 1.
Nothing is said of the others: no gradient reaches their columns. `rest`: all others are one more
outcome on either side, so the student also learns how much mass they have together. Both are
divergences, and 0 where the two sides agree. A student without other columns has no such outcome:
both sides are renormalised then.

Everything is in the numbers of the shared tokens then: 0 to `len(vocabulary) - 1` in the order of
the student's columns, and the rest behind them. Listed outcomes with `rest` keep the student's own
numbers, as they have a rest already.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from understudy.losses.constants import check_one_of
from understudy.losses.vocabulary.mapping import VocabularyMap
from understudy.losses.vocabulary.parts import (
    DenseLabels,
    HiddenLabels,
    Labels,
    LinearHead,
    ListedLabels,
)

Masked = Literal["renormalised", "rest"]
WAYS: Final = ("renormalised", "rest")


def shared_logits(
    logits: Float[Tensor, " *axes columns"],
    columns: Int64[Tensor, " shared"],
    *,
    rest: bool = False,
    temperature: float = 1.0,
) -> Float[Tensor, " *axes outcomes"]:
    """The logits of the shared tokens, `[..., shared]`, and of all others as one behind them.

    The logit of the others is `T * logsumexp(others / T)`: softened by the same T it holds their
    softened mass, neither more nor less. -inf where there are none.

    Args:
        logits: of one side.
        columns: its shared columns.
        rest: whether the others are one more outcome.
        temperature: T that the result will be softened with.
    """
    found = _taken(logits, columns, dim=-1)
    if not rest:
        return found
    others = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others[columns] = False
    if not bool(others.any()):
        return torch.cat([found, found.new_full((*found.shape[:-1], 1), -torch.inf)], dim=-1)
    bucket = temperature * (logits[..., others] / temperature).logsumexp(dim=-1, keepdim=True)
    return torch.cat([found, bucket], dim=-1)


def shared_head(head: LinearHead, columns: Int64[Tensor, " shared"]) -> LinearHead:
    """A head of the shared tokens alone: rows of its weight, without a copy where they lead."""
    bias = None if head.bias is None else _taken(head.bias, columns, dim=0)
    return replace(head, weight=_taken(head.weight, columns, dim=0), bias=bias)


def shared_list(
    told: ListedLabels, numbers: Int64[Tensor, " columns"], *, masked: Masked = "renormalised"
) -> ListedLabels:
    """Listed outcomes in other numbers; those without one are masked.

    `rest` moves their mass to the rest of the list. `renormalised` takes it out and divides what
    stays, the rest too, by what is left. A position with nothing left says nothing: all its mass is
    in its rest. Draws (`sampled`) have no rest, so theirs is always `renormalised`; the entropy
    stays the whole distribution's, which moves the value by a constant, and not the gradient.

    Args:
        told: in the teacher's numbers.
        numbers: per number of the teacher the new one, -1 where there is none.
        masked: where the mass goes.
    """
    listed = told.ids >= 0
    ids = torch.where(listed, numbers.to(told.ids.device)[told.ids.clamp(min=0)], -1)
    lost = listed & (ids < 0)
    log_mass = told.log_mass.masked_fill(ids < 0, -torch.inf)
    gone = told.log_mass.masked_fill(~lost, -torch.inf).logsumexp(dim=1)
    if told.sampled:
        left = log_mass.logsumexp(dim=1)
        silent = left == -torch.inf
        total = told.log_mass.masked_fill(~listed, -torch.inf).logsumexp(dim=1)
        log_mass = log_mass + (total - left).masked_fill(silent, 0.0).unsqueeze(1)
        entropy = None if told.entropy is None else told.entropy.masked_fill(silent, 0.0)
        return replace(told, ids=ids, log_mass=log_mass, entropy=entropy)
    if masked == "rest":
        return replace(told, ids=ids, log_mass=log_mass, rest=torch.logaddexp(told.rest, gone))
    left = torch.logaddexp(log_mass.logsumexp(dim=1), told.rest)
    silent = left == -torch.inf
    # Of all that was told: a list of rounded numbers need not sum to 1.
    scale = (torch.logaddexp(left, gone) - left).masked_fill(silent, 0.0)
    log_mass, rest = log_mass + scale.unsqueeze(1), told.rest + scale
    return replace(told, ids=ids, log_mass=log_mass, rest=rest.masked_fill(silent, 0.0))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """Brings a student, its labels and a teacher to the tokens that both vocabularies share.

    Attributes:
        vocabulary: which tokens these are.
        masked: where the mass of the others goes. `rest` needs logits, or a teacher told by lists:
            the sum of the others cannot be had from a head that is never multiplied out.

    Raises:
        ValueError: `masked` is another word.

    Example:
        >>> from understudy.losses.vocabulary import map_vocabularies
        >>> both = Alignment(vocabulary=map_vocabularies({"a": 0, "b": 1}, {"b": 0, "a": 1}))
        >>> own, goal = torch.tensor([[0.0, 4.0]]), DenseLabels(logits=torch.tensor([[4.0, 0.0]]))
        >>> _, _, teacher = both(own, torch.tensor([1]), goal)
        >>> teacher.logits
        tensor([[0., 4.]])
    """

    vocabulary: VocabularyMap
    masked: str = "renormalised"
    _heads: dict[int, tuple[Tensor, int, LinearHead]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        check_one_of("masked", self.masked, WAYS)

    def __call__(
        self,
        student: Tensor | HiddenLabels,
        labels: Int64[Tensor, " tokens"],
        teacher: Labels | None,
        *,
        temperature: float = 1.0,
        ignore_index: int = -100,
    ) -> tuple[Tensor | HiddenLabels, Tensor, Labels | None]:
        """The three over the same tokens, for `vocabulary_loss` and every loss on logits.

        Args:
            student: logits `[tokens, student_width]`, or hidden states with the head.
            labels: the student's numbers. One that the teacher lacks is ignored, but where lists
                with `rest` keep all of the student's tokens.
            teacher: in its own numbers.
            temperature: T that the divergence will be taken at.
            ignore_index: the label of a token that does not count.

        Raises:
            ValueError: a side has another width than the plan, or `rest` cannot be had.
        """
        self._check(student, teacher)
        plan, rest = self.vocabulary, self.masked == "rest"
        if isinstance(teacher, ListedLabels) and self.keeps_student(sampled=teacher.sampled):
            return student, labels, self.listed(teacher)
        own = plan.student.to(labels.device)
        # A rest that the student cannot have would be a goal that it never reaches.
        rest = rest and plan.student_width > len(plan)
        if isinstance(student, HiddenLabels):
            if rest:
                raise ValueError(
                    "`masked: rest` needs logits or listed outcomes, but got a head that is not "
                    "multiplied out: use `renormalised`, or give the student's logits"
                )
            mine: Tensor | HiddenLabels = replace(student, head=shared_head(student.head, own))
        else:
            mine = shared_logits(student, own, rest=rest, temperature=temperature)
        return mine, self._labels(labels, ignore_index), self._teacher(teacher, rest, temperature)

    def listed(self, told: ListedLabels) -> ListedLabels:
        """Listed outcomes in the numbers of the shared tokens, or of the student with `rest`."""
        plan = self.vocabulary
        if self.keeps_student(sampled=told.sampled):
            return shared_list(told, plan.to_student, masked="rest")
        places = torch.arange(len(plan), device=plan.teacher.device)
        numbers = torch.full((plan.teacher_width,), -1, device=places.device)
        return shared_list(told, numbers.scatter(0, plan.teacher, places))

    def keeps_student(self, *, sampled: bool) -> bool:
        """Whether lists are compared over all of the student's tokens: they have a rest then."""
        return self.masked == "rest" and not sampled

    def _labels(self, labels: Tensor, ignore_index: int) -> Tensor:
        plan = self.vocabulary
        places = torch.full((plan.student_width,), ignore_index)
        places[plan.student.cpu()] = torch.arange(len(plan))
        known = (labels >= 0) & (labels < plan.student_width)
        found = places.to(labels.device)[torch.where(known, labels, 0)]
        # What is outside stays outside, for whoever refuses it.
        outside = torch.where(labels == ignore_index, labels, plan.student_width)
        return torch.where(known, found, outside)

    def _teacher(self, teacher: Labels | None, rest: bool, temperature: float) -> Labels | None:
        plan = self.vocabulary
        if isinstance(teacher, DenseLabels):
            columns = plan.teacher.to(teacher.logits.device)
            found = shared_logits(teacher.logits, columns, rest=rest, temperature=temperature)
            return DenseLabels(logits=found)
        if isinstance(teacher, HiddenLabels):
            return replace(teacher, head=self._head(teacher.head))
        return None if teacher is None else self.listed(teacher)

    def _head(self, head: LinearHead) -> LinearHead:
        """A teacher's head, whose rows are picked once and not at every batch."""
        kept, version = self._heads.get(id(head.weight)), _version(head.weight)
        if kept is not None and kept[0] is head.weight and kept[1] == version:
            return replace(kept[2], scale=head.scale, soft_cap=head.soft_cap)
        columns = self.vocabulary.teacher.to(head.weight.device)
        bias = None if head.bias is None else head.bias.detach()
        picked = shared_head(replace(head, weight=head.weight.detach(), bias=bias), columns)
        self._heads.clear()
        self._heads[id(head.weight)] = (head.weight, version, picked)
        return picked

    def _check(self, student: Tensor | HiddenLabels, teacher: Labels | None) -> None:
        plan = self.vocabulary
        own = student.shape[-1] if isinstance(student, Tensor) else len(student.head.weight)
        theirs = plan.teacher_width
        if isinstance(teacher, DenseLabels):
            theirs = teacher.logits.shape[-1]
        elif isinstance(teacher, HiddenLabels):
            theirs = len(teacher.head.weight)
        elif teacher is not None and teacher.ids.numel():
            theirs = max(theirs, int(teacher.ids.max()) + 1)
        if (own, theirs) != (plan.student_width, plan.teacher_width):
            raise ValueError(
                "the plan must be of these heads, but got "
                f"{own} columns of the student and {theirs} of the teacher, and a plan of "
                f"{plan.student_width} and {plan.teacher_width}: make it with `student_width` and "
                "`teacher_width` of the models"
            )


def _version(weight: Tensor) -> int:
    """How often it was written to; a tensor of inference mode does not count that."""
    return 0 if weight.is_inference() else weight._version


def _taken(values: Tensor, columns: Tensor, *, dim: int) -> Tensor:
    """Some columns; a view where they are the leading ones."""
    count = len(columns)
    if count and int(columns[-1]) == count - 1 and bool((columns[1:] > columns[:-1]).all()):
        return values.narrow(dim, 0, count)
    return values.index_select(dim, columns)
