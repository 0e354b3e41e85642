"""Where texts come from: files, data sets of Hugging Face, and lists."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.files import find_file
from understudy.data.rows import Rows, TaskKind
from understudy.data.text_files import Columns, read_columns
from understudy.data.texts import Asked, Empty, text_rows
from understudy.data.words import labels_of_words, sentences, word_rows
from understudy.errors import DataError, did_you_mean


def text(
    *,
    path: str,
    text: str,
    target: str | list[str] | None = None,
    pair: str | None = None,
    test_path: str | None = None,
    rename: dict[str, str] | None = None,
    task: TaskKind | None = None,
    classes: list[str] | None = None,
    delimiter: str | None = None,
    quoted: bool = True,
    encoding: str = "utf-8",
    empty: Empty = "error",
    id_column: str | None = None,
) -> Rows:
    """Rows of texts from CSV, TSV, JSON lines or Parquet. A row with an empty target is unlabelled.

    Args:
        path: the file; its ending says what it is. Its first line names the columns (not in JSON).
        text: the column of the texts.
        target: the column of the labels, or several columns of real targets. A cell that is a list
            has a label for each word of its text, which may be a list of words too.
        pair: the column of a second text, where a row is two.
        test_path: a file with the source's own test rows.
        rename: columns that have another name in one of the files, as `{there: here}`.
        task: what the labels are for, where they could be for both.
        classes: the names of the classes in the order of their numbers.
        delimiter: what separates cells; without it a comma, in `.tsv` a tab.
        quoted: whether quotation marks around a cell are no part of it.
        encoding: of the file.
        empty: what a row without a text means: `error`, or `drop` it.
        id_column: a column of whole numbers that identify rows.

    Raises:
        DataError: a file is absent, damaged or in another encoding, or its columns are not texts.
    """
    asked = Asked(
        texts=(text,) if pair is None else (text, pair),
        target=() if target is None else (target,) if isinstance(target, str) else tuple(target),
        task=task,
        classes=None if classes is None else tuple(classes),
        empty=empty,
        id_column=id_column,
    )

    def columns(file: str, option: str) -> Columns:
        place = find_file(file, option)
        found = read_columns(place, delimiter=delimiter, quoted=quoted, encoding=encoding)
        return _renamed(found, rename or {})

    test = None if test_path is None else columns(test_path, "test_path")
    return _rows(columns(path, "path"), test, asked)


def from_dataset(
    dataset: Any,
    *,
    text: str,
    target: str | None = None,
    pair: str | None = None,
    test: str | None = None,
    classes: Sequence[str] | None = None,
    empty: Empty = "error",
) -> Rows:
    """Rows of a data set of Hugging Face's library `datasets`, or of a dictionary of its splits.

    For a `kind: custom` source. Class names are those that the data set itself has.

    Args:
        dataset: a `Dataset`; of several splits `train` is taken.
        text: the column of the texts.
        target: the column of the labels.
        pair: the column of a second text.
        test: the split that is the source's own test rows.
        classes: the names of the classes, where the data set has none.
        empty: what a row without a text means.

    Raises:
        DataError: it is no data set, or its columns are not texts.
    """
    splits = dataset if isinstance(dataset, Mapping) else {"train": dataset}
    wanted = ["train"] if test is None else ["train", test]
    absent = [name for name in wanted if name not in splits]
    if absent:
        raise DataError(f"there is no split `{absent[0]}`: {did_you_mean(absent[0], splits)}")
    parts = [splits[name] for name in wanted]
    for part in parts:
        if not hasattr(part, "column_names"):
            raise DataError(
                "a data set must have columns, as `datasets.load_dataset` gives it, but got "
                f"{type(part).__name__}"
            )
    feature = (getattr(parts[0], "features", None) or {}).get(target)
    # Of words, each of which has a label, the class names are those of the inner feature.
    named = getattr(getattr(feature, "feature", feature), "names", None)
    names = classes if classes is not None else named
    asked = Asked(
        texts=(text,) if pair is None else (text, pair),
        target=() if target is None else (target,),
        classes=None if names is None else tuple(names),
        empty=empty,
    )
    read = [{name: list(part[name]) for name in part.column_names} for part in parts]
    return _rows(read[0], read[1] if len(read) > 1 else None, asked)


def from_texts(
    texts: Sequence[Any],
    labels: Sequence[Any] | NDArray[Any] | None,
    *,
    classes: Sequence[str] | None = None,
) -> Rows:
    """Rows of a list of texts, or of pairs of them, and their labels.

    Args:
        texts: strings, or pairs of them.
        labels: one per text, empty where there is none; None: no text has one.
        classes: the names of the classes in the order of their numbers.

    Raises:
        DataError: there is one label too few or too many, or something is no text.
    """
    if labels is not None and len(labels) != len(texts):
        raise DataError(
            f"every text must have a label, but got {len(texts)} texts and {len(labels)} labels: "
            "write an empty one where there is none"
        )
    paired = bool(len(texts)) and not isinstance(texts[0], str)
    columns: dict[str, Sequence[Any]] = {"text": list(texts)}
    if paired:
        columns = {"text": [a for a, _ in texts], "pair": [b for _, b in texts]}
    names = tuple(columns)
    named = None if classes is None else tuple(classes)
    target: tuple[str, ...] = ()
    if labels is not None:
        columns["label"] = np.asarray(labels).tolist()
        target = ("label",)
    return text_rows(columns, None, Asked(texts=names, target=target, classes=named))


def _rows(train: Columns, test: Columns | None, asked: Asked) -> Rows:
    """Rows with a label per text, or per word where the target holds lists or the task says so."""
    if not labels_of_words(train, asked):
        return text_rows(train, test, asked)
    return word_rows(
        sentences(train, asked),
        None if test is None else sentences(test, asked, "the test rows: "),
        classes=asked.classes,
        empty=asked.empty,
        name=asked.texts[0],
    )


def _renamed(columns: Columns, names: Mapping[str, str]) -> Columns:
    return {names.get(name, name): values for name, values in columns.items()}
