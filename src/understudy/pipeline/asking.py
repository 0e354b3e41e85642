"""Models asked for many rows, a batch at a time: one row of numbers per row, or per position.

Where a task asks once per token, what comes back are the scored positions of all rows, one row
after the other, as the few numbers that its scores need (`PerToken.condensed`): never
`[rows, length, vocabulary]`. `Truth` knows which label and which text each of them belongs to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.data.lengths import shortest_first
from understudy.data.loaders import Shown
from understudy.data.packing import documents_of
from understudy.deployed import Deployed
from understudy.evaluate.by_row import by_row
from understudy.evaluate.quality import Score
from understudy.objective import scored, surprised
from understudy.pipeline.language import rows_at_once, with_bytes
from understudy.pipeline.reference import reference
from understudy.pipeline.work import Work
from understudy.tasks import Embedding, LanguageModel

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Truth:
    """What answers are held against.

    Attributes:
        labels: of the rows, or of the scored positions of all rows, one row after the other.
        lengths: how many scored positions each row has; None where a row is asked once.
        documents: how many each document has, where these go on over several rows.
    """

    labels: Array
    lengths: NDArray[np.int64] | None = None
    documents: NDArray[np.int64] | None = None

    def rows(self, score: Score) -> Score:
        """The score with texts, not tokens, for its rows: for intervals and comparisons.

        Where documents are longer than rows these are the documents: what a model finds easy in
        one of them it finds easy all through it, so its rows are not drawn one by one.
        """
        units = self.lengths if self.documents is None else self.documents
        return score if units is None else by_row(score, units)


def truth(work: Work, positions: NDArray[np.int64]) -> Truth:
    """The labels of rows; of those that are asked per token, of their scored positions.

    Where no test row has a label, these are all positions that count, and their labels are -1.
    """
    material = work.material
    if isinstance(material.task, Embedding):
        return Truth(labels=reference(work, positions))
    labels = material.all_labels.numpy()[positions]
    if material.counted is None:
        return Truth(labels=labels)
    seen = material.counted.numpy()[positions]
    if not _unknown(work):
        seen = seen & (labels >= 0)
    lengths = seen.sum(axis=1).astype(np.int64)
    if isinstance(material.task, LanguageModel):
        return Truth(
            labels=with_bytes(work, positions, labels),
            lengths=lengths,
            documents=documents_of(material.inputs.numpy()[positions], seen, end=material.task.end),
        )
    return Truth(labels=labels[seen], lengths=lengths)


def asked(
    work: Work,
    positions: NDArray[np.int64],
    answer: Callable[[Batch], Tensor],
    *,
    whole: bool = False,
) -> NDArray[np.float32]:
    """Answers to rows, `[rows, width]`, or `[positions, few]` as `truth` has the labels.

    Args:
        work: the run.
        positions: which rows.
        answer: a batch to its answers, `[batch, width]` or `[batch, length, width]`.
        whole: whether every position that counts is told, labelled or not, with all numbers of
            its answer.
    """
    material, size = work.material, rows_at_once(work, work.recipe.evaluate.batch_size)
    whole = whole or _unknown(work)
    order = shortest_first(material.inputs, positions, material.pad)
    shown = Shown(
        inputs=material.inputs,
        labels=material.all_labels,
        ids=material.ids,
        pool=positions,
        pad=material.pad,
        counted=material.counted,
    )
    found = []
    for start in range(0, len(positions), size):
        batch = shown.batch(positions[order[start : start + size]])
        answers = answer(batch)
        if batch.positions is not None and answers.ndim == 3:
            answers = (
                answers[batch.positions] if whole else scored(answers, batch, material.task)[0]
            )
        found.append(answers.float().cpu().numpy())
    every = np.concatenate(found)
    lengths = None if material.counted is None else truth(work, positions).lengths
    if material.counted is not None and whole:
        lengths = material.counted.numpy()[positions].sum(axis=1).astype(np.int64)
    if lengths is None:
        return np.asarray(every[np.argsort(order)], np.float32)
    return np.asarray(every[_places(lengths, order)], np.float32)


def _unknown(work: Work) -> bool:
    """Whether words are asked for of which none is known in the test rows: to compare answers."""
    material = work.material
    if material.counted is None or isinstance(material.task, LanguageModel):
        return False
    labels = material.all_labels.numpy()[material.splits.test]
    return not material.task.labelled_rows(labels).any()


def _places(lengths: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the positions of each row lie after the rows were put into this order."""
    moved = np.cumsum(lengths[order]) - lengths[order]
    starts = np.empty_like(moved)
    starts[order] = moved
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.asarray(np.repeat(starts, lengths) + within)


def predict(
    module: nn.Module, work: Work, positions: NDArray[Any], *, whole: bool = False
) -> NDArray[np.float32]:
    """Answers of a module to rows, `[rows, width]` float32; per token as `asked` gives them."""
    task = work.material.task
    with torch.inference_mode():
        if isinstance(task, LanguageModel) and not whole:  # by its states, so without logits
            return asked(work, positions, lambda batch: surprised(module, batch, task)[0])
        return asked(work, positions, lambda batch: module(batch.inputs), whole=whole)


def of_file(
    session: Deployed, work: Work, positions: NDArray[Any], *, whole: bool = False
) -> NDArray[np.float32]:
    """Answers of an exported file to rows, as `predict` has them."""
    if work.material.counted is None:
        return session.predict(work.material.rows.inputs[positions])
    return asked(
        work,
        positions,
        lambda batch: torch.from_numpy(session.predict(batch.inputs.numpy())),
        whole=whole,
    )
