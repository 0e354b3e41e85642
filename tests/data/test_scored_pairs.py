"""Pairs that people scored, and plain lines of text."""

import gzip

import pytest

from understudy.data import lines
from understudy.data.scored_pairs import read_pairs
from understudy.errors import DataError

NAMED = {"first": "a", "second": "b", "score": "s"}
ROWS = "a\tb\ts\nA man eats.\tA man runs.\t1\nOne dog.\tTwo dogs.\t4.5\nx y\tx z\t3\n"


def test_columns_by_name_and_by_number_give_the_same_pairs(tmp_path):
    named, bare = tmp_path / "p.tsv", tmp_path / "p.csv"
    named.write_text(ROWS)
    # What stands behind the columns is another's business, as in the STS benchmark.
    bare.write_text(
        "".join(f"k\t{line.split(chr(9))[2]}\t{line}\tmore\n" for line in ROWS.splitlines()[1:])
    )
    one = read_pairs(str(named), **NAMED)
    two = read_pairs(str(bare), first=3, second=4, score=2)
    assert one.first == two.first == ("A man eats.", "One dog.", "x y")
    assert one.scores.tolist() == two.scores.tolist() == [1, 4.5, 3]


@pytest.mark.parametrize(
    ("text", "columns", "law"),
    [
        (ROWS, {"score": "gold"}, "column `gold` of the pairs is not there"),
        (ROWS, {"first": 1, "second": 2, "score": 9}, "line 1: column 9 of the pairs is not there"),
        (ROWS.replace("4.5", "many"), {}, "the score of pair 2 must be a number, but is 'many'"),
        (ROWS.replace("One dog.", " "), {}, "one of pair 2 is ' ': leave the pair out"),
        (ROWS.replace("4.5", "1").replace("3\n", "1\n"), {}, "two different scores"),
        ("a\tb\ts\nx\ty\t1\n", {}, "needs 3 pairs"),
    ],
)
def test_pairs_that_rank_nothing_are_refused(tmp_path, text, columns, law):
    path = tmp_path / "p.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=law):
        read_pairs(str(path), **NAMED | columns)


def test_lines_are_texts_without_labels(tmp_path):
    (tmp_path / "t.txt").write_text(
        "\ufeffA man eats.\n\n  Two dogs run.\r\nhi\n", encoding="utf-8"
    )
    rows = lines(path=str(tmp_path / "t.txt"), shortest=3)
    assert rows.texts == (("A man eats.",), ("Two dogs run.",))
    assert rows.labels is None
    with gzip.open(tmp_path / "u.txt.gz", "wb") as file:
        file.write("später\n".encode("latin-1"))
    more = lines(
        path=str(tmp_path / "u.txt.gz"), test_path=str(tmp_path / "u.txt.gz"), encoding="latin-1"
    )
    assert more.texts == (("später",),) * 2
    assert more.test_rows.tolist() == [False, True]


def test_lines_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"sp\xe4ter\n")
    with pytest.raises(DataError, match="say its `encoding`, such as `encoding: latin-1`"):
        lines(path=str(tmp_path / "t.txt"))
    (tmp_path / "e.txt").write_text("\n \n")
    with pytest.raises(DataError, match="must hold a text per line, but holds none"):
        lines(path=str(tmp_path / "e.txt"))
    (tmp_path / "e.txt").write_text("one\n\ntwo\n")
    with pytest.raises(DataError, match="every row must have a text"):
        lines(path=str(tmp_path / "e.txt"), empty="error")
