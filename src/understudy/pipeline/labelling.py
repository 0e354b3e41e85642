"""Stage `labels`: ask the teacher once per row and view, and store what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from understudy import build
from understudy.contracts import STATES, Teacher
from understudy.folders import fingerprint
from understudy.labels.manifest import MANIFEST, read_manifest
from understudy.labels.place import LocalPlace, Place, manifest_at
from understudy.labels.portions import Keep
from understudy.labels.record import record
from understudy.labels.store import LabelStore
from understudy.pipeline.earlier import SPENT, Spent, take_over
from understudy.pipeline.language import codec_of, with_head
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.passing import choose_way
from understudy.pipeline.portioning import cut_rows, engine_for, live, stored_views, view_seed
from understudy.pipeline.prepare import chain_of_views, view_marks
from understudy.pipeline.shared_store import shared_store
from understudy.pipeline.work import Work
from understudy.recipe import Entry
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


def label(work: Work, loaded: Loaded, needs: frozenset[str]) -> Labelled:
    """Do the stage `labels` where one is needed."""
    if not needs:
        return Labelled()
    if live(work):
        return Labelled(teacher=lambda: CheckedTeacher(loaded.reading(needs)))
    marks = fingerprints(work, loaded)
    options = work.recipe.labels
    keep = keeps(work, loaded, needs)
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
        store = LabelStore(folder, expect=marks, states=True)
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


def keeps(work: Work, loaded: Loaded, needs: frozenset[str]) -> dict[str, Keep]:
    """What of the teacher's knowledge is stored, and how: its answer as told, the rest whole."""
    if STATES in needs:
        # The field is what any reader gets of it, the logits.
        return {work.task.output: Keep(codec=with_head(work, loaded.module), reads=STATES)}
    inside = Entry.model_validate({"kind": "dense", "precision": work.recipe.labels.features})
    whole = build.codec(inside)
    own = codec_of(work.recipe)
    own.check((work.task.width,))
    return {
        name: Keep(codec=own if name == work.task.output else whole, reads=name)
        for name in sorted(needs)
    }
