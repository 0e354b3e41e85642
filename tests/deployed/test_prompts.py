"""Texts to tokens and back, also in pieces: whole characters, spaces as they were."""

import pytest

from deployed.decoder_cases import NUMBER, TOKENIZER
from understudy.data.language_tokens import train_coder
from understudy.deployed.prompts import PromptCoder
from understudy.errors import DataError

TEXTS = ["ab c", "  aa  b", "\u00e9t\u00e9 \U0001f600\U0001f600 \u65e5\u672c a", "a\nb\n", "x"]


def coders():
    trained = train_coder(["ab ab \u00e9t\u00e9 abc"] * 3, size=270)
    return PromptCoder(TOKENIZER["content"], begin=1), PromptCoder(trained.content, begin=None)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_wherever_the_prompt_ends(text):
    for coder in coders():
        ids = coder.encode(text)
        assert coder.decode(ids) == text
        for at in range(1, len(ids)):
            before = coder.decode(ids[:at])
            if "\ufffd" in before:
                continue
            pieces = list(coder.stream(ids[:at], ids[at:]))
            assert before + "".join(pieces) == text
            assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_that_is_never_whole_is_shown_in_the_end():
    coder, _ = coders()
    torn = coder.encode("\u65e5")[:-1]
    assert "".join(coder.stream([1, NUMBER["a"]], torn)).endswith("\ufffd")


def test_a_prompt_begins_as_the_tokenizer_says():
    begun, plain = coders()
    assert begun.encode("") == [1]
    assert begun.encode("ab")[0] == 1
    with pytest.raises(DataError, match="must have a token to go on from, but '' has none"):
        plain.encode("")


def test_what_is_no_text_and_what_is_no_tokenizer():
    coder, _ = coders()
    with pytest.raises(DataError, match="whole characters"):
        coder.encode("a\ud800")
    with pytest.raises(DataError, match="no definition of a tokenizer"):
        PromptCoder("{}", begin=None)
    with pytest.raises(DataError, match=r"f\.onnx has no tokenizer"):
        PromptCoder.of({}, name="f.onnx")
