"""The words that student and teacher both see whole, where terms compare layers word by word."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.data.alignment import SharedWords, shared_words
from understudy.data.cutting import Cutter
from understudy.errors import DataError
from understudy.pipeline.work import Work
from understudy.recipe import Phase, TermEntry

KIND = "words"


def by_words(entry: TermEntry) -> bool:
    """Whether a term compares words instead of tokens."""
    return entry.adapter is not None and entry.adapter.kind == KIND


def words_known(
    work: Work, phases: Sequence[Phase], positions: NDArray[np.int64]
) -> dict[str, Any]:
    """What the adapter `words` is told of some rows; nothing where no term asks for it.

    Args:
        work: the run.
        phases: whose terms are looked at.
        positions: the rows.

    Raises:
        DataError: the rows are no single texts, views move their tokens, or the tokenizers have too
            few words in common.
    """
    if not any(by_words(entry) for phase in phases for entry in phase.objective):
        return {}
    found = _counted(work, positions)
    return {
        "student_words": torch.from_numpy(found.student),
        "teacher_words": torch.from_numpy(found.teacher),
    }


def words_line(work: Work, positions: NDArray[np.int64]) -> str:
    """How much of the texts both sides see, for the log and the report."""
    found = _counted(work, positions)
    line = f"words: both tokenizers see {found.coverage:.2%} of the words whole"
    cut = " and ".join(
        f"the {who}'s cuts {count} of {len(positions)} texts off"
        for who, count in zip(("student", "teacher"), found.cut, strict=True)
        if count
    )
    return f"{line}; {cut}" if cut else line


def _counted(work: Work, positions: NDArray[np.int64]) -> SharedWords:
    own, theirs = work.material, work.teaching
    texts = own.rows.texts
    if texts is None or own.tokenizer is None or len(own.rows.columns or ()) > 1:
        raise DataError(
            "`adapter: {kind: words}` compares the words of single texts, but these rows are none: "
            "leave the adapter out"
        )
    if work.recipe.data.views:
        raise DataError(
            "`adapter: {kind: words}` counts the words of every row once, but random `data.views` "
            "move its tokens: remove them, or the adapter"
        )
    cutters = [Cutter(side.tokenizer) for side in (own, theirs)]
    return shared_words([texts[at][0] for at in positions], *cutters)
