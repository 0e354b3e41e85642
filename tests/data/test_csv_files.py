"""The source `csv`: which columns are numbers, which are categories, and what is missing."""

import gzip

import numpy as np
import pytest

from understudy.data import check_rows, csv
from understudy.errors import DataError

PEOPLE = """age,town,income
30, Ulm ,low
41.5,Bonn,high
-2e1,Bonn,
,Köln,low
"""


@pytest.fixture
def save(tmp_path):
    def save(text, name="people.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / name)

    return save


def whole(text=PEOPLE):
    return text.replace("\n,", "\n7,")


def refused(*laws, **options):
    with pytest.raises(DataError) as caught:
        csv(**options)
    for law in laws:
        assert law in str(caught.value)


def test_numbers_stay_and_categories_become_codes_of_their_sorted_texts(save):
    rows = csv(path=save(whole()), target="income")
    check_rows(rows)
    assert rows.form == "table"
    assert [(c.name, c.categories) for c in rows.columns] == [
        ("age", None),
        ("town", ("Bonn", "Köln", "Ulm")),
    ]
    np.testing.assert_array_equal(rows.inputs, np.float32([[30, 2], [41.5, 0], [-20, 0], [7, 1]]))
    assert rows.classes == ("high", "low")
    assert rows.labels.tolist() == [1, 0, -1, 1]
    assert rows.ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(whole().encode()),
        b"\xef\xbb\xbf" + whole().encode(),
        whole().replace("\n", "\r\n").encode(),
        whole().encode() + b"\n\n",
        whole().replace("Bonn", '"Bonn"').encode(),
    ],
    ids=["gzip", "byte order mark", "carriage returns", "empty lines", "quotes"],
)
def test_the_form_of_the_file_does_not_matter(save, content):
    plain = csv(path=save(whole()), target="income")
    assert csv(path=save(content, "other"), target="income").fingerprint() == plain.fingerprint()


def test_a_delimiter_and_a_header_can_be_said(save):
    text = whole().split("\n", 1)[1].replace(",", ";")
    rows = csv(path=save(text), target="income", delimiter=";", header=["age", "town", "income"])
    assert rows.fingerprint() == csv(path=save(whole()), target="income").fingerprint()
    refused("`delimiter` must be one character", path=save(text), target="x", delimiter="ab")


def test_cells_may_hold_the_delimiter_and_line_ends_when_quoted(save):
    rows = csv(path=save('a,b,y\n1,"x, y",p\n2,"x\ny",q\n'), target="y")
    assert rows.columns[1].categories == ("x\ny", "x, y")


def test_columns_are_chosen_and_numbers_made_categories(save):
    rows = csv(path=save(whole()), target="income", columns=["town"])
    assert rows.inputs.shape == (4, 1)
    rows = csv(path=save("m,v,y\n10,1,a\n9,2,b\n10,3,a\n"), target="y", categorical=["m"])
    assert rows.columns[0].categories == ("10", "9")
    assert rows.inputs[:, 0].tolist() == [0, 1, 0]


def test_every_name_that_is_not_there_is_told_at_once_with_a_suggestion(save):
    refused(
        "2 problems",
        "column `incom` is not there: did you mean `income`?",
        "column `twn` is not there: did you mean `town`?",
        path=save(whole()),
        target="incom",
        columns=["twn"],
    )
    refused("cannot be input and target", path=save(whole()), target="age", columns=["age"])
    refused(
        "column names must differ, but these do not: `a`", path=save("a,a,y\n1,2,3\n"), target="y"
    )
    refused("at least one column besides the target", path=save("y\n1\n"), target="y")


def test_missing_cells_are_counted_with_examples_and_a_remedy(save):
    refused(
        "column `age`: 1 row without a value (ids 3)",
        "say `missing: median`",
        "`missing: drop`",
        path=save(PEOPLE),
        target="income",
    )


def test_rows_with_missing_cells_can_be_dropped_and_the_others_keep_their_ids(save):
    rows = csv(path=save("a,y\n1,p\n,q\n3,q\n"), target="y", missing="drop")
    assert rows.inputs[:, 0].tolist() == [1, 3]
    assert rows.ids.tolist() == [0, 2]
    assert rows.labels.tolist() == [0, 1]
    assert rows.skipped == 1


def test_missing_cells_can_be_filled_from_the_training_file(save):
    train = save("a,t,y\n1,u,p\n2,v,q\n9,v,q\n,,q\n")
    test = save("a,t,y\n,,p\n", "test.csv")
    rows = csv(path=train, test_path=test, target="y", missing="median")
    assert rows.inputs[3:].tolist() == [[2, 1], [2, 1]]
    empty = save("a,b,y\n,1,p\n,2,q\n", "empty.csv")
    refused("column `a`: 2 rows without", "no median", path=empty, target="y", missing="median")


@pytest.mark.parametrize("marker", ["NA", "nan", "null", "?", "-"])
def test_a_marker_among_numbers_is_a_missing_number_and_not_a_category(save, marker):
    path = save(f"a,y\n1,p\n{marker},q\n3,q\n")
    refused("column `a`: 1 row without a value (ids 1)", path=path, target="y")


