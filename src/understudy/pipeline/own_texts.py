"""Texts for `distill`: strings, `Rows` or data sets in, and from there on rows of token ids."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy import build
from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.data.rows import Rows
from understudy.data.texts import tokenized
from understudy.data.tokens import TokenFacts
from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError, ModelError
from understudy.models.deployable import Rescale
from understudy.pipeline.own_loaders import Loader
from understudy.pipeline.own_rows import own_rows, settle_classes, some
from understudy.pipeline.own_teachers import folder_of, text_teacher
from understudy.pipeline.own_tokenizers import own_tokenizer
from understudy.recipe import Entry, Source
from understudy.tasks import AnyTask, Classification, Regression


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTexts:
    """What `distill` goes on with where its rows are texts.

    Attributes:
        teacher: a module of the same tokens, or a teacher of texts.
        make_student: a factory, or a module; None where it was given as one already.
        train: batches of token ids.
        validation: likewise.
        test: likewise.
        task: what is asked.
        example: a few rows of token ids.
        tokenizer: of the student.
        labelled: whether a training row has a label.
        columns: how many texts a row has.
    """

    teacher: Any
    make_student: Any
    train: Loader
    validation: Loader | None
    test: Loader | None
    task: AnyTask
    example: Tensor
    tokenizer: Tokenizer
    labelled: bool

    columns: int

    @property
    def facts(self) -> TokenFacts:
        """What networks must know of the tokens."""
        return TokenFacts.of(self.tokenizer)

    @property
    def rescale(self) -> Rescale | None:
        """What brings a regression's answers into the units of its labels."""
        if not isinstance(self.task, Regression):
            return None
        return Rescale(mean=self.task.mean, std=self.task.std)

    @property
    def metadata(self) -> dict[str, Any]:
        """What an exported file says of itself, so that it can be given texts."""
        names = ("text", "pair")[: self.columns]
        return {
            "form": "text",
            "columns": [{"name": name, "categories": None} for name in names],
            "tokenizer": self.tokenizer.describe(),
        }


def own_texts(
    teacher: Any,
    student: Any,
    train: Any,
    validation: Any,
    test: Any,
    *,
    tokenizer: Any = None,
    teacher_tokenizer: Any = None,
    classes: Sequence[str] | None = None,
    batch_size: int,
) -> OwnTexts:
    """Everything that `distill` needs of texts.

    Args:
        teacher: a Hugging Face model, a module of token ids, anything with `predict_proba`, a
            callable of lists of strings, or anything that answers a `Batch`.
        student: the kind of a network of texts, or its kind and arguments, a factory or a module.
        train: texts, texts and labels, `Rows`, or a data set.
        validation: likewise, or None.
        test: likewise, or None: the test rows that `train` declares, where it does.
        tokenizer: of the student; None: the teacher's own, or one trained on the training texts.
        teacher_tokenizer: of a teacher that is a module, where it is another one.
        classes: their names, where no training row has a label.
        batch_size: rows per batch.

    Raises:
        DataError: something holds no texts, or labels of other classes.
        ModelError: teacher and tokenizer do not belong together, or a network cannot be built.
    """
    rows = own_rows(train, classes, "train_loader")
    parts = {"train": rows}
    if rows.test_rows is not None and rows.test_rows.any():
        parts = {"train": some(rows, ~rows.test_rows)}
        if test is None:
            parts["test"] = some(rows, rows.test_rows)
    for name, given in (("validation", validation), ("test", test)):
        if given is not None:
            parts[name] = own_rows(given, rows.classes or classes, f"{name}_loader")
    settle_classes(parts, classes)
    widths = {len(part.columns or ()) for part in parts.values()}
    if len(widths) > 1:
        raise DataError("all rows must be single texts or all be pairs, but some are both")
    learned = [text for row in parts["train"].texts or () for text in row]
    made = own_tokenizer(tokenizer if tokenizer is not None else folder_of(teacher), learned)
    parts = {name: tokenized(part, made) for name, part in _numbered(parts).items()}
    longest = max(part.inputs.shape[1] for part in parts.values())
    made = Tokenizer(made.content, pad=made.pad, length=longest)
    task = _task(parts["train"])
    batches = {
        name: Loader(
            TextBatches(part, pad=made.pad, batch_size=batch_size, shuffle=name == "train")
        )
        for name, part in parts.items()
    }
    return OwnTexts(
        teacher=text_teacher(
            teacher,
            task=task,
            tokenizer=made,
            own=teacher_tokenizer,
            texts=[row for part in parts.values() for row in part.texts or ()],
            ids=np.concatenate([part.ids for part in parts.values()]),
        ),
        make_student=_student(student, TokenFacts.of(made), task),
        train=batches["train"],
        validation=batches.get("validation"),
        test=batches.get("test"),
        task=task,
        example=torch.from_numpy(np.array(parts["train"].inputs[:4])),
        tokenizer=made,
        labelled=bool(parts["train"].labelled.any()),
        columns=len(parts["train"].columns or ()) or 1,
    )


