"""The source `arrays`: NumPy files, mapped, checked and never unpickled."""

import numpy as np
import pytest
import torch

from understudy.data import arrays, check_rows
from understudy.errors import DataError


@pytest.fixture
def save(tmp_path):
    def save(name, array, **options):
        np.save(tmp_path / name, array, **options)
        return str(tmp_path / name)

    return save


def test_a_table_and_its_labels(save):
    rows = arrays(
        inputs=save("x.npy", np.arange(8.0).reshape(4, 2)),
        labels=save("y.npy", np.array([0, 1, 1, -1])),
    )
    check_rows(rows)
    assert rows.form == "table"
    assert rows.inputs.dtype == np.float32
    assert rows.labels.tolist() == [0, 1, 1, -1]
    assert rows.classes == ("0", "1")
    assert [column.name for column in rows.columns] == ["column 0", "column 1"]


def test_a_file_is_mapped_and_stays_as_it_is_whatever_is_written_to_the_rows(save):
    path = save("x.npy", np.zeros((4, 2, 2, 3), np.uint8))
    rows = arrays(inputs=path)
    assert isinstance(rows.inputs.base, np.memmap)
    torch.from_numpy(rows.inputs).fill_(7)  # would warn of memory that cannot be written to
    assert not np.load(path).any()


def test_keys_of_an_archive(tmp_path):
    labels = np.array(["a", "b", ""])
    np.savez_compressed(tmp_path / "d.npz", x=np.ones((3, 2), np.float32), y=labels)
    file = tmp_path / "d.npz"
    rows = arrays(inputs=f"{file}:x", labels=f"{file}:y")
    assert rows.classes == ("a", "b")
    assert rows.labels.tolist() == [0, 1, -1]
    for wrong in (str(file), f"{file}:z"):
        with pytest.raises(DataError, match=r"must name one array of .*`inputs: .*npz:x` or `inp"):
            arrays(inputs=wrong)


def test_test_arrays_stand_behind_with_ids_that_go_on(save):
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    files = {"inputs": save("x.npy", x), "labels": save("y.npy", y)}
    test = {"test_inputs": save("tx.npy", x[:2] + 1), "test_labels": save("ty.npy", y[:2])}
    rows = arrays(**files, **test)
    assert rows.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.test_rows.tolist() == [False] * 4 + [True] * 2
    assert rows.labels.tolist() == [0, 1, 0, 1, 0, 1]
    own = arrays(**files, **test, ids=save("i.npy", np.array([7, 9, 8, 3])))
    assert own.ids.tolist() == [7, 9, 8, 3, 10, 11]
    all_own = arrays(**files, **test, ids=save("j.npy", np.arange(6, dtype=np.uint8)[::-1]))
    assert all_own.ids.tolist() == [5, 4, 3, 2, 1, 0]
    without = arrays(**files, test_inputs=test["test_inputs"])
    assert without.labels.tolist() == [0, 1, 0, 1, -1, -1]


def test_the_channels_of_images_come_last(save):
    planes = np.arange(4 * 3 * 5 * 6, dtype=np.uint8).reshape(4, 3, 5, 6)
    last = planes.transpose(0, 2, 3, 1)
    for array, layout in ((planes, None), (planes, "nchw"), (last, None), (last, "nhwc")):
        rows = arrays(inputs=save("x.npy", array), layout=layout)
        np.testing.assert_array_equal(rows.inputs, last)
        assert rows.inputs.dtype == np.uint8
    grey = arrays(inputs=save("g.npy", planes[:, 0].astype(np.int32)))
    assert grey.inputs.shape == (4, 5, 6, 1)
    assert grey.inputs.dtype == np.float32
    with pytest.raises(DataError, match=r"say `layout: nchw`"):
        arrays(inputs=save("x.npy", np.zeros((2, 3, 8, 3))))