def test_a_slip_in_a_column_of_numbers_is_not_a_category(save):
    numbers = "".join(f"{n},p\n" for n in range(10))
    path = save("a,y\n" + numbers + "l0,q\n")
    refused(
        "column `a` holds numbers except for 1 row: `l0`", "`categorical`", path=path, target="y"
    )
    assert len(csv(path=path, target="y", categorical=["a"]).columns[0].categories) == 11


def test_too_many_texts_are_no_categories(save):
    path = save("name,y\n" + "".join(f"n{n},{'pq'[n % 2]}\n" for n in range(1001)))
    refused("column `name` holds 1001 different texts (`n0`,", "`columns`", path=path, target="y")
    assert len(csv(path=path, target="y", categorical=["name"]).columns[0].categories) == 1001


def test_test_rows_use_what_the_training_rows_settled(save):
    train = save("a,t,y\n1,u,p\n2,v,q\n")
    rows = csv(path=train, test_path=save("t,a,y\nv,5,q\n", "t.csv"), target="y")
    assert rows.inputs[2].tolist() == [5, 1]
    assert rows.labels[2] == 1
    assert rows.ids.tolist() == [0, 1, 2]
    assert rows.test_rows.tolist() == [False, False, True]
    without = csv(path=train, test_path=save("t,a\nv,5\n", "u.csv"), target="y")
    assert without.labels[2] == -1


def test_what_the_training_rows_do_not_know_is_an_error_with_examples(save):
    train = save("a,t,y\n1,u,p\n2,v,q\n")

    def test_file(text):
        return {"path": train, "target": "y", "test_path": save(text, "t.csv")}

    refused(
        "2 problems",
        "test column `a` must hold numbers, but 1 row hold others: `x`",
        "test column `t` must hold one of the 2 categories of the training rows (`u`, `v`), "
        "but 2 rows hold others: `w`, `z`",
        **test_file("a,t,y\nx,w,p\n2,z,q\n"),
    )
    refused("test labels (`y`) must be among the 2", "`P`", **test_file("a,t,y\n1,u,P\n"))
    refused("lacks `t`", **test_file("a,y\n1,p\n"))
    refused("the test file has `t` twice", **test_file("a,t,t,y\n1,u,u,p\n"))


def test_the_target_says_the_task_where_it_is_certain(save):
    def task_of(*cells, **options):
        text = "x,y\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells))
        return csv(path=save(text), target="y", **options)

    assert task_of("b", "a").classes == ("a", "b")
    assert task_of("2", "0", "1").classes == ("0", "1", "2")
    real = task_of("2.5", "0", "")
    assert real.classes is None
    assert real.targets == ("y",)
    assert np.isnan(real.labels[2, 0])
    with pytest.raises(DataError, match=r"labels \(`y`\) are whole numbers \(25, 151, 346\)"):
        task_of("151", "25", "346")
    assert task_of("151", "25", "346", task="regression").labels[0, 0] == 151
    assert task_of("10", "9", "9", task="classification").classes == ("9", "10")
    assert task_of("1", "0", "1", classes=["0", "1", "2"]).classes == ("0", "1", "2")
    refused("must hold numbers", "`b`", path=save("x,y\n1,b\n"), target="y", task="regression")


def test_classes_written_as_numbers_are_the_same_in_both_files(save):
    train, test = save("x,y\n1,10\n2,9\n3,9\n"), save("x,y\n4,10\n", "t.csv")
    rows = csv(path=train, test_path=test, target="y", task="classification")
    assert rows.labels.tolist() == [1, 0, 0, 1]


def test_several_targets_are_a_regression(save):
    text = "x,u,v\n1,2,3.5\n2,,1\n"
    rows = csv(path=save(text), target=["u", "v"])
    assert rows.targets == ("u", "v")
    assert rows.labelled.tolist() == [True, False]
    refused("one target", path=save(text), target=["u", "v"], task="classification")
    refused(
        "every target or none, but lacks `v`",
        path=save(text),
        test_path=save("x,u\n1,2\n", "t.csv"),
        target=["u", "v"],
    )


def test_a_column_of_ids(save):
    rows = csv(path=save("k,x,y\n70,1,p\n50,2,q\n"), target="y", id_column="k")
    assert rows.ids.tolist() == [70, 50]
    assert [column.name for column in rows.columns] == ["x"]
    test = save("x,y\n3,p\n", "t.csv")
    both = csv(path=save("k,x,y\n70,1,p\n50,2,q\n"), test_path=test, target="y", id_column="k")
    assert both.ids.tolist() == [70, 50, 71]
    refused(
        "`id_column: k` must hold a whole number per row, but 1 row hold others: nan (NaN: none)",
        path=save("k,x,y\n70,1,p\n,2,q\n"),
        target="y",
        id_column="k",
    )


def test_ragged_lines_are_counted_with_their_numbers(save):
    refused(
        "must have 2 cells",
        "2 rows differ: line 3 (1 cells), line 5 (3 cells)",
        path=save("a,y\n1,p\n2\n3,q\n4,p,q\n"),
        target="y",
    )


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (b"", "is empty"),
        (b"a,y\n", "at least one row below its column names"),
        (b"a,y\n1,\xff\xfe\n", "cannot be read"),
        (gzip.compress(whole().encode())[:-12], "cannot be read as UTF-8 text, plain or gzip"),
    ],
    ids=["empty", "no rows", "not UTF-8", "gzip cut"],
)
def test_files_that_cannot_be_read_are_named(save, content, law):
    refused(law, path=save(content), target="y")
