"""Stage `labels`: ask the teacher once per row and view, and store what it says."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy import build
from understudy.contracts import Batch, Silent, Teacher
from understudy.data.lengths import shortest_first
from understudy.data.loaders import MemoryLoader
from understudy.data.prefetch import Ahead
from understudy.folders import fingerprint
from understudy.labels.manifest import MANIFEST, read_manifest
from understudy.labels.place import LocalPlace, Place, manifest_at
from understudy.labels.portions import Keep, Portions, cut
from understudy.labels.record import Engine, Serial, record
from understudy.labels.store import LabelStore
from understudy.pipeline.crew import Crew
from understudy.pipeline.earlier import SPENT, Spent, take_over
from understudy.pipeline.language import codec_of, told_by
from understudy.pipeline.passing import Way, as_begun, choose_way, on
from understudy.pipeline.prepare import chain_of_views, load, view_marks
from understudy.pipeline.shared_store import shared_store
from understudy.pipeline.teach import Loaded
from understudy.pipeline.work import Work
from understudy.recipe import Entry, loads, to_yaml
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.checked import CheckedTeacher


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """What the stage came to.

    Attributes:
        teacher: gives the student's teacher when it is needed; None where no term needs one.
        seconds: that this run has spent on the teacher pass, earlier sessions included.
        plan: the store's, a fingerprint of all that its content is a function of.
        left_out: ids that the store does not hold, since the teacher's answer was not finite.
    """

    teacher: Callable[[], Teacher] | None = None
    seconds: float = 0.0
    plan: str = ""
    left_out: tuple[int, ...] = ()


def live(work: Work) -> bool:
    """Whether the teacher is asked at every step: as told, or for views that nobody counted."""
    options = work.recipe.labels
    return options.use == "live" or (bool(work.recipe.data.views) and options.views is None)


def stored_views(work: Work) -> int | None:
    """How many views of each row are stored; None where rows are stored as they are."""
    return work.recipe.labels.views if work.recipe.data.views and not live(work) else None


def view_seed(work: Work, seed: int) -> int:
    """What the views of an arm are drawn from: stored ones are the same for every seed."""
    return work.recipe.data.seed if stored_views(work) is not None else seed


def label(work: Work, loaded: Loaded, needs: frozenset[str]) -> Labelled:
    """Do the stage `labels` where one is needed."""
    if not needs:
        return Labelled()
    if live(work):
        return Labelled(teacher=lambda: CheckedTeacher(loaded.reading(needs)))
    marks = fingerprints(work, loaded)
    options = work.recipe.labels
    keep = keeps(work, needs)
    codecs = {name: [kept.codec.kind, dict(kept.codec.parameters)] for name, kept in keep.items()}
    mark = fingerprint([options.store, marks, codecs])
    if options.store is not None:
        spent = Spent(work.folder / SPENT, mark)
        folder = shared_store(
            work, keep, marks, lambda place: _write(work, keep, marks, place, spent)
        )
        summary = _summary(work, LabelStore(folder, expect=marks), spent.seconds)
    else:
        spent = Spent(work.folder / ".work" / SPENT, mark)
        folder = work.folder / "labels"
        if (folder / MANIFEST).is_file():
            read_manifest(folder)  # one of another version is never replaced unasked
        depends = marks | {
            "needs": sorted(needs),
            "labels": options.model_dump(mode="json", exclude={"engine", "workers", "memory_gb"}),
        }
        summary = work.stage(
            "labels", depends, lambda built: _record(work, keep, marks, built, spent)
        )
    if summary["left_out"]:
        work.notes.append(
            f"{len(summary['left_out'])} training rows were left out because the teacher's answer "
            "to them was not finite"
        )

    @cache
    def cached() -> Teacher:
        store = LabelStore(folder, expect=marks)
        store.verify()
        return CachedTeacher(store)

    return Labelled(
        teacher=cached,
        seconds=summary["seconds"],
        plan=summary["plan"],
        left_out=tuple(summary["left_out"]),
    )


def fingerprints(work: Work, loaded: Loaded) -> dict[str, str]:
    """What the labels of this run are a function of."""
    count = stored_views(work)
    views: Any = "none"
    if count is not None:
        chain = chain_of_views(work, seed=view_seed(work, 0))
        views = fingerprint([view_marks(work), chain.describe(), count])
    return {
        "teacher": str(loaded.summary["fingerprint"]),
        "data": work.data_mark,
        "preprocess": fingerprint(work.facts["preprocess"]),
        "views": views,
        "tokenizer": work.facts.get("tokens", {}).get("fingerprint", "none"),
    }


def _record(
    work: Work, keep: Mapping[str, Keep], marks: Mapping[str, str], folder: Path, spent: Spent
) -> dict[str, Any]:
    take_over(work, folder, spent)
    _write(work, keep, marks, LocalPlace(folder), spent)
    return _summary(work, LabelStore(folder), spent.seconds)


def _write(
    work: Work,
    keep: Mapping[str, Keep],
    marks: Mapping[str, str],
    place: Place,
    spent: Spent,
) -> None:
    """Ask and store."""
    count = len(work.material.splits.train) * (stored_views(work) or 1)
    begun = _begun(place, marks)
    inside = layers_in(work, keep)
    way = choose_way(work, count, begun, inside)
    portions = cut_rows(work, way)
    engine = engine_for(work, way, portions, inside)
    with (
        spent.session(anew=not begun) as now,
        work.progress.track("teacher: labelling", sum(portions.rows), "rows") as tracker,
    ):

        def on_rows(done: int) -> None:
            tracker(done)
            now()

        record(
            engine=engine,
            rows=portions.rows,
            keep=keep,
            place=place,
            fingerprints=marks,
            made=way.made,
            seed=work.recipe.data.seed,
            on_bad_rows=work.recipe.labels.on_bad_rows,
            on_rows=on_rows,
        )


def layers_in(work: Work, keep: Mapping[str, Keep]) -> tuple[str, ...]:
    """What of the kept knowledge lies inside the teacher."""
    return tuple(sorted(set(keep) - {work.task.output}))


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


def _begun(place: Place, marks: Mapping[str, str]) -> Mapping[str, Any]:
    """How an unfinished store of the same labels was begun: whoever goes on does as it did."""
    manifest = manifest_at(place)
    same = manifest is not None and dict(manifest.fingerprints) == dict(marks)
    return manifest.made if manifest is not None and same else {}


def _summary(work: Work, store: LabelStore, seconds: float) -> dict[str, Any]:
    left_out: list[int] = []
    if store.manifest.skipped:
        there = store.ids()
        ids = work.material.rows.ids[np.sort(work.material.splits.train)]
        left_out = ids[~np.isin(ids, there)].tolist()
    return {
        "rows": len(store),
        "bytes": store.manifest.bytes,
        "made": dict(store.manifest.made),
        "plan": store.manifest.plan,
        "seconds": seconds,
        "left_out": left_out,
    }


def keeps(work: Work, needs: frozenset[str]) -> dict[str, Keep]:
    """What of the teacher's knowledge is stored, and how: its answer as told, the rest whole."""
    inside = Entry.model_validate({"kind": "dense", "precision": work.recipe.labels.features})
    whole = build.codec(inside)
    own = codec_of(work.recipe)
    own.check((work.task.width,))
    answers = {work.task.output, told_by(work.recipe, live=False)}
    return {
        name: Keep(codec=own if name in answers else whole, reads=name) for name in sorted(needs)
    }


def cut_rows(work: Work, way: Way) -> Portions:
    """The training rows in all their stored views, view by view, cut into shards."""
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

    return cut(
        batches,
        rows=len(positions) * (count or 1),
        batch_size=batch_size,
        shard_rows=work.recipe.labels.shard_rows,
    )


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
