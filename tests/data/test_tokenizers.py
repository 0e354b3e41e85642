"""Tokenizers: read, trained, and made sense of."""

import doctest
import json

import pytest

from understudy.data import tokenizers
from understudy.data.tokenizers import read_tokenizer, train_tokenizer
from understudy.data.tokens import TokenFacts, Tokens
from understudy.errors import DataError

TEXTS = ["the film is warm and clever", "the plot is dull", "clever plot, warm actors"] * 4


@pytest.fixture
def folder(tmp_path):
    """A tokenizer as a folder of Hugging Face has it."""
    made = train_tokenizer(TEXTS, size=80)
    (tmp_path / "tokenizer.json").write_text(made.content)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": "[PAD]", "model_max_length": 16})
    )
    return tmp_path


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_training_is_repeatable_and_text_can_be_read_back(kind):
    one, two = (train_tokenizer(iter(TEXTS), kind=kind, size=320) for _ in range(2))
    assert one.content == two.content
    ids = one.encode(["warm plot"])[0]
    known = {number: token for token, number in json.loads(one.content)["model"]["vocab"].items()}
    pieces = [known[number].removeprefix("##").replace("\u0120", " ") for number in ids.tolist()]
    assert "".join(pieces).replace(" ", "") == "warmplot"
    assert one.vocabulary <= 320
    assert one.pad in one.special
    assert one.mask in one.special


def test_a_size_below_the_alphabet_is_refused():
    with pytest.raises(DataError, match="`size >= 300` must hold for kind `bpe`, but got 100"):
        train_tokenizer(TEXTS, kind="bpe", size=100)
    with pytest.raises(DataError, match="texts to learn from"):
        train_tokenizer([], size=64)


def test_pairs_have_a_mark_between_them():
    made = train_tokenizer(TEXTS, size=80)
    one, two, both = made.encode(["warm"])[0], made.encode(["dull"])[0], None
    both = made.encode(["warm"], ["dull"])[0]
    assert len(both) == len(one) + len(two) + 1
    assert both[len(one)] in made.special


def test_a_folder_says_its_padding_and_its_length(folder):
    found = read_tokenizer(folder)
    assert found.length == 16
    assert found.pad == train_tokenizer(TEXTS, size=80).pad
    assert read_tokenizer(folder / "tokenizer.json", length=5).length == 5


def test_what_is_no_tokenizer_is_refused(tmp_path, folder):
    with pytest.raises(DataError, match=r"there is no .*missing: correct the path"):
        read_tokenizer(tmp_path / "missing")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a tokenizer"):
        read_tokenizer(tmp_path / "bad.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="has no `model`"):
        read_tokenizer(tmp_path / "other.json")
    (tmp_path / "odd.json").write_text('{"model": {"type": "odd", "vocab": {"[PAD]": 0}}}')
    with pytest.raises(DataError, match="no definition of a tokenizer"):
        read_tokenizer(tmp_path / "odd.json")


def test_a_tokenizer_without_padding_is_refused(folder):
    told = json.loads((folder / "tokenizer.json").read_text().replace("[PAD]", "[NIL]"))
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="has no token for padding"):
        read_tokenizer(folder)
    (folder / "config.json").write_text('{"pad_token_id": 0}')
    assert read_tokenizer(folder).pad == 0


def test_a_length_without_room_for_a_token_is_refused():
    with pytest.raises(DataError, match="`max_length` is 0"):
        train_tokenizer(TEXTS, size=80, length=0)
    with pytest.raises(DataError, match="`max_length` is -1"):
        train_tokenizer(TEXTS, size=80, length=-1)


def test_facts_survive_a_file_and_make_the_preprocessing():
    facts = TokenFacts.of(train_tokenizer(TEXTS, size=80, length=12))
    assert TokenFacts.from_data(json.loads(json.dumps(facts.to_data()))) == facts
    inside = facts.preprocess()
    assert Tokens.from_description(inside.describe()).facts == inside.facts
    with pytest.raises(DataError, match="KeyError"):
        Tokens.from_description({"form": "text"})
    with pytest.raises(ValueError, match="0 <= pad < vocabulary"):
        Tokens(length=3, vocabulary=2, pad=2)
    import torch

    with pytest.raises(ValueError, match="whole numbers"):
        inside(torch.zeros(2, 3))


def test_the_examples_in_the_manual_run():
    found = doctest.testmod(tokenizers)
    assert found.attempted
    assert not found.failed
