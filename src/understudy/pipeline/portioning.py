"""The rows of a teacher pass: in which views, cut into which shards, and who asks for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy import losses
from understudy.contracts import Batch, Silent, Teacher
from understudy.data.lengths import shortest_first
from understudy.data.loaders import MemoryLoader
from understudy.data.prefetch import Ahead
from understudy.labels.portions import Portions, cut
from understudy.labels.record import Engine, Serial
from understudy.pipeline.crew import Crew
from understudy.pipeline.language import codec_of
from understudy.pipeline.passing import Way, as_begun, on
from understudy.pipeline.prepare import chain_of_views, load
from understudy.pipeline.work import Work
from understudy.recipe import loads, to_yaml
from understudy.teachers.checked import CheckedTeacher


def live(work: Work) -> bool:
    """Whether the teacher is asked at every step: as told, or for views that nobody counted."""
    options = work.recipe.labels
    return options.use == "live" or (bool(work.recipe.data.views) and options.views is None)


def check_codec(work: Work) -> None:
    """Refuse a codec that cannot hold answers of this width, before a teacher is trained for it.

    Raises:
        StoreError: such as one that lists more classes than there are.
    """
    kinds = [entry.kind for phase in work.recipe.phases for entry in phase.objective]
    rows = [losses.CATALOGUE.get(kind) for kind in kinds]
    told = any(row is not None and row.needs and "features" not in row.needs for row in rows)
    if told and not live(work) and work.recipe.labels.codec.kind != "hidden":
        codec_of(work.recipe).check((work.task.width,))


def stored_views(work: Work) -> int | None:
    """How many views of each row are stored; None where rows are stored as they are."""
    return work.recipe.labels.views if work.recipe.data.views and not live(work) else None


def view_seed(work: Work, seed: int) -> int:
    """What the views of an arm are drawn from: stored ones are the same for every seed."""
    return work.recipe.data.seed if stored_views(work) is not None else seed


def cut_rows(work: Work, way: Way) -> Portions:
    """The training rows in all their stored views, view by view, cut into shards."""
    batches, rows = _rows(work, way)
    return cut(
        batches,
        rows=rows,
        batch_size=way.batch_size,
        shard_rows=work.recipe.labels.shard_rows,
    )


def spread(work: Work, way: Way, most: int) -> list[Batch]:
    """At most so many batches of the pass, from everywhere: its rows are sorted by their length."""
    batches, rows = _rows(work, way)
    size, once = way.batch_size, rows // (stored_views(work) or 1)
    count = -(-once // size)
    chosen = {(2 * number + 1) * count // (2 * most) for number in range(most)}
    found = (batches(c * size, min((c + 1) * size, once)) for c in sorted(chosen))
    return [batch for one in found for batch in one]


def _rows(work: Work, way: Way) -> tuple[Callable[[int, int], Iterable[Batch]], int]:
    """The batches of the pass from one row to another, and how many rows it has."""
    material, count, batch_size = work.teaching, stored_views(work), way.batch_size
    positions = np.sort(material.splits.train)
    positions = positions[shortest_first(material.inputs, positions, material.pad)]
    loader = MemoryLoader(
        inputs=material.inputs,
        labels=None,
        ids=material.ids,
        positions=positions,
        batch_size=batch_size,
        views=chain_of_views(work, seed=view_seed(work, 0)) if count is not None else None,
        pad=material.pad,
        counted=material.counted,
    )

    # Our own views take a hundredth of a network's time: a second thread would only stand in the
    # way of those that compute. A transform of the user's may take as long as the teacher.
    slow = any(entry.kind == "custom" for entry in work.recipe.data.views)

    def batches(start: int, stop: int) -> Iterable[Batch]:
        rows = range(start, stop, batch_size)
        found = _batches(loader, positions, rows, stop, count)
        ready = (on(batch, way.device) for batch in found)
        return Ahead(ready) if slow else ready

    return batches, len(positions) * (count or 1)


def _batches(
    loader: MemoryLoader,
    positions: NDArray[np.int64],
    starts: range,
    stop: int,
    views: int | None,
) -> Iterator[Batch]:
    for start in starts:
        rows = np.arange(start, min(start + starts.step, stop))
        shown = None if views is None else 1 + rows // len(positions)
        yield loader.batch(positions[rows % len(positions)], shown)


def engine_for(work: Work, way: Way, portions: Portions, layers: tuple[str, ...] = ()) -> Engine:
    """Who asks the teacher: this process, or workers that load run and teacher for themselves."""
    options = work.recipe.labels
    if options.engine == "serial":
        return Serial(CheckedTeacher(way.teacher, finite=False, compare=False), portions)
    from understudy.labels.ray_engine import RayEngine

    make = Worker(
        recipe=to_yaml(work.recipe),
        place=work.place.folder.absolute(),
        run=work.folder.absolute(),
        made=way.made,
        layers=layers,
    )
    gpus = 1 if way.device == "cuda" else 0
    return RayEngine(make, workers=options.workers, gpus=gpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """What a worker in another process builds teacher and rows from: files that all can read."""

    recipe: str
    place: Path
    run: Path
    made: Mapping[str, Any]
    layers: tuple[str, ...] = ()

    def __call__(self) -> tuple[Teacher, Portions]:
        """The teacher in its backends, and the rows cut as everywhere."""
        recipe, place = loads(self.recipe, folder=self.place)
        work = Work(
            recipe=recipe,
            place=place,
            folder=self.run,
            progress=Silent(),
            crew=Crew(),
            load=load,
        )
        way = as_begun(work, self.made, self.layers)
        return CheckedTeacher(way.teacher, finite=False, compare=False), cut_rows(work, way)
