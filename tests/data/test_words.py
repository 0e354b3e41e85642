"""Texts with a label per word: from files, and as rows of tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest

from understudy.cli.main import run as command
from understudy.data import check_rows, conll, from_dataset, text
from understudy.data.splits import split
from understudy.data.token_rows import of_words
from understudy.data.tokenizers import train_tokenizer
from understudy.data.words import sentence, word_rows
from understudy.deployed.texts import Tokenizer
from understudy.deployed.words import word_spans
from understudy.errors import DataError

ROWS = [
    {"words": ["Anna", "saw", "Rome"], "tags": ["PER", "O", "LOC"]},
    {"words": ["he", "left"], "tags": ["O", ""]},
    {"words": ["Oslo"], "tags": []},
]


def lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_lists_in_json_lines_and_two_columns_and_a_text_with_labels_are_the_same_rows(tmp_path):
    rows = text(path=lines(tmp_path / "t.jsonl", ROWS), text="words", target="tags")
    assert rows.task == "token_classification"
    assert rows.classes == ("LOC", "O", "PER")
    assert rows.labels.tolist() == [[2, 1, 0], [1, -1, -1], [-1, -1, -1]]
    assert rows.texts == (("Anna saw Rome",), ("he left",), ("Oslo",))
    assert rows.labelled.tolist() == [True, True, False]
    check_rows(rows)
    (tmp_path / "t.conll").write_text(
        "-DOCSTART- -X- O\n\nAnna NNP PER\nsaw VB O\nRome NNP LOC\n\n\nhe PRP O\nleft VB O\n"
    )
    two = conll(path=str(tmp_path / "t.conll"))
    assert two.texts == rows.texts[:2]
    assert two.labels.tolist() == [[2, 1, 0], [1, 1, -1]]
    (tmp_path / "t.csv").write_text("said,tags\nAnna saw Rome,PER O LOC\nhe left,O O\n")
    cells = text(path=str(tmp_path / "t.csv"), text="said", target="tags",
                 task="token_classification")  # fmt: skip
    assert cells.labels.tolist() == two.labels.tolist()
    assert cells.fingerprint() != rows.fingerprint()


def test_a_data_set_with_numbers_takes_the_names_that_it_has():
    class Names:
        names = ("O", "PER")

    class Feature:
        feature = Names()

    class Set:
        column_names = ("tokens", "tags")
        features = {"tags": Feature()}  # noqa: RUF012

        def __getitem__(self, name):
            return {"tokens": [["Anna", "left"], ["he"]], "tags": [[1, 0], [0]]}[name]

    rows = from_dataset(Set(), text="tokens", target="tags")
    assert rows.classes == ("O", "PER")
    assert rows.labels.tolist() == [[1, 0], [0, -1]]


def test_labels_lie_at_the_first_token_of_each_word():
    rows = word_rows([
        sentence("unbelievable zebra runs", ["A", "B", "A"], "1"),
        sentence("a zebra a zebra", ["A", "B", None, "B"], "2"),
    ])  # fmt: skip
    made = train_tokenizer(["a zebra runs a zebra un ##believ"], size=60)
    tokenizer = Tokenizer(made.content, pad=made.pad, length=12)
    told = of_words(rows, tokenizer)
    for row, (one,) in enumerate(rows.texts):
        library = tokenizer._tokenizer.encode(one)
        firsts = np.flatnonzero(told.counted[row])
        starts = [library.offsets[at][0] for at in firsts]
        assert starts == [start for start, _ in word_spans(one)][: len(starts)]
        assert told.labels[row, firsts].tolist() == rows.labels[row, : len(firsts)].tolist()
    assert (told.labels[~told.counted] == -1).all()
    assert told.counted[1].sum() == 4
    assert (told.labels[1] >= 0).sum() == 3, "a word without a label counts and teaches nothing"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_words_behind_the_end_are_counted_and_told(kind):
    rows = word_rows([sentence(["ab"] * 30, ["x", "y"] * 15, "1"), sentence("ab", ["x"], "2")])
    made = train_tokenizer([" ".join(["ab"] * 30)] * 3, kind=kind, size=400)
    whole = of_words(rows, made)
    assert whole.note == ""
    assert whole.counted.sum(axis=1).tolist() == [30, 1]
    cut = of_words(rows, Tokenizer(made.content, pad=made.pad, length=8))
    assert cut.counted.sum(axis=1).tolist() == [8, 1]
    assert "22 of 31 words (1 of 2 texts)" in cut.note


def test_an_unlabelled_text_may_have_more_words_than_any_labelled_one():
    rows = word_rows([sentence("ab cd", ["x", "y"], "1")])
    longer = replace(rows, texts=(("ab ab ab ab",),), labels=np.full((1, 2), -1))
    told = of_words(longer, train_tokenizer(["ab cd"] * 3, size=60))
    assert told.counted.sum() == 4
    assert (told.labels == -1).all()


def test_a_tokenizer_that_reads_no_word_is_refused():
    rows = word_rows([sentence("\u200b \u200b", ["x", "y"], "1")])
    with pytest.raises(DataError, match="no word of 1 row has one"):
        of_words(rows, train_tokenizer(["ab ab"] * 3, size=60))


def test_test_rows_have_the_training_rows_classes_and_texts_are_split_as_wholes(tmp_path):
    train, test = ROWS[:2], [{"words": ["Rome"] * 9, "tags": ["LOC"] * 9}]
    paths = lines(tmp_path / "a.jsonl", train), lines(tmp_path / "b.jsonl", test)
    rows = text(path=paths[0], test_path=paths[1], text="words", target="tags")
    assert rows.labels.shape == (3, 9)
    assert rows.ids.tolist() == [0, 1, 2]
    many = word_rows([sentence("a b", ["x", "y"], str(n)) for n in range(30)])
    parts = split(many, seed=0, test=0.2, validation=0.2, labelled=5, overlap="allow")
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [19, 5, 6]
    assert parts.labelled.sum() == 5


@pytest.mark.parametrize(
    ("rows", "law"),
    [
        ([{"words": ["a", "b"], "tags": ["x"]}], "row 1: 2 words, 1 labels"),
        ([{"words": ["a b"], "tags": ["x"]}], "words must be what white space separates"),
        ([{"words": [], "tags": []}, ROWS[0]], "every row must have a text"),
        (
            [{"words": ["a", "b"], "tags": ["X", "x"]}, {"words": ["c"], "tags": ["x"]}],
            r"spelled one way, but words have `X` \(row 1\) and `x` \(row 1, row 2\): correct",
        ),
        ([{"words": ["a"], "tags": [1]}], "name all classes in the order of their numbers"),
        ([{"words": ["a"], "tags": [None]}], "no training row has any"),
        ([{"words": 3, "tags": ["x"]}], "or a list of its words, but got int"),
        ([{"words": ["a"], "tags": [["x"]]}, {"words": ["a"], "tags": 3}], "must be a list"),
        ([{"words": ["\ud800"], "tags": ["x"]}], "lone surrogates"),
    ],
)
def test_bad_rows_are_refused_with_their_place(rows, law, tmp_path):
    with pytest.raises(DataError, match=law):
        text(path=lines(tmp_path / "t.jsonl", rows), text="words", target="tags")


def test_unknown_labels_of_test_rows_are_named(tmp_path):
    paths = [lines(tmp_path / "a.jsonl", ROWS), lines(tmp_path / "b.jsonl", [
        {"words": ["Anna"], "tags": ["PRE"]}])]  # fmt: skip
    with pytest.raises(DataError, match=r"there are others: `PRE` \(the test rows: row 1\)"):
        text(path=paths[0], test_path=paths[1], text="words", target="tags")
    (tmp_path / "t.conll").write_text("Anna PER\nsaw\n")
    with pytest.raises(DataError, match="line 2; name the columns"):
        conll(path=str(tmp_path / "t.conll"))
    with pytest.raises(DataError, match="two columns"):
        conll(path=str(tmp_path / "t.conll"), word=1, label=1)


def test_a_task_that_the_rows_are_not_for_is_told_on_the_command_line(tmp_path, capsys):
    lines(tmp_path / "t.jsonl", ROWS)
    (tmp_path / "r.yaml").write_text(
        "data: {source: {kind: text, path: t.jsonl, text: words, target: tags}}\n"
        "teacher: {model: {kind: text_cnn}, training: {epochs: 1}}\n"
        "student: {model: {kind: text_cnn}}\n"
    )
    assert command(["run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "these rows are for token_classification" in capsys.readouterr().err
