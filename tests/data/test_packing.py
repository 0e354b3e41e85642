"""Packing: every token is predicted once, and nothing across documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.data.packing import Encoded, crossing, documents_of, pack, stretches
from understudy.errors import DataError

END = 0


def document(tokens, learned=None):
    return Encoded(
        tokens=np.asarray(tokens, np.int32),
        bytes=np.asarray(tokens, np.int32) % 5,
        learned=None if learned is None else np.asarray(learned, bool),
    )


documents = st.lists(st.lists(st.integers(1, 99), max_size=17), min_size=1, max_size=9)


def pairs_of(rows):
    """What every counted position sees and predicts, in order."""
    seen = rows.labels >= 0
    return list(zip(rows.tokens[seen].tolist(), rows.labels[seen].tolist(), strict=True))


@given(documents, st.integers(2, 9))
def test_every_token_but_the_first_of_a_document_is_predicted_once(lists, context):
    wanted = [pair for one in lists if one for pair in zip(one, [*one[1:], END], strict=True)]
    if not wanted:
        with pytest.raises(DataError, match="have none"):
            pack([document(one) for one in lists], context=context, end=END)
        return
    rows = pack([document(one) for one in lists], context=context, end=END)
    assert pairs_of(rows) == wanted
    assert rows.tokens.shape[1] == context
    assert rows.cut == 0
    assert crossing(rows.labels, rows.tokens, end=END) == 0
    sizes = sum(token % 5 for one in lists for token in one[1:])
    assert int(rows.bytes.sum()) == sizes
    again = pack([document(one) for one in lists], context=context, end=END)
    assert again.fingerprint() == rows.fingerprint()


@given(documents, st.integers(2, 9))
def test_whole_documents_lie_in_one_row_from_their_beginning(lists, context):
    there = [one for one in lists if one]
    wanted = [p for one in there for p in zip(one[:context], [*one[1:], END], strict=False)]
    if not wanted:
        return
    rows = pack([document(one) for one in lists], context=context, end=END, whole=True)
    assert pairs_of(rows) == wanted
    assert rows.cut == sum(len(one) > context + 1 for one in there)
    for row in rows.tokens:
        parts = "".join(f" {token}" for token in row).split(f" {END}")
        starts = {" ".join(map(str, one[:context])) for one in there}
        assert all(part.strip() in starts for part in parts if part.strip())


def test_completions_alone_are_predicted():
    pair = document([7, 8, 9, 5, 6], learned=[False, False, False, True, True])
    rows = pack([pair, pair], context=12, end=END, whole=True)
    assert rows.tokens.tolist() == [[7, 8, 9, 5, 6, 0, 7, 8, 9, 5, 6, 0]]
    assert rows.labels.tolist() == [[-1, -1, 5, 6, 0, -1, -1, -1, 5, 6, 0, -1]]
    assert rows.bytes.tolist() == [[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]]


def test_what_cannot_be_packed_is_refused():
    for wrong, law in (
        ({"context": 1}, "context >= 2"),
        ({"end": -1}, "end >= 0"),
    ):
        with pytest.raises(DataError, match=law):
            pack([document([1, 2])], **{"context": 4, "end": 0, **wrong})
    with pytest.raises(DataError, match="0 or more"):
        pack([document([1, -2])], context=4, end=0)
    with pytest.raises(DataError, match="one entry of `learned`"):
        pack([document([1, 2], learned=[True])], context=4, end=0)
    with pytest.raises(DataError, match="have none"):
        pack([document([1, 2], learned=[False, False])], context=2, end=0, whole=True)


def test_a_row_that_crosses_documents_is_found():
    tokens = np.int32([[5, END, 6]])
    assert crossing(np.int32([[END, 6, 7]]), tokens, end=END) == 1


@given(st.lists(st.text("ab", min_size=1, max_size=9), min_size=9, max_size=60), st.integers(1, 4))
def test_stretches_are_the_text_and_nothing_is_in_two(lines, parts):
    text = "\n".join(lines)
    found = list(stretches(text, [1 / parts] * parts))
    assert "".join(found) == text
    assert len(found) == parts
    assert all(one.endswith("\n") for one in found[:-1])


def test_a_text_too_short_for_its_parts_is_refused():
    with pytest.raises(DataError, match="part 1 would be empty"):
        list(stretches("a", [0.5, 0.5]))


@given(documents, st.integers(2, 9))
def test_scored_positions_are_counted_by_document(lists, context):
    kept = [one for one in lists if one]
    if not kept:
        return
    rows = pack([document(one) for one in lists], context=context, end=END)
    found = documents_of(rows.tokens, rows.labels >= 0, end=END)
    if 2 <= len(kept) < len(rows):
        assert found.tolist() == [len(one) for one in kept]
    else:
        assert found is None
