"""From whatever a source has as labels to class numbers or real targets.

Classes are settled on the training rows alone; a test label outside them is an error, since it is
usually a spelling that differs between two files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import TaskKind
from understudy.data.wording import count_rows, examples, quoted, rows_at
from understudy.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labels:
    """Labels as `Rows` has them, and the names of the classes (None: regression)."""

    values: NDArray[Any]
    classes: tuple[str, ...] | None


def encode_labels(
    values: NDArray[Any],
    *,
    task: TaskKind | None = None,
    classes: Sequence[str] | None = None,
    what: str = "labels",
) -> Labels:
    """Labels of training rows: class numbers int64 `[rows]`, or targets float32 `[rows, targets]`.

    Texts are class names, empty ones unlabelled. Whole numbers are class numbers when they are
    exactly 0 to k - 1 or when `classes` names them; -1 and NaN are unlabelled.

    Args:
        values: numbers or texts, `[rows]` or `[rows, targets]`.
        task: what they are for; found out where that is certain.
        classes: the names of all classes in order.
        what: what to call them in a message.

    Raises:
        DataError: they fit neither task, or could be for both.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if (task or found_task(values, classes, what)) == "regression":
        return Labels(values=_targets(values, what), classes=None)
    values = _one_per_row(values, what)
    if _is_text(values):
        texts = _texts(values)
        known = tuple(classes) if classes is not None else _sorted_names(texts)
        return Labels(values=_numbers_of(texts, known, what), classes=known)
    numbers = _whole(values, what)
    known = tuple(classes) if classes is not None else _counted(numbers, what)
    return Labels(values=_numbered(numbers, known, what), classes=known)


def encode_more(values: NDArray[Any], like: Labels, *, what: str) -> NDArray[Any]:
    """Labels of test rows, in the classes of the training rows.

    Raises:
        DataError: a class is not among them, or the values are of another kind.
    """
    task: TaskKind = "regression" if like.classes is None else "classification"
    return encode_labels(values, task=task, classes=like.classes, what=what).values


def found_task(values: NDArray[Any], classes: Sequence[str] | None, what: str) -> TaskKind:
    """The task that labels must be for.

    Raises:
        DataError: whole numbers that may be classes or quantities.
    """
    if classes is not None or values.dtype.kind in "USOb":
        return "classification"
    if values.dtype.kind not in "iuf":
        raise DataError(f"{what} must be numbers or texts, but got an array of {values.dtype}")
    numbers = values[np.isfinite(values)]
    whole = values.ndim == 1 and bool(np.all(numbers == np.round(numbers)))
    known = np.unique(numbers[numbers >= 0])
    counted = len(known) > 1 and np.array_equal(known, np.arange(len(known)))
    if not whole or (values.dtype.kind == "f" and not counted):
        return "regression"
    if counted and values.dtype.kind != "f":
        return "classification"
    raise DataError(
        f"{what} are whole numbers ({examples(known.tolist())}), which may be classes or "
        "quantities: say `task: classification` or `task: regression`"
    )


def _is_text(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "USO"


def _targets(values: NDArray[Any], what: str) -> NDArray[np.float32]:
    if _is_text(values) or values.dtype.kind not in "biuf":
        shown = quoted(value for value in values.ravel()[:6])
        raise DataError(f"{what} of a regression must be numbers, but got {shown}")
    if values.ndim > 2:
        raise DataError(
            f"{what} of a regression must be [rows] or [rows, targets], but got shape "
            f"{list(values.shape)}"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is reported by `check_rows`
        return np.asarray(values.reshape(len(values), -1), np.float32)


def _one_per_row(values: NDArray[Any], what: str) -> NDArray[Any]:
    if values.ndim != 1:
        raise DataError(
            f"{what} of a classification must be one class per row, [rows], but got shape "
            f"{list(values.shape)}: turn one-hot rows into class numbers with `argmax(axis=1)`"
        )
    return values


def _texts(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    return ["" if value is None else str(value).strip() for value in values.tolist()]


def _sorted_names(texts: Sequence[str]) -> tuple[str, ...]:
    names = set(texts) - {""}
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _numbers_of(texts: Sequence[str], classes: Sequence[str], what: str) -> NDArray[np.int64]:
    number = {name: position for position, name in enumerate(classes)}
    number[""] = -1
    unknown = [at for at, text in enumerate(texts) if text not in number]
    if unknown:
        names = sorted({texts[at] for at in unknown})
        raise DataError(
            f"{what} must be among the {len(classes)} classes ({quoted(classes)}), but "
            f"{count_rows(len(unknown))} hold others: {quoted(names)} ({rows_at(unknown)}): "
            "correct them, or name all classes in `classes`"
        )
    return np.array([number[text] for text in texts], np.int64)


def _whole(values: NDArray[Any], what: str) -> NDArray[np.int64]:
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)  # unlabelled
        bad = ~np.isfinite(values) | (values != np.round(values))
        odd = values[bad]
        if len(odd):
            raise DataError(
                f"{what} of a classification must be whole numbers, but "
                f"{count_rows(len(odd))} hold others: {examples(odd.tolist())} "
                f"({_rows(bad)}); for real numbers say `task: regression`"
            )
    elif values.dtype.kind not in "biu":
        raise DataError(f"{what} must be whole numbers or texts, but got {values.dtype}")
    numbers = np.asarray(values, np.int64)
    if (numbers < -1).any():
        raise DataError(
            f"{what} must be class numbers from 0 on, or -1 for an unlabelled row, but "
            f"{count_rows(int((numbers < -1).sum()))} hold others: "
            f"{examples(np.unique(numbers[numbers < -1]).tolist())} ({_rows(numbers < -1)})"
        )
    return numbers


def _counted(numbers: NDArray[np.int64], what: str) -> tuple[str, ...]:
    known = np.unique(numbers[numbers >= 0])
    if not np.array_equal(known, np.arange(len(known))):
        few = [str(value) for value in known[:20].tolist()]
        raise DataError(
            f"{what} without `classes` must be class numbers 0 to k - 1 with none left out, but "
            f"got {len(known)} different ones: {examples(known.tolist())}; name all classes in "
            f"order, `classes: {few}`" + (" and so on" if len(known) > len(few) else "")
        )
    return tuple(str(number) for number in range(len(known)))


def _numbered(numbers: NDArray[np.int64], classes: Sequence[str], what: str) -> NDArray[np.int64]:
    # A number that is itself the name of a class stands for that class, else for its position.
    known = np.unique(numbers[numbers >= 0])
    position = {name: place for place, name in enumerate(classes)}
    if all(str(value) in position for value in known.tolist()):
        places = np.array([position[str(value)] for value in known.tolist()], np.int64)
        found = np.searchsorted(known, np.maximum(numbers, 0)).clip(max=max(len(known) - 1, 0))
        return np.where(numbers < 0, -1, places[found]) if len(known) else numbers
    over = known[known >= len(classes)]
    if len(over):
        raise DataError(
            f"{what} must be 0 to {len(classes) - 1}, one number per class of "
            f"{quoted(classes)}, but {count_rows(int((numbers >= len(classes)).sum()))} hold "
            f"others: {examples(over.tolist())} ({_rows(numbers >= len(classes))}): correct them, "
            "or name all classes in `classes`"
        )
    return numbers


def _rows(bad: NDArray[np.bool_]) -> str:
    return rows_at(np.flatnonzero(bad).tolist())
