"""Stored outcomes of a teacher whose vocabulary numbers its tokens in another way."""

from dataclasses import replace

from understudy.contracts import Outcomes
from understudy.losses.vocabulary import Alignment, ListedLabels


def aligned_outcomes(told: Outcomes, alignment: Alignment) -> Outcomes:
    """What a store says of the teacher's tokens, in numbers that the student's logits have too.

    With `masked: rest` these are the student's own numbers; else, and for draws, those of the
    shared tokens, `shared_logits(logits, alignment.vocabulary.student)` on the student's side.

    Args:
        told: in the teacher's numbers.
        alignment: of both vocabularies.

    Raises:
        ValueError: the plan is of a teacher with another number of tokens.
    """
    plan = alignment.vocabulary
    if told.classes > plan.teacher_width:
        raise ValueError(
            f"`classes <= {plan.teacher_width}` must hold, as the plan's teacher has so many "
            f"columns, but the store knows {told.classes} classes: make the plan with the "
            "tokenizer that the labels were made with, and its head's `teacher_width`"
        )
    found = alignment.listed(
        ListedLabels(
            ids=told.ids,
            log_mass=told.log_mass,
            rest=told.rest,
            sampled=told.sampled,
            entropy=told.entropy,
        )
    )
    whole = alignment.keeps_student(sampled=told.sampled)
    return replace(
        told,
        ids=found.ids,
        log_mass=found.log_mass,
        rest=found.rest,
        entropy=found.entropy,
        classes=plan.student_width if whole else len(plan),
    )
