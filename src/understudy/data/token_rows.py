"""Rows of tokens about which a model is asked one by one: ids, labels, and which ones count."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import Rows
from understudy.data.wording import count_rows
from understudy.deployed.lengths import padded
from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenRows:
    """What a task that is asked per token makes of rows.

    Attributes:
        rows: with token ids for inputs, int32 `[rows, longest]`; its own labels are not read again.
        labels: int64 `[rows, longest]`, -1 where there is none.
        counted: bool `[rows, longest]`, which positions a model is asked for.
        note: what a person should know of it, or empty.
    """

    rows: Rows
    labels: NDArray[np.int64]
    counted: NDArray[np.bool_]
    note: str = ""


def of_words(rows: Rows, tokenizer: Tokenizer) -> TokenRows:
    """Labels of words at their first tokens; the other tokens do not count.

    A word behind the end of a text that is cut has no token, so it is neither learned nor scored;
    how many there are is told.

    Raises:
        DataError: no word of any text is left.
    """
    assert rows.texts is not None
    assert rows.labels is not None
    ids, places = tokenizer.words([row[0] for row in rows.texts])
    inputs = padded(ids, pad=tokenizer.pad, length=tokenizer.length)
    labels = np.full(inputs.shape, -1, np.int64)
    counted = np.zeros(inputs.shape, np.bool_)
    lost = shortened = words = 0
    for row, firsts in enumerate(places):
        there = firsts >= 0
        # A text without labels may have more words than any that has some.
        known = np.full(len(firsts), -1, np.int64)
        told = rows.labels[row, : len(firsts)]
        known[: len(told)] = told
        labels[row, firsts[there]] = known[there]
        counted[row, firsts[there]] = True
        words += len(firsts)
        lost += int((~there).sum())
        shortened += bool((~there).any())
    if not counted.any():
        raise DataError(
            "texts must have words that the tokenizer has tokens for, but no word of "
            f"{count_rows(len(rows))} has one: raise `max_length`, or name another tokenizer"
        )
    note = ""
    if lost:
        note = (
            f"{lost} of {words} words ({shortened} of {len(rows)} texts) lie behind the "
            f"{tokenizer.length} tokens that a text is cut to, or have no token: they are neither "
            "learned nor scored"
        )
    return TokenRows(rows=replace(rows, inputs=inputs), labels=labels, counted=counted, note=note)
