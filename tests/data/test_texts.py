"""Texts as rows: from files and objects, with every way in which they can be wrong."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.data import CATALOGUE, check_rows, from_custom, from_dataset, from_texts
from understudy.data.splits import split
from understudy.data.texts import cut_texts, tokenized
from understudy.data.tokenizers import train_tokenizer
from understudy.errors import DataError

text = CATALOGUE["text"]
LINES = [("a fine film", "pos"), ("so dull", "neg"), ("warm, and clever", "pos"), ("weak", "neg")]


def csv_of(folder, lines=LINES, name="t.csv", head=("review", "mood"), mark=","):
    cells = [mark.join(f'"{cell}"' for cell in line) for line in [head, *lines]]
    path = folder / name
    path.write_text("\n".join(cells) + "\n", encoding="utf-8")
    return str(path)


def read(path, **more):
    return text(path=path, **{"text": "review", "target": "mood", **more})


def test_texts_of_a_csv_become_rows_with_classes_and_their_column(tmp_path):
    rows = read(csv_of(tmp_path))
    check_rows(rows)
    assert rows.form == "text"
    assert rows.texts == tuple((line[0],) for line in LINES)
    assert rows.classes == ("neg", "pos")
    assert rows.labels.tolist() == [1, 0, 1, 0]
    assert [column.name for column in rows.columns] == ["review"]
    assert rows.ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_every_kind_of_file_gives_the_same_rows(kind, tmp_path):
    plain = read(csv_of(tmp_path))
    path = tmp_path / f"other.{kind}"
    records = [{"review": review, "mood": mood} for review, mood in LINES]
    if kind == "csv.gz":
        path.write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    else:
        csv_of(tmp_path, name=path.name, mark="\t" if kind == "tsv" else ",")
    assert read(str(path)).fingerprint() == plain.fingerprint()


def test_pairs_are_two_texts_and_the_order_of_both_counts(tmp_path):
    lines = [("a b", "c", "yes"), ("a", "b c", "no")]
    path = csv_of(tmp_path, lines, head=("one", "two", "same"))
    rows = text(path=path, text="one", pair="two", target="same")
    assert rows.texts == (("a b", "c"), ("a", "b c"))
    assert (rows.inputs[0] != rows.inputs[1]).any()
    turned = text(path=path, text="two", pair="one", target="same")
    assert (turned.inputs != rows.inputs).any(axis=1).all()


def test_a_test_file_may_name_its_columns_otherwise(tmp_path):
    train = csv_of(tmp_path)
    test = csv_of(tmp_path, [("bright", "pos"), ("poor", "neg")], "u.csv", ("content", "mood"))
    rows = read(train, test_path=test, rename={"content": "review"})
    assert rows.test_rows.tolist() == [False] * 4 + [True] * 2
    assert rows.texts[-1] == ("poor",)
    assert rows.ids.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match=r"test rows: column `review` is not there: known: content"):
        read(train, test_path=test)


def test_quotation_marks_are_part_of_a_text_where_they_are_said_to_be(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('review\tmood\n"so he said\tpos\nno " end\tneg\n')
    assert read(str(path), quoted=False).texts == (('"so he said',), ('no " end',))
    with pytest.raises(DataError, match="quoted: false"):
        read(str(path))


def test_numbers_as_labels_are_classes_and_real_ones_are_targets(tmp_path):
    counted = csv_of(tmp_path, [("a x", "0"), ("b x", "1"), ("c x", "0")])
    assert read(counted).classes == ("0", "1")
    scored = csv_of(tmp_path, [("a x", "0.5"), ("b x", "1.5"), ("c x", "2")], "s.csv")
    rows = read(scored)
    assert rows.classes is None
    assert rows.labels[:, 0].tolist() == [0.5, 1.5, 2.0]
    assert rows.targets == ("mood",)


def test_a_column_of_labels_that_is_not_there_is_told_with_what_there_is(tmp_path):
    with pytest.raises(DataError, match="column `moods` is not there: did you mean `mood`"):
        read(csv_of(tmp_path), target="moods")


def test_the_numbers_of_classes_can_be_given_names(tmp_path):
    path = csv_of(tmp_path, [("a x", "0"), ("b x", "1"), ("c x", "")])
    rows = read(path, classes=["bad", "good"])
    assert rows.classes == ("bad", "good")
    assert rows.labels.tolist() == [0, 1, -1]
    with pytest.raises(DataError, match="must be 0 to 0"):
        read(path, classes=["bad"])


def test_a_row_without_a_label_is_unlabelled(tmp_path):
    rows = read(csv_of(tmp_path, [*LINES, ("who knows", "")]))
    assert rows.labels.tolist() == [1, 0, 1, 0, -1]


def test_labels_spelled_two_ways_are_told_and_spaces_around_them_do_not_count(tmp_path):
    spaced = read(csv_of(tmp_path, [*LINES, ("good", "pos ")]))
    assert spaced.classes == ("neg", "pos")
    other = csv_of(tmp_path, [*LINES, ("good", "Pos "), ("nice", "POS")], "u.csv")
    places = {name: [at for at, (_, mood) in enumerate(LINES, start=1) if mood == name]
              for name in ("pos", "neg")}  # fmt: skip
    one, two = places["pos"]
    with pytest.raises(DataError) as caught:
        read(other)
    assert (
        f"one way, but column `mood` has `POS` (1 row: row {len(LINES) + 2}) and `Pos` (1 row: "
        f"row {len(LINES) + 1}) and `pos` (2 rows: rows {one}, {two}): correct"
    ) in str(caught.value)
    assert read(other, classes=["neg", "pos", "Pos", "POS"]).classes[-1] == "POS"


def test_a_test_label_of_another_spelling_is_told(tmp_path):
    test = csv_of(tmp_path, [("bright", "Pos"), ("poor", "neg")], "u.csv")
    with pytest.raises(
        DataError, match=r"among the 2 classes .* 1 row hold others: `Pos` \(row 1\)"
    ):
        read(csv_of(tmp_path), test_path=test)


def test_empty_texts_are_refused_by_their_ids_or_left_out(tmp_path):
    path = csv_of(tmp_path, [LINES[0], ("", "neg"), LINES[1], ("  ", "pos")])
    with pytest.raises(DataError, match=r"2 rows have none \(ids 1, 3\): say `empty: drop`"):
        read(path)
    rows = read(path, empty="drop")
    assert rows.ids.tolist() == [0, 2]
    assert rows.skipped == 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_of_another_encoding_is_told_and_can_be_named(encoding, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("review,mood\nfin,pos\ncrème brûlée,neg\n".encode(encoding))
    with pytest.raises(DataError, match=rf"must be utf-8 text, but line \d .*encoding: {encoding}"):
        read(str(path))
    assert read(str(path), encoding=encoding).texts[1] == ("crème brûlée",)
    with pytest.raises(DataError, match="`encoding` must be one that Python knows"):
        read(str(path), encoding="klingon")


def test_lone_surrogates_are_told_by_their_row(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"review": "fine", "mood": "p"}\n{"review": "half \\ud83d", "mood": "n"}\n')
    with pytest.raises(DataError, match=r"lone surrogates \(column `review`, row 2\)"):
        read(str(path))


@pytest.mark.parametrize(
    ("values", "law"),
    [
        ([1, 2, 3], r"`review` must hold texts, but 3 rows hold ints \(1, 2, 3\)"),
        ([["a"], ["b"], ["c"]], "must hold texts, but 3 rows hold lists"),
        (["1", "2.5", "-3"], r"holds nothing but numbers \(1, 2.5, -3\)"),
    ],
)
def test_a_column_that_is_no_text_is_refused(values, law, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"review": values, "mood": ["a", "b", "a"]}), path)
    with pytest.raises(DataError, match=law):
        read(str(path))


@pytest.mark.parametrize(
    ("name", "content", "law"),
    [
        ("t.csv", "review,mood\n", "a line of column names and rows below it"),
        ("t.csv", "", "a line of column names"),
        ("t.csv", "review,mood\na,b,c\nd,e\n", r"must have 2 cells.*line 2 \(3 cells\)"),
        ("t.csv", "review,review\na,b\n", "`review` stands twice"),
        ("t.csv", "words,mood\na,b\n", "column `review` is not there: known: mood, words"),
        ("t.jsonl", "{]\n", "line 1: every line must be one JSON object"),
        ("t.jsonl", "[1]\n", "but this is list"),
        ("t.jsonl", "\n", "at least one row"),
        ("t.parquet", "no", "cannot be read as Parquet"),
        ("t.docx", "no", "must be a file of texts"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused(name, content, law, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=law):
        read(str(tmp_path / name))


def test_a_label_column_of_several_kinds_is_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"review": "a b", "mood": 1}\n{"review": "c d", "mood": "x"}\n')
    with pytest.raises(DataError, match="values of one kind, but holds `int`, `str`"):
        read(str(path))


class Set:
    """What of a data set of Hugging Face is used here."""

    def __init__(self, columns, names=None):
        self.columns = columns
        self.column_names = list(columns)
        self.features = {"label": type("ClassLabel", (), {"names": names})}

    def __getitem__(self, name):
        return self.columns[name]


def test_a_data_set_of_hugging_face_brings_its_splits_and_class_names():
    train = Set({"sentence": ["a b", "c d", "e f"], "label": [1, 0, -1]}, ["bad", "good"])
    test = Set({"sentence": ["g h", "i j"], "label": [0, 1]}, ["bad", "good"])
    rows = from_dataset(
        {"train": train, "test": test}, text="sentence", target="label", test="test"
    )
    assert rows.classes == ("bad", "good")
    assert rows.labels.tolist() == [1, 0, -1, 0, 1]
    assert rows.test_rows.sum() == 2
    assert len(from_dataset(train, text="sentence", target="label")) == 3
    with pytest.raises(DataError, match="there is no split `validation`"):
        from_dataset({"train": train}, text="sentence", test="validation")
    with pytest.raises(DataError, match="a data set must have columns"):
        from_dataset([1, 2], text="sentence")


def test_lists_of_texts_are_rows_too():
    rows = from_custom((["a b", "c d"], ["x", "y"]))
    assert rows.texts == (("a b",), ("c d",))
    assert rows.classes == ("x", "y")
    pairs = from_custom(([("a", "b"), ("c", "d")], np.array([0, 1])))
    assert pairs.texts == (("a", "b"), ("c", "d"))
    assert from_texts(["a b", "c d"], None).labels is None
    with pytest.raises(DataError, match="2 texts and 1 labels"):
        from_texts(["a", "b"], ["x"])


def test_tokens_are_rows_of_numbers_and_what_is_cut_is_counted():
    rows = from_texts(["a fine film", "a fine and dull and fine film", "dull film"] * 3, None)
    tokenizer = train_tokenizer([one for (one,) in rows.texts], size=64, length=4)
    ready = tokenized(rows, tokenizer)
    check_rows(ready)
    assert ready.inputs.dtype == np.int32
    assert ready.inputs.shape == (9, 4)
    assert cut_texts(ready, tokenizer) == 3
    assert (ready.ids == rows.ids).all()


def test_copies_of_test_texts_leave_the_training_rows_before_there_is_a_tokenizer():
    texts = [f"text number {at}" for at in range(40)] + ["text number 3"]
    rows = from_texts(texts, ["a", "b"] * 20 + ["b"])
    parts = split(rows, seed=0, test=0.3, validation=0.2)
    test = {rows.texts[at] for at in parts.test}
    assert not test & {rows.texts[at] for at in np.concatenate([parts.train, parts.validation])}
