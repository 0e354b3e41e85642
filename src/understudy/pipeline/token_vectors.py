"""A fresh student of texts gets its teacher's token vectors before it learns."""

from collections.abc import Mapping

import torch

from understudy.errors import ModelError
from understudy.models.deployable import Deployable
from understudy.pipeline.members import load_teacher, member_module
from understudy.pipeline.work import Work
from understudy.students.token_vectors import with_token_vectors


def take_token_vectors(
    work: Work, whole: Deployable, *, rehearsal: bool = False
) -> Mapping[str, str]:
    """Put the teacher's token vectors into a fresh student, in place; where they come from.

    Args:
        work: the run.
        whole: the student.
        rehearsal: whether the teacher is still to be trained, so that only shapes count.

    Raises:
        ModelError: the rows are no texts, the teacher is not one network, or the two do not fit.
    """
    material, section = work.material, work.recipe.student.token_vectors
    assert section is not None
    if material.tokens is None:
        raise ModelError(
            "`token_vectors` is for students of texts, but these rows are not: remove it"
        )
    if work.recipe.teacher.model is None:
        raise ModelError("`token_vectors` needs one teacher that is a PyTorch `model`: remove it")
    if rehearsal:
        teacher: Deployable | None = member_module(work, work.recipe.teacher)
    else:
        (teacher,) = load_teacher(work)[1]
    assert teacher is not None
    ids = material.inputs[torch.from_numpy(material.splits.train)]
    counts = torch.bincount(ids.flatten().long(), minlength=material.tokens.vocabulary)
    counts[material.tokens.pad] = 0  # how far rows are filled up says nothing of texts
    made = with_token_vectors(
        whole.network, teacher.network, counts, scale=section.scale, frozen=section.frozen
    )
    whole.network = made.module
    return made.provenance
