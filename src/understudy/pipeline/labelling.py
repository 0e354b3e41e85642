"""Stage `labels`: ask the teacher once per row, and store what it says."""

import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from understudy.contracts import Batch, Teacher
from understudy.data.loaders import MemoryLoader
from understudy.labels.record import record
from understudy.labels.store import MANIFEST, LabelStore, read_manifest
from understudy.pipeline.teach import Loaded
from understudy.pipeline.work import Work
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.checked import CheckedTeacher


def live(work: Work) -> bool:
    """Whether the teacher is asked at every step: random views, or the recipe says so."""
    return bool(work.recipe.data.views) or work.recipe.labels.use == "live"


def label(
    work: Work, loaded: Loaded, needs: frozenset[str]
) -> tuple[Callable[[], Teacher] | None, float]:
    """Do the stage `labels` where one is needed.

    Returns:
        What gives the student's teacher when it is needed (None: no term needs one), and the
        seconds of the teacher pass.
    """
    if not needs:
        return None, 0.0
    if live(work):
        return lambda: CheckedTeacher(loaded.teacher), 0.0
    marks = {
        "teacher": str(loaded.summary["fingerprint"]),
        "data": work.data_mark,
        "views": "none",
    }
    if (work.folder / "labels" / MANIFEST).is_file():
        read_manifest(work.folder / "labels")  # one of another version is never replaced unasked
    depends = marks | {"needs": sorted(needs), "shard_rows": work.recipe.labels.shard_rows}
    summary = work.stage(
        "labels", depends, lambda folder: _record(work, loaded, needs, marks, folder)
    )

    @cache
    def cached() -> Teacher:
        store = LabelStore(work.folder / "labels", expect=marks)
        store.verify()
        return CachedTeacher(store)

    return cached, summary["seconds"]


def _record(
    work: Work, loaded: Loaded, needs: frozenset[str], marks: dict[str, str], folder: Path
) -> dict[str, Any]:
    material, options = work.material, work.recipe.labels
    positions = np.sort(material.splits.train)

    def batches(start: int) -> Iterable[Batch]:
        return MemoryLoader(
            inputs=material.inputs,
            labels=None,
            ids=material.ids,
            positions=positions[start:],
            batch_size=options.batch_size,
        )

    started = time.monotonic()
    with work.progress.track("teacher: labelling", len(positions), "rows") as tracker:
        manifest = record(
            teacher=CheckedTeacher(loaded.teacher),
            batches=batches,
            needs=needs,
            folder=folder,
            fingerprints=marks,
            shard_rows=options.shard_rows,
            on_rows=tracker,
        )
    rows = sum(shard.rows for shard in manifest.shards)
    return {"rows": rows, "seconds": time.monotonic() - started}