def test_the_task_and_the_classes_can_be_said(save):
    x, y = save("x.npy", np.zeros((3, 2))), save("y.npy", np.array([3, 5, 3]))
    assert arrays(inputs=x, labels=y, task="regression").labels.tolist() == [[3], [5], [3]]
    assert arrays(inputs=x, labels=y, classes=["3", "5"]).labels.tolist() == [0, 1, 0]
    assert arrays(inputs=x, classes=["a", "b"]).classes == ("a", "b")
    with pytest.raises(DataError, match=r"say `task"):
        arrays(inputs=x, labels=y)


def test_a_test_label_outside_the_classes_is_refused(save):
    x, y = save("x.npy", np.zeros((2, 2))), save("y.npy", np.array([0, 1]))
    with pytest.raises(DataError, match=r"test_labels must be 0 to 1, .* 1 row hold others: 2"):
        arrays(inputs=x, labels=y, test_inputs=x, test_labels=save("t.npy", np.array([0, 2])))


def test_python_objects_are_never_loaded(save):
    path = save("x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"holds Python objects, which are never loaded"):
        arrays(inputs=path)


def test_python_objects_in_an_archive_are_never_loaded(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([None], dtype=object))
    with pytest.raises(DataError, match=r"holds Python objects"):
        arrays(inputs=f"{tmp_path / 'd.npz'}:x")


def test_files_that_are_absent_foreign_or_cut_short_are_named(tmp_path, save):
    (tmp_path / "note.npy").write_text("hello, this is not an array")
    with pytest.raises(DataError, match=r"begins as neither .npy nor .npz"):
        arrays(inputs=str(tmp_path / "note.npy"))
    path = save("inputs.npy", np.zeros((100, 4)))
    with pytest.raises(DataError, match=r"does not exist: did you mean `.*inputs.npy`\?"):
        arrays(inputs=path.replace("inputs", "input"))
    with pytest.raises(DataError, match=r"is a folder"):
        arrays(inputs=str(tmp_path))
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        arrays(inputs=str(tmp_path / "no" / "x.npy"))
    whole = (tmp_path / "inputs.npy").read_bytes()
    (tmp_path / "inputs.npy").write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"cannot be read as a NumPy file"):
        arrays(inputs=path)
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"cannot be read as a NumPy file"):
        arrays(inputs=f"{tmp_path / 'd.npz'}:x")


@pytest.mark.parametrize(
    ("inputs", "law"),
    [
        (np.array(["a"]), "`inputs` must be numbers, but got an array of <U1"),
        (np.zeros(3), "but got shape [3]"),
        (np.zeros((2, 2, 2, 2, 2)), "but got shape [2, 2, 2, 2, 2]"),
    ],
    ids=["texts", "one axis", "five axes"],
)
def test_inputs_that_are_no_rows_are_refused(save, inputs, law):
    with pytest.raises(DataError) as caught:
        arrays(inputs=save("x.npy", inputs))
    assert law in str(caught.value)


def test_lengths_must_agree(save):
    two, three = save("x.npy", np.zeros((2, 2))), save("y.npy", np.array([0, 1, 0]))
    good = save("z.npy", np.array([0, 1]))
    with pytest.raises(DataError, match=r"`inputs` and `labels` must .* got 2 and 3"):
        arrays(inputs=two, labels=three)
    with pytest.raises(DataError, match=r"`test_inputs` and `test_labels` must .* got 2 and 3"):
        arrays(inputs=two, labels=good, test_inputs=two, test_labels=three)
    with pytest.raises(DataError, match=r"`inputs` and `ids` must .* got 2 and 3"):
        arrays(inputs=two, labels=good, ids=three)
    with pytest.raises(DataError, match=r"`test_labels` needs `test_inputs`"):
        arrays(inputs=two, labels=good, test_labels=good)
    with pytest.raises(DataError, match=r"`test_labels` needs `labels`"):
        arrays(inputs=two, test_inputs=two, test_labels=good)
    with pytest.raises(DataError, match=r"`ids` must be whole numbers"):
        arrays(inputs=two, labels=good, ids=two)


def test_what_becomes_infinite_in_float32_is_reported_as_such(save):
    rows = arrays(inputs=save("x.npy", np.array([[1e300, 0], [1, 2]])))
    with pytest.raises(DataError, match=r"1 row hold NaN or infinity \(ids 0; columns `column 0`"):
        check_rows(rows)
