"""Tokens of language models: texts come back, and bytes are those of the text."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.data.language_tokens import Coder, bytes_of, read_coder, train_coder
from understudy.data.tokenizers import train_tokenizer
from understudy.errors import DataError

LINES = ["to be, or not to be", "that is the question", "whether 'tis nobler in the mind"] * 4
CODER = train_coder(LINES, size=300)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_text_comes_back_and_its_bytes_are_counted_once(text):
    (document,) = CODER.encode([text])
    assert CODER.decode(document.tokens) == text
    assert int(document.bytes.sum()) == len(text.encode())
    assert document.learned is None
    assert CODER.end not in document.tokens.tolist()


@given(st.text("aé€🎭 Qx", max_size=40))
def test_bytes_are_counted_once_by_a_tokenizer_that_loses_some(text):
    lossy = WORDS.encode([text])[0]
    assert int(lossy.bytes.sum()) == (len(text.encode()) if len(lossy) else 0)


def _words():
    made = train_tokenizer(["a x q é"] * 4, size=60)
    token = json.loads(made.content)["model"]["vocab"]["[SEP]"]
    return Coder(made.content, end=token)


WORDS = _words()


def test_bytes_of_a_character_that_is_split_are_the_first_tokens():
    assert bytes_of([(0, 1), (0, 1), (1, 2)], "€a").tolist() == [3, 0, 1]
    assert bytes_of([(1, 2)], " a ").tolist() == [3]
    assert bytes_of([], "").tolist() == []


def test_training_is_repeatable_and_refuses_too_few_tokens():
    assert train_coder(LINES, size=300).content == CODER.content
    with pytest.raises(DataError, match="size >= 257"):
        train_coder(LINES, size=256)


def test_of_a_pair_the_completion_is_learned():
    (pair,) = CODER.encode_pairs(["to be"], [" or not"])
    assert CODER.decode(pair.tokens) == "to be or not"
    assert CODER.decode(pair.tokens[pair.learned]) == " or not"


def test_a_folder_says_how_texts_begin_and_end(tmp_path):
    told = json.loads(CODER.content)
    told["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "t", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"t": {"id": "t", "ids": [5], "tokens": ["t"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    found = read_coder(tmp_path)
    assert (found.begin, found.end) == (5, CODER.end)
    (document,) = found.encode(["to be"])
    assert document.tokens.tolist() == [5, *CODER.prompt("to be")]
    assert document.bytes[0] == 0
    assert found.special == (0, 5)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [7]}))
    assert read_coder(tmp_path).end == 7


def test_what_is_no_tokenizer_of_a_language_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no"):
        read_coder(tmp_path)
    told = json.loads(CODER.content)
    told["added_tokens"], vocab = [], told["model"]["vocab"]
    vocab["none"] = vocab.pop("<|endoftext|>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="`eos_token`"):
        read_coder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_coder(tmp_path)
    with pytest.raises(DataError, match="token of the tokenizer"):
        Coder(CODER.content, end=9999)
    with pytest.raises(DataError, match="surrogates"):
        CODER.encode(["a\ud800"])


def test_documents_of_many_characters_are_encoded_in_parts(monkeypatch):
    monkeypatch.setattr("understudy.data.language_tokens._AT_ONCE", 10)
    many = CODER.encode(LINES)
    assert [CODER.decode(one.tokens) for one in many] == LINES
    assert all(one.bytes.dtype == np.int32 for one in many)
