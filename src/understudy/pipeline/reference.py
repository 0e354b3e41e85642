"""Stage `reference`: the teacher's vectors of validation and test rows.

Vectors have no labels that people wrote down. What a student's are held against, while it learns
and when it is judged, are its teacher's: they stand in the place of labels, and train nobody.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays
from torch import Tensor

from understudy.contracts import Batch, Teacher
from understudy.data.lengths import shortest_first
from understudy.data.loaders import MemoryLoader
from understudy.folders import write_atomic
from understudy.pipeline.work import Work
from understudy.students.static import principal_axes
from understudy.teachers.checked import CheckedTeacher
from understudy.teachers.sentence_model import SentenceModel

Array = NDArray[Any]
STAGE, FILE = "reference", "vectors.safetensors"
# Texts that show where most of a teacher's vectors lie.
AXES_ROWS = 4000


def refer(work: Work, teacher: Callable[[], Teacher], mark: str) -> None:
    """Do the stage.

    Args:
        work: the run.
        teacher: gives the one that is asked, where the stage is not done yet.
        mark: its fingerprint.

    Raises:
        ModelError: an answer that is not finite, or the same for every row.
    """
    depends = {"teacher": mark, "data": work.data_mark}
    work.stage(STAGE, depends, lambda folder: _refer(work, teacher(), folder))


def reference(work: Work, positions: Array) -> NDArray[np.float32]:
    """The teacher's vectors of validation or test rows, `[positions, width]`."""
    told = load_file(work.folder / STAGE / FILE)
    return np.asarray(told["vectors"][np.searchsorted(told["positions"], positions)], np.float32)


def reference_loader(work: Work) -> MemoryLoader | None:
    """The validation rows in order, with the teacher's vectors for labels; None without any."""
    material, positions = work.material, work.material.splits.validation
    if not len(positions):
        return None
    positions = positions[shortest_first(material.inputs, positions, material.pad)]
    index = torch.from_numpy(positions)
    return MemoryLoader(
        inputs=material.inputs[index],
        labels=torch.from_numpy(reference(work, positions)),
        ids=material.ids[index],
        positions=np.arange(len(positions)),
        batch_size=work.recipe.evaluate.batch_size,
        pad=material.pad,
    )


def turn(work: Work, network: SentenceModel) -> None:
    """Put a teacher that has too many numbers on the principal axes of some training texts."""
    if network.axes is None:
        return
    every = work.material.splits.train
    order = np.random.Generator(np.random.Philox(key=work.recipe.data.seed)).permutation(every)

    def whole(batch: Batch) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, network.inside.eval()(batch.inputs.long()))

    vectors = teachers_vectors(work, whole, np.sort(order[:AXES_ROWS]))
    network.turn(principal_axes(vectors, width=work.task.width))


def teachers_vectors(
    work: Work, ask: Callable[[Batch], Tensor], positions: Array
) -> NDArray[np.float32]:
    """Vectors of rows as the teacher reads them, `[positions, width]`, in order."""
    material = work.teaching
    order = shortest_first(material.inputs, positions, material.pad)
    loader = MemoryLoader(
        inputs=material.inputs,
        labels=None,
        ids=material.ids,
        positions=positions,
        batch_size=work.recipe.evaluate.batch_size,
        pad=material.pad,
    )
    size = loader.batch_size
    starts = range(0, len(positions), size)
    parts = [ask(loader.batch(positions[order[at : at + size]])) for at in starts]
    told = torch.cat(parts).float().cpu().numpy()
    return np.asarray(told[np.argsort(order)], np.float32)


def _refer(work: Work, teacher: Teacher, folder: Path) -> dict[str, Any]:
    splits, checked = work.material.splits, CheckedTeacher(teacher)
    positions = np.sort(np.concatenate([splits.validation, splits.test]))
    output = work.task.output
    found = teachers_vectors(work, lambda batch: checked(batch).tensor(output), positions)
    write_atomic(folder / FILE, save_arrays({"positions": positions, "vectors": found}))
    return {"rows": len(positions)}