class TextBatches:
    """Batches of token rows in lengths alike, in an order that follows torch's seed and the epoch.

    So the order differs from seed to seed, and is the same for student and control.
    """

    def __init__(self, rows: Rows, *, pad: int, batch_size: int, shuffle: bool) -> None:
        """Keep tokenized rows."""
        # Models of other people take no narrower numbers.
        self._inputs = torch.from_numpy(np.array(rows.inputs, np.int64))
        labels = None if rows.labels is None else np.array(rows.labels)
        if labels is None and rows.classes is not None:
            labels = np.full(len(rows), -1, np.int64)
        self._labels = None if labels is None else torch.from_numpy(labels)
        self._ids = torch.from_numpy(np.array(rows.ids))
        self._pad, self._size, self._shuffle = pad, batch_size, shuffle
        self._epoch = 0

    @property
    def sampler(self) -> "TextBatches":
        """What is told the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order that the next iteration has."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._loader())

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader())

    def _loader(self) -> MemoryLoader:
        loader = MemoryLoader(
            inputs=self._inputs,
            labels=self._labels,
            ids=self._ids,
            positions=np.arange(len(self._inputs)),
            batch_size=self._size,
            seed=torch.initial_seed() % 2**32 if self._shuffle else None,
            pad=self._pad,
        )
        loader.set_epoch(self._epoch)
        return loader


def _numbered(parts: Mapping[str, Rows]) -> dict[str, Rows]:
    """Rows with ids of their own, across all parts."""
    first, found = 0, {}
    for name, part in parts.items():
        found[name] = replace(part, ids=np.arange(first, first + len(part)))
        first += len(part)
    return found


def _task(rows: Rows) -> AnyTask:
    if rows.classes is not None:
        return Classification(classes=tuple(rows.classes))
    assert rows.labels is not None
    known = rows.labels[rows.labelled]
    if not len(known):
        raise DataError("a regression needs the units of its labels, but no row has one")
    return Regression(
        targets=tuple(f"target {i + 1}" for i in range(known.shape[1])),
        mean=tuple(float(v) for v in known.mean(axis=0)),
        std=tuple(float(v) if v > 0 else 1.0 for v in known.std(axis=0)),
    )


def _student(
    student: Any, tokens: TokenFacts, task: AnyTask
) -> Callable[[], nn.Module] | nn.Module:
    if isinstance(student, str | Mapping):
        student = Entry.model_validate({"kind": student} if isinstance(student, str) else student)
    if isinstance(student, Entry):
        facts = {**tokens.preprocess().facts, "width": task.width}
        _known_kind(student)
        return build.network(student, facts, Source(), where="the student")
    if not callable(student):
        raise ModelError(
            "a student of texts must be a kind such as `text_cnn`, a mapping with a `kind`, a "
            f"factory or a module, but got {type(student).__name__}"
        )
    found: Callable[[], nn.Module] | nn.Module = student
    return found


def _known_kind(entry: Entry) -> None:
    if entry.kind != "custom" and entry.kind not in build.MODELS:
        known = ", ".join(kind for kind in build.MODELS if kind.startswith("text_"))
        raise ModelError(f"there is no student `{entry.kind}`; of texts there are: {known}")
