"""Which rows train, which choose, which judge: a function of (seed, row ids) alone.

Rows are drawn by a hash of seed and id, class by class, so a split is the same on every machine
and in every version of NumPy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.data.draws import Draws, strata_of
from understudy.data.overlap import Overlap, without_copies
from understudy.data.rows import Rows
from understudy.data.wording import count_rows, examples, quoted, raise_problems
from understudy.errors import DataError, MissingExtraError
from understudy.folders import write_atomic

Share = float | int

# Streams of random numbers far from those that views draw from.
_TEST, _LIMIT, _VALIDATION, _LABELLED = range(1 << 20, (1 << 20) + 4)
_FORMAT = "understudy splits 1"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Splits:
    """Positions of rows, each int64, sorted, without a row in common.

    Attributes:
        train: rows to learn from.
        validation: rows to choose by, all labelled where any row is.
        test: rows to judge by, once.
        labelled: bool, one per row of `train`: whether its label may be used.
        dropped: how many rows were left out of training as copies of test rows.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    dropped: int = 0

    @property
    def train_labelled(self) -> NDArray[np.int64]:
        """The rows of `train` whose label may be used: all that a control sees."""
        return self.train[self.labelled]

    def visible(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A copy of all labels, with those that training may not use made unlabelled."""
        shown = labels.copy()
        shown[self.train[~self.labelled]] = np.nan if labels.dtype.kind == "f" else -1
        return shown

    def save(self, path: Path) -> None:
        """Write them as safetensors, atomically.

        Raises:
            MissingExtraError: safetensors is not installed.
            RunError: the file cannot be written.
        """
        save = _safetensors().save
        tensors = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "labelled": self.labelled,
            "dropped": np.array([self.dropped], np.int64),
        }
        whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        write_atomic(path, save(whole, metadata={"format": _FORMAT}))

    @classmethod
    def load(cls, path: Path) -> "Splits":
        """Read what `save` wrote.

        Raises:
            DataError: the file is absent, damaged, or holds no splits.
            MissingExtraError: safetensors is not installed.
        """
        load_file = _safetensors().load_file
        try:
            tensors = load_file(path)
        except Exception as error:  # safetensors raises an error class of its own
            raise DataError(f"{path} cannot be read as splits ({error}): split anew") from error
        wanted = {"train", "validation", "test", "labelled", "dropped"}
        if set(tensors) != wanted:
            raise DataError(
                f"splits must hold {', '.join(sorted(wanted))}, but {path} holds "
                f"{', '.join(sorted(tensors)) or 'nothing'}: split anew"
            )
        _verify(tensors, path)
        return cls(
            train=tensors["train"],
            validation=tensors["validation"],
            test=tensors["test"],
            labelled=tensors["labelled"],
            dropped=int(tensors["dropped"].sum()),
        )


def split(
    rows: Rows,
    *,
    seed: int,
    test: Share | Literal["given"],
    validation: Share,
    rows_limit: int | None = None,
    labelled: Share | None = None,
    overlap: Overlap = "drop",
) -> Splits:
    """Split rows class by class; a regression by tenths of its first target.

    Validation and test rows are labelled ones, where there are any to take them from. Each class
    gets its exact share of every split, rounded up or down.

    Args:
        rows: all of them.
        seed: of the draw.
        test: a share of the labelled rows, a number of them, or the source's own test rows.
        validation: a share or number of the labelled rows that are left.
        rows_limit: at most so many rows for training and validation together.
        labelled: the share or number of training rows that keep their label, at least one per
            class, or 0; the others are used unlabelled.
        overlap: what a training row that is a copy of a test row means: `drop` leaves it out of
            training, `error` refuses it. Test rows drawn here are compared where rows are images
            or texts or `error` was said, since equal rows of a table are ordinary.

    Raises:
        DataError: a number is out of reach, ids are doubled, a class is missing from a split, or
            copies are found that may not be.
    """
    _check_ids(rows)
    drawn = np.ones(len(rows), np.bool_) if rows.spare is None else ~rows.spare
    known = rows.labelled if rows.labelled.any() else drawn
    strata = strata_of(rows)
    draws = Draws(ids=rows.ids, seed=seed)
    if test == "given":
        chosen = _given_test(rows)
    else:
        _check_none_given(rows, test)
        pool = np.flatnonzero(known)
        chosen = draws.take(pool, strata, _count(test, len(pool), "test"), _TEST)
    rest = np.setdiff1d(np.arange(len(rows)), chosen)
    dropped = 0
    if test == "given" or rows.form in ("image", "text") or overlap == "error":
        kept = without_copies(rows, rest, chosen, overlap=overlap)
        rest, dropped = kept, len(rest) - len(kept)
    if rows_limit is not None:
        if rows_limit < 2:
            raise DataError(f"`rows` must be at least 2, but got {rows_limit}")
        rest = draws.take(rest, strata, min(rows_limit, len(rest)), _LIMIT)
    pool = rest[known[rest]] if known[rest].any() else rest[drawn[rest]]
    held = draws.take(pool, strata, _count(validation, len(pool), "validation"), _VALIDATION)
    train = np.setdiff1d(rest, held)
    splits = Splits(
        train=train,
        validation=held,
        test=chosen,
        labelled=_keep_labels(train, rows, strata, labelled, draws),
        dropped=dropped,
    )
    _check_classes(rows, splits)
    return splits


def _count(share: Share, total: int, name: str) -> int:
    if isinstance(share, bool) or share <= 0 or (isinstance(share, float) and share >= 1):
        raise DataError(
            f"`{name}` must be a share between 0 and 1 or a number of rows, but got {share}"
        )
    count = round(share * total) if isinstance(share, float) else share
    if not 0 < count < total:
        raise DataError(
            f"`{name}: {share}` must leave rows on both sides, but takes {count} of "
            f"{count_rows(total)} that there are to take from"
        )
    return count


def _given_test(rows: Rows) -> NDArray[np.int64]:
    if rows.test_rows is None or not rows.test_rows.any():
        raise DataError(
            "`test: given` needs a source with test rows of its own, but this one declares none: "
            "give the source its test file, or a share such as `test: 0.2`"
        )
    chosen = np.flatnonzero(rows.test_rows)
    if len(chosen) == len(rows):
        raise DataError("`test: given` must leave rows to train on, but every row is a test row")
    unlabelled = chosen[~rows.labelled[chosen]]
    if rows.labelled.any() and len(unlabelled):
        raise DataError(
            f"every test row must have a label, but {len(unlabelled)} of {len(chosen)} have none "
            f"(ids {examples(rows.ids[unlabelled][:6].tolist())}): label or remove them, or draw "
            "test rows from the others with a share such as `test: 0.2`"
        )
    return chosen


def _check_none_given(rows: Rows, test: Share) -> None:
    if rows.test_rows is not None and rows.test_rows.any():
        raise DataError(
            f"the source declares {count_rows(int(rows.test_rows.sum()))} as test, but `test: "
            f"{test}` would draw others and train on these: say `test: given`, or give the source "
            "no test file"
        )


def _keep_labels(
    train: NDArray[np.int64],
    rows: Rows,
    strata: NDArray[np.int64],
    labelled: Share | None,
    draws: Draws,
) -> NDArray[np.bool_]:
    mask = rows.labelled[train]
    if labelled == 0 and isinstance(labelled, int):
        return np.zeros_like(mask)
    if labelled is None or (isinstance(labelled, float) and labelled == 1.0):
        return mask
    pool = train[mask]
    if isinstance(labelled, int) and labelled >= len(pool):
        return mask
    count = _count(labelled, len(pool), "labelled")
    groups = len(np.unique(strata[pool])) if rows.classes is not None else 0
    if count < groups:
        raise DataError(
            f"`labelled: {labelled}` must keep at least one label per class, but keeps {count} for "
            f"{groups} classes: keep {groups} or more"
        )
    kept = draws.take(pool, strata, count, _LABELLED, at_least=1 if groups else 0)
    return np.isin(train, kept)


def _check_ids(rows: Rows) -> None:
    known, counts = np.unique(rows.ids, return_counts=True)
    if len(known) < len(rows):
        raise DataError(
            "ids must be unique, or a row could be in training and test at once, but "
            f"{int((counts > 1).sum())} stand for several rows "
            f"({examples(known[counts > 1][:6].tolist())}): number the rows anew"
        )


def _check_classes(rows: Rows, splits: Splits) -> None:
    if rows.classes is None or rows.labels is None or not rows.labelled.any():
        return
    parts = {"train": splits.train_labelled, "validation": splits.validation, "test": splits.test}
    if rows.labels.ndim > 1:  # of words, among which a rare class may be in few texts
        parts = {"train": splits.train_labelled}
    problems = []
    for name, positions in parts.items():
        if not rows.labelled[positions].any():
            continue  # rows of which none has a label are in no class
        known = rows.labels[positions]
        there = np.bincount(known[known >= 0], minlength=len(rows.classes))
        absent = [rows.classes[number] for number in np.flatnonzero(there == 0)]
        if absent:
            problems.append(
                f"{name} ({count_rows(len(positions))}) has no row of class {quoted(absent)}"
            )
    raise_problems(
        "every class must have rows in every split; take larger splits (`test`, `validation`, "
        "`rows`, `labelled`), add rows of these classes, or remove the classes",
        problems,
    )


def _verify(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    parts = [tensors[name] for name in ("train", "validation", "test")]
    every = np.concatenate(parts)
    labelled, law = tensors["labelled"], ""
    if any(part.dtype != np.int64 or part.ndim != 1 for part in parts):
        law = "every split must be int64 positions"
    elif len(np.unique(every)) < len(every) or (every < 0).any():
        law = "no row may be in two splits"
    elif labelled.dtype != np.bool_ or labelled.shape != parts[0].shape:
        law = "`labelled` must have one entry per training row"
    if law:
        raise DataError(f"{law}, but in {path} that does not hold: split anew")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "train") from error
    return safetensors.numpy
