"""Written text taken apart into words, cases and marks, and put together again."""

import pytest

from understudy.data.restoring import paragraph, restoring
from understudy.deployed.restoring import put_together, restores, taken_apart
from understudy.errors import DataError

LINE = (
    ' The player \'s role @-@ playing game , " Valkyria 3 " , sold 1 @,@ 000 copies ( in Japan ) '
    "in 2 @.@ 5 days , but did n't reach <unk> , said NASA . "
)


def test_the_quirks_of_a_tokenised_collection_are_taken_back():
    words = paragraph(LINE)
    assert " ".join(word for word, _, _ in words) == (
        "the player's role-playing game valkyria 3 sold 1,000 copies in japan in 2.5 days but "
        "didn't reach <unk> said nasa"
    )
    told = {word: (case, mark) for word, case, mark in words}
    assert told["game"] == ("lower", ",")
    assert told["3"] == ("lower", ",")
    assert told["japan"] == ("Capitalized", "")
    assert told["nasa"] == ("UPPER", ".")
    assert told["<unk>"] == ("", ""), "nobody knows what it was, so it has no label"
    assert paragraph(" = = Gameplay = = ") == paragraph("  ") == []


def test_written_text_is_taken_apart_and_put_together():
    text = "In Paris, Ann said: who? She left. NASA, too"
    words = paragraph(text)
    classes = [case + mark for _, case, mark in words]
    assert restores(classes)
    assert put_together([word for word, _, _ in words], classes) == text
    assert put_together(["ann", "xy"], ["Capitalized.", None]) == "Ann. xy"
    assert put_together(["'tis", "done."], ["Capitalized", "lower."]) == "'Tis done."
    assert not restores(["O", "PER"])
    assert taken_apart("--") == ("", "lower", "")
    assert taken_apart("I")[1] == "Capitalized"


def test_rows_are_beginnings_of_paragraphs_and_rare_classes_lose_their_mark(tmp_path):
    line = "The old dog sees Ann , and Bert sees a house ."
    (tmp_path / "a.txt").write_text("\n".join(["= T =", *[line] * 6, "Why not ? NO"]))
    (tmp_path / "b.txt").write_text("Is it so ? YES !")
    rows = restoring(path=str(tmp_path / "a.txt"), test_path=str(tmp_path / "b.txt"),
                     words=5, least=4)  # fmt: skip
    assert rows.texts[0] == ("the old dog sees ann",)
    assert len(rows) == 8
    assert rows.test_rows.tolist() == [False] * 7 + [True]
    # `not?` and `NO` come once: they count as what they would be without a mark, then by case.
    assert rows.classes == ("lower", "Capitalized", "Capitalized,")
    assert rows.labels[6].tolist() == [1, 0, 1, -1, -1]
    assert rows.labels[7].tolist() == [1, 0, 0, 1, -1]
    again = restoring(path=str(tmp_path / "a.txt"), test_path=str(tmp_path / "b.txt"),
                      words=5, least=4)  # fmt: skip
    assert again.fingerprint() == rows.fingerprint()


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"words": 1}, "`words >= 2`"),
        ({"marks": ["-"]}, "others cannot be written back"),
        ({"test_path": "no.txt"}, "does not exist"),
        ({"encoding": "ascii"}, "must be ascii text"),
    ],
)
def test_what_cannot_be_restored_is_refused(changes, law, tmp_path):
    (tmp_path / "a.txt").write_text("The dog sees Zoë .\nx", encoding="utf-8")
    given = {"path": str(tmp_path / "a.txt"), **changes}
    with pytest.raises(DataError, match=law):
        restoring(**given)
    (tmp_path / "b.txt").write_text("= T =\n\n")
    with pytest.raises(DataError, match="must hold paragraphs of text"):
        restoring(path=str(tmp_path / "b.txt"))
