"""A teacher that reads the texts of rows, whatever tokens the student reads."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.contracts import Batch, Knowledge
from understudy.errors import ModelError
from understudy.teachers.predictor import PredictorTeacher

Text = str | tuple[str, str]


class TextTeacher:
    """Answers a batch by the texts of its rows, found by their ids.

    So teacher and student need no tokenizer in common. A row's random view is a view of the
    student's tokens, which such a teacher does not see: it answers the text as it is.
    """

    def __init__(
        self,
        predict: Callable[[list[Text]], Any],
        *,
        texts: Sequence[Sequence[str]],
        ids: NDArray[np.int64],
        output: str,
        width: int,
        answers: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        """Keep the texts.

        Args:
            predict: texts, or pairs of them, to answers `[texts, width]`.
            texts: the one text or the two texts of each row.
            ids: the rows' identities, unique.
            output: what the answer is called as knowledge.
            width: how many numbers per text the task asks for.
            answers: what the numbers are.
        """
        self._order = np.argsort(ids, kind="stable")
        self._sorted = np.asarray(ids)[self._order]
        self._texts = texts
        self._inner = PredictorTeacher(
            lambda rows: predict(self._told(rows)), output=output, width=width, answers=answers
        )

    @property
    def offers(self) -> frozenset[str]:
        """Its answer."""
        return self._inner.offers

    def __call__(self, batch: Batch) -> Knowledge:
        """Its answer to the texts of the batch.

        Raises:
            ModelError: the rows have no ids, or ids without a text; or answers of another shape.
        """
        if batch.ids is None:
            raise ModelError(
                "a teacher of texts finds them by the rows' ids, but these rows have none: give "
                "batches with `ids`"
            )
        found = self._inner(Batch(inputs=batch.ids)).tensor(next(iter(self.offers)))
        return Knowledge(fields={next(iter(self.offers)): found.to(batch.inputs.device)})

    def _told(self, ids: NDArray[np.int64]) -> list[Text]:
        places = np.searchsorted(self._sorted, ids).clip(max=len(self._sorted) - 1)
        unknown = ids[self._sorted[places] != ids]
        if len(unknown):
            raise ModelError(
                f"every row must have its text, but {len(unknown)} of {len(ids)} ids have none "
                f"(the first is {int(unknown[0])}): give the texts of all rows"
            )
        return [as_text(self._texts[at]) for at in self._order[places]]


def as_text(row: Sequence[str]) -> Text:
    """The one text or the two texts of a row, as callables of texts are given them."""
    if isinstance(row, str):
        return row
    return row[0] if len(row) == 1 else (row[0], row[1])
