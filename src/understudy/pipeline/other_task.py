"""Stage `transfer/rows`: rows of another task, with few labels, that the models are to be good for.

They choose nothing of the distillation, and are read before it begins, so that what does not fit
is found in time.
"""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from understudy import build
from understudy.data.checks import check_rows
from understudy.data.draws import Draws, strata_of
from understudy.data.rows import Rows
from understudy.data.splits import split
from understudy.data.texts import tokenized
from understudy.errors import DataError
from understudy.evaluate.quality import Score
from understudy.folders import read_json, write_atomic
from understudy.pipeline.prepare import run_tokenizer
from understudy.pipeline.signatures import signatures
from understudy.pipeline.work import Work
from understudy.tasks import AnyTask, Classification, Regression

Array = NDArray[Any]
ROWS, CHOSEN = "transfer/rows", "rows.safetensors"
# Streams of random numbers far from those that splits and views draw from.
_STREAM = (1 << 20) + (1 << 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherTask:
    """The other task, ready: rows that some head learns from, and those that judge it.

    Attributes:
        rows: everything raw.
        task: what is asked.
        labelled: positions, `[draws, labelled]`.
        test: positions, sorted.
    """

    rows: Rows
    task: AnyTask
    labelled: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def score(self) -> Score:
        """What heads are judged by."""
        return self.task.scores[0]


def other_rows(work: Work) -> dict[str, Any] | None:
    """Do the stage `transfer/rows`; what it says of the other task, None where there is none.

    Raises:
        DataError: the rows are not such as the models of this run take, or are too few.
    """
    section = work.recipe.transfer
    if section is None:
        return None
    depends = {
        "transfer": section.model_dump(mode="json", include={"source", "test", "labelled", "draws"})
        | {"source": section.source.model_dump(mode="json")},
        "files": signatures(section.source, work.place),
        "data": work.data_mark,
        "seed": work.recipe.data.seed,
    }
    summary: dict[str, Any] = work.stage(ROWS, depends, lambda folder: _choose(work, folder))
    work.notes.extend(summary["notes"])
    return summary


def load_other(work: Work) -> OtherTask:
    """The other task as the stage `transfer/rows` saw it."""
    summary = read_json(work.folder / ROWS / "stage.json")["summary"]
    rows, chosen = _read(work), load_file(work.folder / ROWS / CHOSEN)
    if rows.fingerprint() != summary["content"]:
        raise DataError(
            f"the other task's rows are not those that {work.folder / ROWS} was made from: a file "
            f"has changed under the run; run it again after deleting {work.folder / ROWS}"
        )
    told = summary["task"]
    task: AnyTask
    if told["classes"] is not None:
        task = Classification(classes=tuple(told["classes"]))
    else:
        task = Regression(targets=tuple(told["targets"]))
    return OtherTask(rows=rows, task=task, labelled=chosen["labelled"], test=chosen["test"])


def _read(work: Work) -> Rows:
    section = work.recipe.transfer
    assert section is not None
    rows = build.source(section.source, work.place)()
    check_rows(rows)
    if rows.texts is not None and work.material.tokens is not None:
        return tokenized(rows, run_tokenizer(work))
    return rows


def _choose(work: Work, folder: Path) -> dict[str, Any]:
    section, seed = work.recipe.transfer, work.recipe.data.seed
    assert section is not None
    work.progress.say("transfer: reading the other task's rows")
    try:
        rows = _read(work)
        _check_form(rows, work.material.rows)
        # Half of what is left is called validation, only since `split` wants some: both are drawn
        # from below.
        splits = split(rows, seed=seed, test=section.test, validation=0.5)
        pool = np.sort(np.concatenate([splits.train_labelled, splits.validation]))
        labelled = _draw(rows, pool, section.labelled, draws=section.draws, seed=seed)
    except DataError as error:
        raise DataError(f"the other task (`transfer`): {error}") from error
    write_atomic(folder / CHOSEN, save_arrays({"labelled": labelled, "test": np.sort(splits.test)}))
    known = work.material.splits
    learned = np.concatenate([known.train, known.validation])
    seen = _copies(rows, splits.test, work.material.rows, learned)
    notes = []
    if seen:
        notes.append(
            f"{seen} of {len(splits.test)} test rows of the other task are equal to rows that the "
            "student was trained on: its features are judged on rows that it knows"
        )
    task = {"name": rows.task, "classes": None if rows.classes is None else list(rows.classes)}
    return {
        "content": rows.fingerprint(),
        "task": task | {"targets": _targets(rows)},
        "rows": {
            "pool": len(pool),
            "labelled": labelled.shape[1],
            "draws": len(labelled),
            "test": len(splits.test),
            "seen": seen,
        },
        "notes": notes,
    }


def _check_form(rows: Rows, own: Rows) -> None:
    if rows.task == "token_classification":
        raise DataError("its rows must have one label each, but they have one per word")
    told = [(list(r.inputs.shape[1:]), r.inputs.dtype.name) for r in (rows, own)]
    if rows.form == own.form == "text":  # of any length, by the same tokenizer
        told = told[:1] * 2
    if told[0] != told[1] or rows.form != own.form:
        raise DataError(
            "its rows must be of the shape and type that this run's models take, but are "
            f"{told[0][0]} {told[0][1]} ({rows.form}) instead of {told[1][0]} {told[1][1]} "
            f"({own.form}): bring them to that form, for instance with `size` or in a "
            "`kind: custom` source"
        )
    codes = [tuple((c.name, c.categories) for c in r.columns or ()) for r in (rows, own)]
    coded = any(categories is not None for columns in codes for _, categories in columns)
    if coded and codes[0] != codes[1]:
        raise DataError(
            "its columns must be this run's, with the same categories, since a category is a "
            f"number to a model, but got {[name for name, _ in codes[0]]} and "
            f"{[name for name, _ in codes[1]]}: name the same `columns`"
        )
    if not rows.labelled.any():
        raise DataError("its rows have no labels: name the column or the array that holds them")


def _draw(
    rows: Rows, pool: NDArray[np.int64], labelled: float | int, *, draws: int, seed: int
) -> NDArray[np.int64]:
    """Positions of the few labelled rows, `[draws, labelled]`, class by class."""
    count = round(labelled * len(pool)) if isinstance(labelled, float) else labelled
    least = 3 if rows.classes is None else 2 * len(rows.classes)
    if not least <= count < len(pool):
        raise DataError(
            f"`labelled: {labelled}` must leave rows to draw from and give a head enough "
            f"({least}: two per class, or three), but takes {count} of the {len(pool)} labelled "
            f"rows that are not test rows: choose from {least} to {len(pool) - 1}"
        )
    hashes, strata = Draws(ids=rows.ids, seed=seed), strata_of(rows)
    fewest = 0 if rows.classes is None else 2
    taken = [
        hashes.take(pool, strata, count, _STREAM + number, at_least=fewest)
        for number in range(draws)
    ]
    return np.stack(taken)


def _copies(rows: Rows, test: NDArray[np.int64], own: Rows, learned: NDArray[np.int64]) -> int:
    """How many test rows are also among those that were learned from, byte for byte."""
    if rows.texts is not None and own.texts is not None:
        told = {own.texts[at] for at in learned}
        return sum(rows.texts[at] in told for at in test)
    keys = {_key(row) for row in own.inputs[learned]}
    return sum(_key(row) in keys for row in rows.inputs[test])


def _key(row: Array) -> bytes:
    return blake2b(np.ascontiguousarray(row).data, digest_size=16).digest()


def _targets(rows: Rows) -> list[str] | None:
    if rows.classes is not None or rows.labels is None:
        return None
    return list(rows.targets or (f"target {i + 1}" for i in range(rows.labels.shape[1])))
