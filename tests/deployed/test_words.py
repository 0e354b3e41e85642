"""Words of a text and their first tokens; what a file that answers per word is refused."""

import pytest

from understudy.deployed.words import first_tokens, word_spans


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("so it goes", [(0, 2), (3, 5), (6, 8), (8, 10)], [0, 1, 2]),
        # Byte-level tokens begin with the space before their word; one may be nothing else.
        ("so it goes", [(0, 2), (2, 5), (5, 6), (5, 10)], [0, 1, 3]),
        # A token over two words counts for the first; the text is cut before the last one.
        ("a b c d", [(0, 3), (4, 5)], [0, -1, 1, -1]),
        # A word of which the tokenizer leaves nothing.
        ("a \u200b c", [(0, 1), (4, 5)], [0, -1, 1]),
        ("", [], []),
    ],
)
def test_the_first_token_of_every_word(text, tokens, expected):
    found = first_tokens(text, word_spans(text), tokens, [0] * len(tokens))
    assert found.tolist() == expected


def test_tokens_that_stand_for_no_text_are_no_words():
    tokens = [(0, 0), (0, 1), (0, 0)]
    assert first_tokens("a", word_spans("a"), tokens, [1, 0, 1]).tolist() == [1]
