"""What a recipe may say of texts."""

import pytest

from understudy.errors import RecipeError
from understudy.recipe import loads

MLP = "{kind: mlp, hidden: [4]}"
REST = f"\nteacher: {{model: {MLP}, training: {{epochs: 1}}}}\nstudent: {{model: {MLP}}}"


def tokenizer(text):
    return loads(f"data: {{tokenizer: {text}}}{REST}")[0].data.tokenizer


def test_a_path_alone_is_a_file():
    assert tokenizer("path/to/encoder") == tokenizer("{file: path/to/encoder}")
    assert tokenizer("{file: a, max_length: 64}").max_length == 64


def test_one_is_trained_where_there_is_none():
    made = tokenizer("{train: bpe, size: 500}")
    assert (made.file, made.train, made.size, made.lower) == (None, "bpe", 500, True)
    assert tokenizer("{}").size == 8000


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("{file: a, size: 500}", "`size` is for a tokenizer that is trained here"),
        ("{train: unigram}", "wordpiece"),
        ("{size: 3}", "size"),
        ("{max_length: 3}", "max_length"),
        ("{length: 3}", "unknown"),
    ],
)
def test_what_it_cannot_be_is_refused(text, law):
    with pytest.raises(RecipeError, match=law):
        tokenizer(text)
