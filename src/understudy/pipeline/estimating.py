"""What labelling will take, before it is begun: bytes and time from a measured sample."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from understudy.contracts import Progress, Silent
from understudy.errors import RunError
from understudy.folders import Lock, make_folder
from understudy.labels.manifest import plan_of
from understudy.labels.portions import Order, shard_pieces
from understudy.pipeline.crew import Crew
from understudy.pipeline.distil import layers, needed
from understudy.pipeline.labelling import fingerprints, keeps, layers_in
from understudy.pipeline.passing import choose_way
from understudy.pipeline.portioning import cut_rows, live, spread, stored_views
from understudy.pipeline.prepare import load, prepare
from understudy.pipeline.student import begin
from understudy.pipeline.work import Work
from understudy.recipe import Recipe, Source
from understudy.teachers.checked import CheckedTeacher

BATCHES = 8
# Beside the shards: ids and rows of the index, 8 bytes each.
INDEX_BYTES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a sample says of the whole.

    Attributes:
        rows: all (id, view) pairs that will be stored.
        sampled: how many were asked for to know it.
        bytes: of the whole store.
        seconds: of the whole teacher pass.
        free: bytes on the disk that it would lie on; None behind a URL, where nobody can tell.
        folder: where that is, or its URL.
        copy: bytes on the disk of the run, which keeps a copy of a store behind a URL; else None.
    """

    rows: int
    sampled: int
    bytes: int
    seconds: float
    free: int | None
    folder: Path | str
    copy: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether there is room for it; None where that is not known."""
        if self.copy is not None and self.bytes > self.copy:
            return False
        return None if self.free is None else self.bytes <= self.free


def estimate(
    recipe: Recipe, place: Source, *, out: Path | None = None, progress: Progress | None = None
) -> Estimate:
    """Ask the teacher for a few batches, write them nowhere, and work out the whole.

    The stages before the labels are done where they are not; nothing of the labels is written.

    Raises:
        RunError: this recipe stores no labels.
        UnderstudyError: whatever else the user can fix.
    """
    folder = out or Path("runs") / (recipe.name or Path(place.name).stem)
    make_folder(folder)
    with Lock(folder):
        work = Work(
            recipe=recipe,
            place=place,
            folder=folder,
            progress=progress or Silent(),
            crew=Crew(),
            load=load,
        )
        prepare(work)
        loaded = begin(work)
        needs = needed(work, loaded, layers(work, loaded))
        if not needs or live(work):
            raise RunError(
                "this recipe stores no labels: its objective needs none, or the teacher is asked "
                "at every step (`labels: {use: live}`, or random `data.views` without "
                "`labels.views`)"
            )
        rows = len(work.material.splits.train) * (stored_views(work) or 1)
        keep = keeps(work, loaded, needs)
        way = choose_way(work, rows, {}, layers_in(work, keep))
        portions = cut_rows(work, way)
        order = Order(
            keep=keep,
            plan=plan_of({}, fingerprints(work, loaded), way.made, {}),
            seed=recipe.data.seed,
            on_bad_rows=recipe.labels.on_bad_rows,
        )
        teacher = CheckedTeacher(way.teacher, finite=False, compare=False)
        some = spread(work, way, BATCHES)
        started = time.monotonic()
        pieces = shard_pieces(0, order=order, teacher=teacher, batches=some)
        seconds = time.monotonic() - started
    sampled = sum(len(batch) for batch in some)
    shared = sum(part.nbytes for k in keep.values() for part in k.codec.constants.values())
    header = pieces[0].nbytes
    per_row = (sum(piece.nbytes for piece in pieces) - header) / sampled
    address = recipe.labels.store
    remote = address is not None and "://" in address
    store = folder if address is None or remote else place.resolve(address)
    existing = next(path for path in (store, *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Estimate(
        rows=rows,
        sampled=sampled,
        bytes=round(rows * (per_row + INDEX_BYTES)) + header * len(portions) + shared,
        seconds=rows / sampled * seconds,
        free=None if remote else free,
        folder=str(address) if remote else store,
        copy=free if remote else None,
    )
