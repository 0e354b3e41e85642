"""The source `idx`: what MNIST comes in, plain or gzipped."""

import gzip
import struct

import numpy as np
import pytest

from understudy.data import check_rows, idx
from understudy.data.idx_files import read_idx
from understudy.errors import DataError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def as_idx(array):
    kind = array.dtype.str[1:]
    head = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(f">{kind}").tobytes()


@pytest.fixture
def save(tmp_path):
    def save(name, content):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return save


@pytest.fixture
def files(save):
    images = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    labels = np.array([0, 1, 2, 0, 1], np.uint8)
    return {
        "inputs": save("images.gz", gzip.compress(as_idx(images))),
        "labels": save("labels", as_idx(labels)),
    }


@pytest.mark.parametrize("kind", sorted(CODES))
def test_every_type_of_number_is_read_in_this_machines_order(tmp_path, kind):
    array = (np.arange(12).reshape(3, 4) - 3 * (kind != "u1")).astype(kind)
    (tmp_path / "x").write_bytes(as_idx(array))
    found = read_idx(tmp_path / "x")
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative


def test_images_and_labels(files):
    rows = idx(**files)
    check_rows(rows)
    assert rows.inputs.shape == (5, 2, 3, 1)
    assert rows.inputs.dtype == np.uint8
    assert rows.inputs.flags.writeable
    assert rows.labels.tolist() == [0, 1, 2, 0, 1]
    assert rows.classes == ("0", "1", "2")
    assert idx(**files, classes=["a", "b", "c"]).classes == ("a", "b", "c")


def test_test_files_stand_behind(files):
    rows = idx(**files, test_inputs=files["inputs"], test_labels=files["labels"])
    assert rows.ids.tolist() == list(range(10))
    assert rows.test_rows.tolist() == [False] * 5 + [True] * 5
    with pytest.raises(DataError, match=r"belong together"):
        idx(**files, test_inputs=files["inputs"])


def test_another_number_of_labels_is_refused(files, save):
    files["labels"] = save("few", as_idx(np.zeros(4, np.uint8)))
    with pytest.raises(DataError, match=r"`inputs` and `labels` must .* got 5 and 4"):
        idx(**files)


GOOD = as_idx(np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (b"\x89PNG\r\n", "but .* begins with"),
        (b"", "begins with"),
        (b"\0\0\x07\x01", "begins with"),
        (GOOD[:7], "ends inside its IDX header"),
        (GOOD[:-5], "must hold 12 bytes for 3 x 4 numbers, but holds 7: it is cut short"),
        (GOOD + b"x", "holds 13: it is too long"),
        (gzip.compress(GOOD)[:-9], "damaged gzip file"),
        (gzip.compress(GOOD)[:-8] + bytes(8), "damaged gzip file"),
    ],
    ids=["png", "empty", "type", "header", "short", "long", "gzip cut", "gzip sum"],
)
def test_a_file_that_is_foreign_or_damaged_is_named(save, files, content, law):
    files["inputs"] = save("bad", content)
    with pytest.raises(DataError, match=law):
        idx(**files)
