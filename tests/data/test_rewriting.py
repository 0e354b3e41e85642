"""Sentences and what is left of them without case and punctuation."""

import pytest

from understudy.data.rewriting import pairs, rewriting, sentences
from understudy.errors import DataError

LINES = """ = Homarus gammarus =

 The lobster 's shell ( 24 in ) is blue , only becoming " lobster red " on cooking .
 It grew in 1990 – 91 !
 A <unk> species is rare . Mr. Smith did n't see J. Doe at 10 @,@ 000 m . Why ?
"""  # fmt: skip


def test_the_quirks_of_tokenised_text_are_taken_back_in_both():
    assert list(pairs(LINES, words=30, least=3)) == [
        (
            "the lobster's shell 24 in is blue only becoming lobster red on cooking",
            'The lobster\'s shell (24 in) is blue, only becoming "lobster red" on cooking.',
        ),
        ("it grew in 1990–91", "It grew in 1990–91!"),
        (
            "mr smith didn't see j doe at 10,000 m",
            "Mr. Smith didn't see J. Doe at 10,000 m.",
        ),
    ]
    assert sentences(" = A heading = ") == []


def test_rows_are_prompts_and_completions(tmp_path):
    (tmp_path / "a.txt").write_text(LINES)
    rows = rewriting(path=str(tmp_path / "a.txt"), words=6, separator=" => ")
    assert list(map(tuple, rows.texts)) == [("it grew in 1990–91 => ", "It grew in 1990–91!")]
    both = rewriting(path=str(tmp_path / "a.txt"), test_path=str(tmp_path / "*.txt"))
    assert int(both.test_rows.sum()) == 3 == len(both) - 3


def test_numbers_and_texts_that_give_nothing_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text(" = Only = \n")
    with pytest.raises(DataError, match="`1 <= least <= words` must hold"):
        rewriting(path=str(tmp_path / "a.txt"), least=9, words=3)
    with pytest.raises(DataError, match="must hold sentences of 3 to 32 words"):
        rewriting(path=str(tmp_path / "a.txt"))


@pytest.mark.data
def test_real_text_keeps_what_it_says(shared_data):
    rows = rewriting(path=str(shared_data / "wikitext2" / "valid.txt"))
    assert 1500 < len(rows) < 4000
    for prompt, completion in rows.texts[:500]:
        letters = ["".join(c for c in text if c.isalnum()).lower() for text in (prompt, completion)]
        assert letters[0] == letters[1]
