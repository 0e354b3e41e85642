"""The validation rows, which choose a seed, an epoch and an end."""

from understudy.data.lengths import shortest_first
from understudy.data.loaders import MemoryLoader
from understudy.pipeline.reference import reference_loader
from understudy.pipeline.work import Work


def validation_loader(work: Work) -> MemoryLoader | None:
    """The validation rows in order; None where there are none with a label."""
    if not work.recipe.task.has_labels:
        return reference_loader(work)
    material = work.material
    positions = material.splits.validation
    seen = material.task.labelled_rows(material.all_labels.numpy()[positions])
    if not seen.any():
        return None
    known = positions[seen]
    return MemoryLoader(
        inputs=material.inputs,
        labels=material.all_labels,
        ids=material.ids,
        positions=known[shortest_first(material.inputs, known, material.pad)],
        batch_size=work.recipe.evaluate.batch_size,
        pad=material.pad,
        counted=material.counted,
    )
