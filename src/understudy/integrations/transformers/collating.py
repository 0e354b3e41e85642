"""Rows of tokens, and what a teacher said of them, as one batch."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from understudy.errors import DataError
from understudy.integrations.transformers.objective import IGNORED
from understudy.losses.vocabulary import DenseLabels, ListedLabels
from understudy.losses.vocabulary.parts import Labels

IDS: Final = "teacher_ids"
LOG_PROBS: Final = "teacher_log_probs"
TAIL: Final = "teacher_tail"
ENTROPY: Final = "teacher_entropy"
LOGITS: Final = "teacher_logits"
COLUMNS: Final = (IDS, LOG_PROBS, TAIL, ENTROPY, LOGITS)
"""What a batch calls stored labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCollator:
    """Pads rows of tokens at the end, with the teacher's labels where rows have them.

    A row has `input_ids`, and may have `labels` (-100 where a token is not learned) or TRL's
    `completion_mask` (1 where it is). Its stored labels are the columns that `understudy labels
    export` writes for a field `logits`: `logits`, or `logits_ids`, `logits_logprobs` and
    `logits_rest`, or `logits_ids`, `logits_weights` and `logits_entropy`; one entry per token,
    which tells of the token after it. The last entry may be missing.

    The batch has `input_ids`, `attention_mask` and `labels`, `[batch, length]`, and of the teacher
    `teacher_logits` `[batch, length, vocabulary]`, or `teacher_ids` and `teacher_log_probs`
    `[batch, length, k]` with `teacher_tail` (or, of sampled ones, `teacher_entropy`)
    `[batch, length]`.

    Attributes:
        pad: the token that rows are filled up with.
        length: the most tokens of a row; what comes after them is cut, labels too. None: no limit.
        field: the field of the store.

    Raises:
        ValueError: the length is not 2 or more.
    """

    pad: int = 0
    length: int | None = None
    field: str = "logits"

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 2:
            raise ValueError(
                f"`length >= 2` must hold, but got {self.length}: a token is learned from those "
                "before it"
            )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One batch.

        Raises:
            DataError: a row has no tokens, or not one label or one stored entry per token.
        """
        tokens = [self._cut(self._column(row, "input_ids")) for row in rows]
        longest = max(len(one) for one in tokens)
        labels = [self._hard(row, own) for row, own in zip(rows, tokens, strict=True)]
        batch = {
            "input_ids": _padded(tokens, longest, self.pad),
            "attention_mask": _padded([torch.ones_like(one) for one in tokens], longest, 0),
            "labels": _padded(labels, longest, IGNORED),
        }
        return batch | self._told(rows, tokens, longest)

    def _told(
        self, rows: Sequence[Mapping[str, Any]], tokens: Sequence[Tensor], longest: int
    ) -> dict[str, Tensor]:
        names = {n for row in rows for n in row if n.startswith(self.field) and row[n] is not None}
        field, found = self.field, {}
        plan = (
            (field, LOGITS, 0.0, torch.float32),
            (f"{field}_ids", IDS, -1, torch.int64),
            (f"{field}_logprobs", LOG_PROBS, -torch.inf, torch.float32),
            (f"{field}_weights", LOG_PROBS, -torch.inf, torch.float32),
            (f"{field}_rest", TAIL, -torch.inf, torch.float32),
            (f"{field}_entropy", ENTROPY, 0.0, torch.float32),
        )
        for column, name, fill, dtype in plan:
            if column not in names:
                continue
            parts = [
                self._entries(row, column, len(own), fill, dtype)
                for row, own in zip(rows, tokens, strict=True)
            ]
            if column.endswith("_weights"):
                parts = [part.clamp_min(0).log() for part in parts]
            found[name] = _padded(parts, longest, fill)
        return found

    def _entries(
        self, row: Mapping[str, Any], column: str, count: int, fill: float | int, dtype: torch.dtype
    ) -> Tensor:
        """One entry per token; the last one, of which nothing is learned, may be missing."""
        table = self._cut(as_table(self._column(row, column), fill=fill, dtype=dtype))
        if not count - 1 <= len(table) <= count:
            raise DataError(
                f"a row must have one entry of `{column}` per token, but row {row.get('id', '')} "
                f"has {len(table)} entries and {count} tokens: label the same tokens that are "
                "learned from"
            )
        return table

    def _hard(self, row: Mapping[str, Any], tokens: Tensor) -> Tensor:
        given = row.get("labels")
        labels = tokens if given is None else self._cut(_tokens(given))
        mask = row.get("completion_mask")
        learned = torch.ones_like(labels) if mask is None else self._cut(_tokens(mask))
        for name, one in (("labels", labels), ("completion_mask", learned)):
            if len(one) != len(tokens):
                raise DataError(
                    f"a row must have one entry of `{name}` per token, but row "
                    f"{row.get('id', '')} has {len(one)} and {len(tokens)} tokens"
                )
        return torch.where(learned.bool(), labels, IGNORED)

    def _column(self, row: Mapping[str, Any], name: str) -> Any:
        if row.get(name) is None:
            raise DataError(
                f"every row must have `{name}`, but row {row.get('id', '')} has "
                f"{', '.join(sorted(row)) or 'nothing'}; with `remove_unused_columns` a Trainer "
                "drops what its model does not take: one made by `distilled` keeps our columns"
            )
        return _tokens(row[name]) if name == "input_ids" else row[name]

    def _cut(self, values: Tensor) -> Tensor:
        return values if self.length is None else values[: self.length]


def told_in(batch: MutableMapping[str, Any]) -> dict[str, Tensor]:
    """Take the teacher's labels out of a batch."""
    return {name: batch.pop(name) for name in COLUMNS if name in batch}


