"""Pieces and scores become a tokenizer that joins as SentencePiece does."""

import doctest
import itertools
import json

import pytest

from understudy.data import sentence_pieces
from understudy.data.language_tokens import read_coder
from understudy.data.sentence_pieces import pieces_definition
from understudy.errors import DataError


def joined(text, listed):
    """Pairs joined one by one, the whole of the highest score first."""
    number = {one["piece"]: at for at, one in enumerate(listed)}
    tokens = []
    for letter in " " + text:
        known = letter in number
        tokens += [number[letter]] if known else [byte + 3 for byte in letter.encode()]
    while True:
        found = [
            (listed[number[whole]]["score"], -at, number[whole])
            for at, pair in enumerate(itertools.pairwise(tokens))
            if (whole := listed[pair[0]]["piece"] + listed[pair[1]]["piece"]) in number
        ]
        if not found:
            return [1, *tokens]
        _, at, whole = max(found)
        tokens[-at : -at + 2] = [whole]


@pytest.mark.data
def test_the_real_pieces_join_as_they_should(shared_data):
    folder = shared_data / "stories260k"
    coder = read_coder(folder)
    assert (coder.begin, coder.end, coder.vocabulary, coder.special) == (1, 2, 512, (0, 1, 2))
    listed = json.loads((folder / "vocabulary.json").read_text())
    texts = [
        "Once upon a time, there was a little girl named Lily.",
        "  two\nlines \u65e5\U0001f600",
    ]
    (book,) = (shared_data / "tinyshakespeare").glob("*.txt")
    texts += [line for line in book.read_text().splitlines()[:150] if line]
    for text in texts:
        ids = coder.prompt(text)
        assert ids == joined(text, listed)
        assert coder.decode(ids) == text
    assert read_coder(folder / "vocabulary.json").content == coder.content


@pytest.mark.parametrize(
    ("listed", "law"),
    [
        ({"a": 1}, "must list pieces"),
        ([{"piece": "a"}], "must list pieces"),
        ([{"piece": p, "score": 0} for p in ("a", "b")], "must begin with <unk>, <s>, </s>"),
        (
            [{"piece": p, "score": 0} for p in ("<unk>", "<s>", "</s>", "a", "a")],
            "be different, .* and 1 repeated",
        ),
    ],
)
def test_lists_of_something_else(tmp_path, listed, law):
    with pytest.raises(DataError, match=law):
        pieces_definition(json.dumps(listed))
    (tmp_path / "vocabulary.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match=law):
        read_coder(tmp_path)


def test_the_example_in_the_manual_runs():
    assert doctest.testmod(sentence_pieces).failed == 0
