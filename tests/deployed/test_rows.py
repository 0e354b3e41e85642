from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from understudy.deployed import load_rows
from understudy.errors import DataError

COLUMNS = {
    "columns": [
        {"name": "age", "categories": None},
        {"name": "work", "categories": [" Private", "State-gov", "none at all"]},
        {"name": "hours", "categories": None},
    ]
}


@pytest.fixture
def table(opened):
    return opened(shape=("batch", 3), metadata=COLUMNS)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_an_array_file_gives_its_rows_and_numbers_them(opened, tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "rows.npy", rows)
    found, names = load_rows([tmp_path / "rows.npy"], opened())
    np.testing.assert_array_equal(found, rows)
    assert names == ["rows.npy:1", "rows.npy:2", "rows.npy:3"]


def test_a_single_row_without_a_batch_axis_is_one_row(opened, tmp_path):
    np.save(tmp_path / "row.npy", np.arange(4, dtype=np.float32))
    found, names = load_rows([tmp_path / "row.npy"], opened())
    assert found.shape == (1, 4)
    assert names == ["row.npy:1"]


def test_an_archive_gives_the_array_of_its_key(opened, tmp_path):
    np.savez(tmp_path / "all.npz", first=np.zeros((2, 4)), second=np.ones((3, 4)))
    found, names = load_rows([tmp_path / "all.npz:second"], opened())
    np.testing.assert_array_equal(found, np.ones((3, 4)))
    assert len(names) == 3


def test_an_archive_of_one_array_needs_no_key(opened, tmp_path):
    np.savez(tmp_path / "one.npz", only=np.ones((2, 4)))
    assert load_rows([tmp_path / "one.npz"], opened())[0].shape == (2, 4)


@pytest.mark.parametrize("name", ["all.npz", "all.npz:third"])
def test_an_archive_of_several_arrays_lists_its_keys(opened, tmp_path, name):
    np.savez(tmp_path / "all.npz", first=np.zeros((2, 4)), second=np.ones((3, 4)))
    with pytest.raises(DataError, match=r"has the arrays first, second; .* `all\.npz:first`"):
        load_rows([tmp_path / name], opened())


def test_files_are_joined_in_their_order(opened, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 4), np.float32))
    np.save(tmp_path / "b.npy", np.ones((2, 4), np.float32))
    found, names = load_rows([tmp_path / "b.npy", tmp_path / "a.npy"], opened())
    np.testing.assert_array_equal(found[:, 0], [1, 1, 0])
    assert names == ["b.npy:1", "b.npy:2", "a.npy:1"]


def test_files_with_rows_of_different_shapes_are_an_error(opened, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 4)))
    np.save(tmp_path / "b.npy", np.zeros((1, 5)))
    with pytest.raises(DataError, match=r"one shape, but got a\.npy \[1, 4\], b\.npy \[1, 5\]"):
        load_rows([tmp_path / "a.npy", tmp_path / "b.npy"], opened())


def test_pickled_arrays_are_refused(opened, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy cannot be read as an array"):
        load_rows([tmp_path / "objects.npy"], opened())


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz"])
def test_a_damaged_array_is_named(opened, tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of use")
    with pytest.raises(DataError, match=r"bad\.np. cannot be read as an array"):
        load_rows([tmp_path / name], opened())


def test_columns_are_found_by_name_and_categories_become_their_codes(table, tmp_path):
    text = "name,hours,work,age\nAnn,40,State-gov,33\nBob,12.5, Private ,18\n"
    found, names = load_rows([write(tmp_path / "people.csv", text)], table)
    np.testing.assert_array_equal(found, np.array([[33, 1, 40], [18, 0, 12.5]], np.float32))
    assert found.dtype == np.float32
    assert names == ["people.csv:1", "people.csv:2"]


def test_a_quoted_cell_may_contain_the_delimiter_and_a_mark_may_come_first(tmp_path, opened):
    columns = {"columns": [{"name": "a", "categories": ["x, y", "z"]}]}
    deployed = opened(shape=("batch", 1), metadata=columns)
    found, _ = load_rows([write(tmp_path / "q.csv", '\ufeffa,b\n"x, y",1\n\nz,2\n')], deployed)
    np.testing.assert_array_equal(found, [[0], [1]])


def test_tabs_part_the_cells_of_a_tsv(table, tmp_path):
    path = write(tmp_path / "people.tsv", "age\twork\thours\n1\tnone at all\t2\n")
    np.testing.assert_array_equal(load_rows([path], table)[0], [[1, 2, 2]])


def test_without_stored_columns_all_columns_are_numbers_in_their_order(opened, tmp_path):
    path = write(tmp_path / "t.csv", "d,c,b,a\n1,2,3,4\n")
    np.testing.assert_array_equal(load_rows([path], opened())[0], [[1, 2, 3, 4]])


def test_a_table_of_a_header_alone_has_no_rows(table, tmp_path):
    found, names = load_rows([write(tmp_path / "t.csv", "age,work,hours\n")], table)
    assert found.shape == (0, 3)
    assert names == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv is empty; its first line must name the columns"),
        ("age,wrok,hours\n", r"must have the column `work`.*did you mean `wrok`\?"),
        ("age,work,hours\n1,Private\n", r"line 2: every line must have 3 cells .* this has 2"),
        ("age,work,hours\n1,Private,2\nx,Private,2\n", r"line 3, column `age`: .* got `x`"),
        ("age,work,hours\n,Private,2\n", r"line 2, column `age`: .* every cell, but got ``"),
        ("age,work,hours\nnan,Private,2\n", r"column `age`: .* got `nan`"),
        ("age,work,hours\n1,private,2\n", r"column `work`: .* `private`; did you mean `Private`"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error_that_names_the_place(table, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_rows([write(tmp_path / "t.csv", text)], table)


def test_a_table_in_another_encoding_is_named(table, tmp_path):
    (tmp_path / "t.csv").write_bytes("age,work,hours\n1,Privat\xe9,2\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.csv cannot be read as a table .* save it as UTF-8"):
        load_rows([tmp_path / "t.csv"], table)


@pytest.mark.parametrize("name", ["x.npy", "x.npz:key", "x.csv", "x.png", "x", "folder/x.txt"])
def test_a_missing_file_is_named_with_what_can_be_read(opened, tmp_path, name):
    with pytest.raises(DataError, match=r"there is no file .*x.*; give one of: \.npy"):
        load_rows([tmp_path / name], opened())


def test_another_kind_of_file_is_refused_with_what_can_be_read(opened, tmp_path):
    path = write(tmp_path / "rows.json", "[]")
    with pytest.raises(DataError, match=r"rows\.json is of a kind that cannot .* \.npz:KEY, \.csv"):
        load_rows([path], opened())


def test_a_folder_for_a_model_of_no_pictures_is_told_what_it_takes(table, opened, tmp_path):
    with pytest.raises(DataError, match=r"is a folder, .* takes a table: name a file in it"):
        load_rows([tmp_path], table)
    with pytest.raises(DataError, match=r"is a folder, .* takes arrays: .* known: \.npy"):
        load_rows([tmp_path], opened())


def test_no_file_at_all_is_an_error(opened):
    with pytest.raises(DataError, match="there must be a file to read"):
        load_rows([], opened())


def test_rows_of_bytes_stay_bytes(opened, tmp_path):
    rows = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    np.save(tmp_path / "rows.npy", rows)
    deployed = opened(shape=("batch", 2, 2, 1), kind=TensorProto.UINT8)
    found, _ = load_rows([tmp_path / "rows.npy"], deployed)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(deployed.predict(found), rows.reshape(2, 4))