def labels_of(told: Mapping[str, Tensor]) -> Labels | None:
    """Stored labels of a batch, one row per token that has one after it; None where none are told.

    Raises:
        DataError: some of the columns that belong together are missing.
    """
    if not told:
        return None
    flat = {name: value[:, :-1].flatten(0, 1) for name, value in told.items()}
    if LOGITS in flat:
        return DenseLabels(logits=flat[LOGITS])
    if IDS not in flat or LOG_PROBS not in flat or not ({TAIL, ENTROPY} & set(flat)):
        raise DataError(
            f"listed labels must come as `{IDS}`, `{LOG_PROBS}` and `{TAIL}` (sampled ones "
            f"with `{ENTROPY}` instead), but the batch has {', '.join(sorted(flat))}"
        )
    entropy = flat.get(ENTROPY)
    nothing = torch.full_like(flat[LOG_PROBS][:, 0], -torch.inf)
    return ListedLabels(
        ids=flat[IDS],
        log_mass=flat[LOG_PROBS],
        rest=flat.get(TAIL, nothing),
        sampled=entropy is not None,
        entropy=entropy,
    )


def as_table(values: Any, *, fill: float | int, dtype: torch.dtype) -> Tensor:
    """One entry per token, `[tokens]` or `[tokens, k]`; shorter lists are filled up."""
    if isinstance(values, Tensor):
        return values.to(dtype)
    if isinstance(values, np.ndarray) and values.dtype != object:
        return torch.as_tensor(values).to(dtype)
    if not len(values) or not isinstance(values[0], Sequence | np.ndarray):
        return torch.tensor(values, dtype=dtype)
    most = max(len(one) for one in values)
    table = torch.full((len(values), most), fill, dtype=dtype)
    for at, one in enumerate(values):
        table[at, : len(one)] = torch.as_tensor(one).to(dtype)
    return table


def _tokens(values: Any) -> Tensor:
    return torch.as_tensor(values).long()


def _padded(parts: Sequence[Tensor], longest: int, fill: float | int) -> Tensor:
    """`[batch, longest, ...]`; a shorter last axis is filled up too."""
    widths = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    table = parts[0].new_full((len(parts), longest, *widths), fill)
    for at, part in enumerate(parts):
        where: tuple[int | slice, ...] = (at, *(slice(size) for size in part.shape))
        table[where] = part
    return table
