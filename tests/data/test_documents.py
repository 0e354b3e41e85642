"""Documents and completions as rows."""

import json

import pytest

from understudy.data.checks import check_rows
from understudy.data.documents import completions, divided, documents
from understudy.errors import DataError


def texts(rows):
    check_rows(rows)
    return [" | ".join(row) for row in rows.texts]


def test_a_file_a_folder_and_a_pattern_give_documents_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("two\n")
    (tmp_path / "a.txt").write_text("one\r\n")
    (tmp_path / "c.dat").write_bytes(b"\x00\x01")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "d.md").write_text("four")
    assert texts(documents(path=str(tmp_path))) == ["one\n", "two\n", "four"]
    assert texts(documents(path=str(tmp_path / "*.txt"))) == ["one\n", "two\n"]
    rows = documents(path=str(tmp_path / "a.txt"), test_path=str(tmp_path / "b.txt"))
    assert texts(rows) == ["one\n", "two\n"]
    assert rows.test_rows.tolist() == [False, True]
    assert rows.ids.tolist() == [0, 1]
    assert rows.labels is None


def test_a_file_is_divided_as_told():
    text = "a\nb\n\n \nc\n"
    assert divided(text, "file") == [text]
    assert divided(text, "blank_line") == ["a\nb\n", "c\n"]
    assert divided(text, "line") == ["a", "b", "", " ", "c"]


def test_a_column_of_a_table_and_pairs(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [{"q": "1+1=", "a": "2"}, {"q": "2+2=", "a": "4"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert texts(documents(path=str(path), column="q")) == ["1+1=", "2+2="]
    assert texts(completions(path=str(path), prompt="q", completion="a")) == [
        "1+1= | 2",
        "2+2= | 4",
    ]
    with pytest.raises(DataError, match="column `prompt` is not there"):
        completions(path=str(path))


@pytest.mark.parametrize(
    ("content", "law"),
    [(b" \n\n", "at least one document"), (b"a\x00b", "NUL"), (b"\xff\xfea", "must be utf-8")],
)
def test_what_holds_no_text_is_refused(content, law, tmp_path):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DataError, match=law):
        documents(path=str(tmp_path / "t.txt"))


def test_files_that_are_not_there_are_refused(tmp_path):
    for path in ("none.txt", "*.txt", "."):
        with pytest.raises(DataError, match="`path`"):
            documents(path=str(tmp_path / path))
