"""What a task makes of rows of texts: their tokens, and per token what is asked and known.

A task that is asked per token adds a line to `laid`; everything behind it reads `Laid` alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import Rows
from understudy.data.splits import Splits
from understudy.data.texts import cut_texts, tokenized
from understudy.data.token_rows import of_words
from understudy.deployed.texts import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Laid:
    """Rows with token ids, and their labels in the form that training takes.

    Attributes:
        rows: with the ids for inputs.
        labels: of rows, or of positions `[rows, longest]`; None where no row has one.
        counted: bool `[rows, longest]`, where a model is asked per token: which positions count.
        note: what a person should know, such as texts that are cut; or empty.
    """

    rows: Rows
    labels: NDArray[Any] | None
    counted: NDArray[np.bool_] | None = None
    note: str = ""

    def visible(self, splits: Splits) -> NDArray[Any]:
        """The labels without those that the recipe hides from student and control."""
        if self.labels is None:
            return np.full(len(self.rows.inputs), -1, np.int64)
        return splits.visible(self.labels)


def laid(kind: str, rows: Rows, tokenizer: Tokenizer | None) -> Laid:
    """The rows as a task of this kind takes them.

    Args:
        kind: of the task.
        rows: raw.
        tokenizer: of texts; None where rows are none.
    """
    if tokenizer is None:
        return Laid(rows=rows, labels=rows.labels)
    if kind == "token_classification":
        found = of_words(rows, tokenizer)
        return Laid(rows=found.rows, labels=found.labels, counted=found.counted, note=found.note)
    ready = tokenized(rows, tokenizer)
    return Laid(rows=ready, labels=ready.labels)


def cut_note(ready: Laid, tokenizer: Tokenizer) -> str:
    """How many texts lose their end, for tasks that say nothing of it themselves."""
    if ready.counted is not None:
        return ready.note
    cut = cut_texts(ready.rows, tokenizer)
    told = f"{cut} of {len(ready.rows)} texts are longer than {tokenizer.length} tokens"
    return f"{told} and lose their end" if cut else ""
