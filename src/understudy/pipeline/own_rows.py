"""Somebody's own rows of texts for `distill`: lists, `Rows` and data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from understudy.data.checks import check_rows
from understudy.data.rows import Rows
from understudy.data.text_sources import from_dataset, from_texts
from understudy.errors import DataError

# What columns of texts and labels are called where nobody says.
_TEXTS: Final = ("text", "sentence", "content", "review")
_LABELS: Final = ("label", "labels")


def are_texts(given: Any) -> bool:
    """Whether somebody's rows are texts and no loader; `Rows` are, or are refused later."""
    if isinstance(given, Rows) or hasattr(given, "column_names"):
        return True
    if isinstance(given, Mapping):
        return bool(given) and all(hasattr(part, "column_names") for part in given.values())
    if not isinstance(given, list | tuple) or not len(given):
        return False
    texts = given[0] if _labelled_pair(given) else given
    return _text(texts[0])


def _text(item: Any) -> bool:
    pair = isinstance(item, list | tuple) and len(item) == 2
    return isinstance(item, str) or (pair and all(isinstance(part, str) for part in item))


def _labelled_pair(given: Sequence[Any]) -> bool:
    """Whether it is (texts, labels), and no list of texts or of pairs of them."""
    texts = given[0]
    several = isinstance(texts, list | tuple) and len(texts) > 0 and _text(texts[0])
    # A list holds texts, or pairs of them, even where there are two.
    return isinstance(given, tuple) and len(given) == 2 and several


def own_rows(given: Any, classes: Sequence[str] | None, what: str) -> Rows:
    """The rows of one part, checked.

    Args:
        given: a list of texts, (texts, labels), `Rows` or a data set.
        classes: their names in order, where they are known.
        what: the argument that it was, for messages.

    Raises:
        DataError: they are no texts.
    """
    if isinstance(given, Rows):
        rows = given
    elif not are_texts(given):
        raise DataError(
            f"`{what}` must hold texts, as `train_loader` does, but got {type(given).__name__}: "
            "give a list of strings, or (texts, labels)"
        )
    elif isinstance(given, list | tuple):
        texts, labels = given if _labelled_pair(given) else (given, None)
        rows = from_texts(texts, labels, classes=classes)
    else:
        rows = _data_set(given, classes)
    if rows.texts is None:
        raise DataError(f"`{what}` must hold texts, but these rows are of form `{rows.form}`")
    check_rows(rows)
    return rows


def _data_set(given: Any, classes: Sequence[str] | None) -> Rows:
    """A data set with columns of the usual names; others are named in `from_dataset`."""
    first = given["train"] if isinstance(given, Mapping) and "train" in given else given
    names = list(getattr(first, "column_names", ()))
    text = next((name for name in _TEXTS if name in names), None)
    if text is None:
        raise DataError(
            f"a data set must have a column {' or '.join(_TEXTS)}, but has {', '.join(names)}: use "
            "`understudy.data.from_dataset(dataset, text=..., target=...)`"
        )
    target = next((name for name in _LABELS if name in names), None)
    test = "test" if isinstance(given, Mapping) and "test" in given else None
    return from_dataset(given, text=text, target=target, test=test, classes=classes)


def some(rows: Rows, kept: NDArray[np.bool_]) -> Rows:
    """Those rows of texts that are chosen."""
    places = np.flatnonzero(kept)
    assert rows.texts is not None
    return replace(
        rows,
        inputs=rows.inputs[places],
        labels=None if rows.labels is None else rows.labels[places],
        ids=rows.ids[places],
        texts=tuple(rows.texts[at] for at in places),
        names=None,
        test_rows=None,
    )


def settle_classes(parts: dict[str, Rows], classes: Sequence[str] | None) -> None:
    """One list of classes for all parts: of the training rows, as told, or of those that know."""
    known = parts["train"].classes or (None if classes is None else tuple(classes))
    known = known or next((p.classes for p in parts.values() if p.classes), None)
    if known is None and any(p.labels is not None for p in parts.values()):
        return  # real targets
    if known is None:
        raise DataError(
            "without any label the classes must be named: give `classes`, in the order of the "
            "teacher's answers"
        )
    for name, part in parts.items():
        if part.labels is not None and part.labelled.any() and part.classes != known:
            raise DataError(
                f"labels of all rows must be of the same classes, {', '.join(known)}, but those of "
                f"{name} are of {', '.join(part.classes or ()) or 'none'}: spell them alike, or "
                "give `classes`"
            )
        blank = not part.labelled.any()
        parts[name] = replace(part, classes=known, labels=None if blank else part.labels)
