"""Rows of texts with a label for every word.

Words are what white space separates, here and where a finished model is asked. Labels are class
names or numbers; None or an empty one is a word without a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.data.rows import Column, Rows, with_test
from understudy.data.text_files import Columns
from understudy.data.texts import Asked, Empty, digests
from understudy.data.wording import count_rows, examples, quoted
from understudy.deployed.texts import refuse_surrogates
from understudy.errors import DataError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A text as words, and as many labels; no labels at all where it is unlabelled.

    Attributes:
        words: without white space in them.
        labels: class names, or numbers of named classes.
        source: where it stands, for errors.
    """

    words: tuple[str, ...]
    labels: tuple[Any, ...] = ()
    source: str = ""


def sentence(text: Any, labels: Any, source: str) -> Sentence:
    """One row of a file: a text or its words, and a label for each or none.

    Raises:
        DataError: the text is none, a word has white space in it, or labels are no list.
    """
    if isinstance(text, str):
        words = tuple(text.split())
    elif isinstance(text, (list, tuple)) and all(isinstance(word, str) for word in text):
        words = tuple(text)
        torn = [word for word in words if len(word.split()) != 1]
        if torn:
            raise DataError(
                f"{source}: words must be what white space separates, but got {quoted(torn)}: "
                "split or join them as a text has them, or leave empty ones out with their labels"
            )
    else:
        raise DataError(
            f"{source}: a text must be a text, or a list of its words, but got "
            f"{type(text).__name__}"
        )
    if isinstance(labels, str):
        labels = labels.split()
    if labels is not None and not isinstance(labels, (list, tuple)):
        raise DataError(
            f"{source}: the labels of words must be a list, or a text that white space separates, "
            f"but got {type(labels).__name__}"
        )
    return Sentence(words=words, labels=tuple(labels or ()), source=source)


def labels_of_words(columns: Columns, asked: Asked) -> bool:
    """Whether a file's target has a label for each word: its cells are lists, or the task is."""
    if len(asked.target) != 1 or len(asked.texts) != 1:
        return False
    cells = columns.get(asked.target[0], ())
    return asked.task == "token_classification" or any(isinstance(c, (list, tuple)) for c in cells)


def sentences(columns: Columns, asked: Asked, where: str = "") -> list[Sentence]:
    """A file's columns as sentences.

    Raises:
        DataError: a column is not there, or a cell holds something else.
    """
    (text,), (target,) = asked.texts, asked.target
    absent = [name for name in (text, target) if name not in columns]
    if absent:
        raise DataError(
            f"{where}column `{absent[0]}` is not there: {did_you_mean(absent[0], columns)}"
        )
    cells = zip(columns[text], columns[target], strict=True)
    return [
        sentence("" if words is None else words, labels, f"{where}row {at}")
        for at, (words, labels) in enumerate(cells, start=1)
    ]


def word_rows(
    train: Sequence[Sentence],
    test: Sequence[Sentence] | None = None,
    *,
    classes: Sequence[str] | None = None,
    empty: Empty = "error",
    name: str = "text",
) -> Rows:
    """Rows of sentences; classes are settled on the training rows.

    Args:
        train: the training rows.
        test: the source's own test rows.
        classes: the names of the classes in the order of their numbers; else sorted.
        empty: what a text without words means: `error`, or `drop` it.
        name: what the texts are called.

    Raises:
        DataError: texts are empty, have more or fewer labels than words, classes that are not known
            or spelled two ways, or no label at all.

    Example:
        >>> rows = word_rows([sentence("Ann left", ["PER", "O"], "row 1")])
        >>> rows.classes, rows.labels.tolist()
        (('O', 'PER'), [[1, 0]])
    """
    parts = [train] if test is None else [train, test]
    for part, where in zip(parts, ("", "the test rows: "), strict=False):
        _check(part, where, empty)
    names = tuple(classes) if classes is not None else _names(train)
    most = max((len(row.words) for part in parts for row in part), default=0)
    made, first = [], 0
    for part in parts:
        made.append(_rows(part, names, most, first, name))
        first += len(part)
    return made[0] if test is None else with_test(made[0], made[1])


def _check(part: Sequence[Sentence], where: str, empty: Empty) -> None:
    bare = [row.source for row in part if not row.words]
    if bare and empty == "error":
        raise DataError(
            f"{where}every row must have a text, but {count_rows(len(bare))} have none "
            f"({examples(bare)}): say `empty: drop` to leave them out"
        )
    odd = [row for row in part if row.labels and len(row.labels) != len(row.words)]
    if odd:
        shown = (f"{row.source}: {len(row.words)} words, {len(row.labels)} labels" for row in odd)
        raise DataError(
            f"{where}every word must have a label, but {count_rows(len(odd))} have more or fewer "
            f"({examples(shown)}): words are what white space separates; write an empty label "
            "where there is none"
        )
    refuse_surrogates([" ".join(row.words) for row in part], f"{where}row")


def _names(part: Sequence[Sentence]) -> tuple[str, ...]:
    found = {label for row in part for label in row.labels if not _none(label)}
    if not found:
        raise DataError("words must have labels to learn from, but no training row has any")
    numbers = [label for label in found if not isinstance(label, str)]
    if numbers:
        raise DataError(
            f"labels of words must be class names, but got {examples(sorted(map(str, numbers)))}: "
            "name all classes in the order of their numbers, `classes: [...]`"
        )
    alike: dict[str, list[str]] = {}
    for label in sorted(map(str, found)):
        alike.setdefault(label.casefold(), []).append(label)
    doubled = [names for names in alike.values() if len(names) > 1]
    if doubled:
        shown = " and ".join(
            f"`{name}` ({examples(row.source for row in part if name in row.labels)})"
            for name in doubled[0]
        )
        raise DataError(
            f"every class must be spelled one way, but words have {shown}: correct the file, or "
            "name all classes in `classes` if these are two"
        )
    return tuple(sorted(map(str, found)))


def _rows(
    part: Sequence[Sentence], classes: tuple[str, ...], most: int, first: int, name: str
) -> Rows:
    kept = [(first + at, row) for at, row in enumerate(part) if row.words]
    number: dict[Any, int] = {known: at for at, known in enumerate(classes)}
    number |= {at: at for at in range(len(classes))}
    labels = np.full((len(kept), max(most, 1)), -1, np.int64)
    unknown: dict[str, str] = {}
    for line, (_, row) in zip(labels, kept, strict=True):
        for at, label in enumerate(row.labels):
            if _none(label):
                continue
            if label not in number or isinstance(label, bool):
                unknown.setdefault(str(label), row.source)
                continue
            line[at] = number[label]
    if unknown:
        shown = (f"`{label}` ({source})" for label, source in sorted(unknown.items()))
        raise DataError(
            f"labels of words must be among the {len(classes)} classes of the training rows "
            f"({quoted(classes)}), but there are others: {examples(shown)}: correct them, or name "
            "all in `classes`"
        )
    texts = tuple((" ".join(row.words),) for _, row in kept)
    return Rows(
        inputs=digests(texts),
        labels=labels,
        ids=np.array([at for at, _ in kept], np.int64),
        form="text",
        classes=classes,
        columns=(Column(name=name),),
        texts=texts,
        skipped=len(part) - len(kept),
    )


def _none(label: Any) -> bool:
    return label is None or label == "" or (isinstance(label, int) and label == -1)
