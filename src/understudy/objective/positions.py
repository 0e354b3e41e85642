"""Where a model is asked once per token: positions become rows, so that every loss is as it was.

Answers, labels and the teacher's knowledge are flattened to the positions that count, row after
row. A mean over rows is then the mean over all these positions of the batch.
"""

from torch import Tensor

from understudy.contracts import Batch, Knowledge, per_position
from understudy.errors import ModelError
from understudy.tasks.embedding import Embedding
from understudy.tasks.per_token import PerToken


def by_position(
    student: Tensor, teacher: Knowledge | None, batch: Batch
) -> tuple[Tensor, Knowledge | None, Batch]:
    """Answers, knowledge and labels with one row per position that counts.

    Args:
        student: answers `[batch, length, width]`.
        teacher: what it says of the batch: sequences of as many positions as count, dense or as
            listed outcomes, or one answer per token of the batch.
        batch: with `positions`; labels `[batch, length]`.

    Returns:
        `[positions, width]`, knowledge of as many rows, and the batch of these.

    Raises:
        ModelError: one of them tells of more or fewer positions than count.
    """
    positions = batch.positions
    assert positions is not None
    answers = _flat("the student's answer", student, positions)
    told = None
    if teacher is not None:
        told = Knowledge(
            fields={
                name: per_position(f"the teacher's {name}", value, positions).values
                for name, value in teacher.items()
            }
        )
    counts = positions.sum(dim=1)
    flat = Batch(
        inputs=batch.inputs[positions],
        labels=None if batch.labels is None else _labels(batch.labels, positions)[positions],
        ids=None if batch.ids is None else batch.ids.repeat_interleave(counts),
        views=None if batch.views is None else batch.views.repeat_interleave(counts),
    )
    return answers, told, flat


def scored(answers: Tensor, batch: Batch, task: object) -> tuple[Tensor, Tensor]:
    """Answers and labels that a score is taken of, `[rows, width]` and `[rows]`.

    Rows without a label are left out, but of embeddings, which have none. Per token these are the
    positions that count and have a label, as few numbers of each as the task's scores need
    (`PerToken.condensed`).

    Args:
        answers: of a model to the batch.
        batch: with labels.
        task: what is asked.
    """
    assert batch.labels is not None
    if batch.positions is None:
        if isinstance(task, Embedding) or not hasattr(task, "labelled"):
            return answers, batch.labels
        known = task.labelled(batch.labels)
        return answers[known], batch.labels[known]
    labels = _labels(batch.labels, batch.positions)
    seen = batch.positions & (labels >= 0)
    if answers.shape[:2] != seen.shape:
        _flat("the answer", answers, batch.positions)
    picked, known = answers[seen], labels[seen]
    return (task.condensed(picked, known) if isinstance(task, PerToken) else picked), known


def _flat(name: str, answers: Tensor, positions: Tensor) -> Tensor:
    values = per_position(name, answers, positions).values
    assert isinstance(values, Tensor)
    return values


def _labels(labels: Tensor, positions: Tensor) -> Tensor:
    if labels.shape != positions.shape:
        raise ModelError(
            f"labels must be one per position, {list(positions.shape)}, but have shape "
            f"{list(labels.shape)}: cut them as the rows are cut"
        )
    return labels
