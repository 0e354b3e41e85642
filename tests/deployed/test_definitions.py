"""A tokenizer's definition: what it says of its ids, and two ways in which it cannot be read."""

import sys

import pytest
from tokenizers import AddedToken, Tokenizer, models

from understudy.deployed.definitions import defined, ids, special
from understudy.errors import DataError, MissingExtraError


def definition(vocabulary, *, marks=()):
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    made.add_special_tokens(list(marks))
    made.add_tokens([AddedToken("plain")])
    return made.to_str()


def test_ids_without_a_token_count_and_words_that_were_added_are_text():
    read = defined(definition({"a": 0, "b": 7}, marks=["<s>"]))
    assert read.id_to_token(1) is None
    assert ids(read) == 1 + max(read.token_to_id(name) for name in ("a", "b", "<s>", "plain"))
    assert special(read) == {read.token_to_id("<s>")}


@pytest.mark.parametrize("content", ["", "{}", "[1]", "no JSON"])
def test_other_texts_are_refused(content):
    with pytest.raises(DataError, match=r"no definition of a tokenizer .*copy its `tokenizer.json"):
        defined(content)


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match="text"):
        defined("{}")
