"""The source `images`: one folder per class."""

import pytest
from PIL import Image

from understudy.data import check_rows, images
from understudy.errors import DataError


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pets"


def put(path, *, value=0, size=(4, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value if mode in "LI;16" else (value,) * len(mode)).save(path)


def refused(*laws, **options):
    with pytest.raises(DataError) as caught:
        images(**options)
    for law in laws:
        assert law in str(caught.value)


@pytest.fixture
def pets(root):
    put(root / "dog" / "b.png", value=4)
    put(root / "dog" / "a.png", value=3)
    put(root / "cat" / "deep" / "z.PNG", value=2)
    put(root / "cat" / "k.bmp", value=1)
    put(root / "unlabelled" / "u.png", value=5)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / ".hidden.png").write_text("no image")
    (root / ".cache").mkdir()
    return root


def test_folders_are_classes_and_files_rows_in_sorted_order(pets):
    rows = images(path=str(pets))
    check_rows(rows)
    assert rows.classes == ("cat", "dog")
    assert rows.names == (
        "pets/cat/deep/z.PNG",
        "pets/cat/k.bmp",
        "pets/dog/a.png",
        "pets/dog/b.png",
        "pets/unlabelled/u.png",
    )
    assert rows.labels.tolist() == [0, 0, 1, 1, -1]
    assert rows.inputs.shape == (5, 4, 6, 3)
    assert rows.inputs[:, 0, 0, 0].tolist() == [2, 1, 3, 4, 5]
    assert rows.ids.tolist() == [0, 1, 2, 3, 4]


def test_more_images_than_one_thread_takes_keep_their_order(root, monkeypatch):
    monkeypatch.setattr("understudy.data.decoding._SLICE", 2)
    monkeypatch.setattr("understudy.data.image_folders._BATCH", 5)
    for number in range(13):
        put(root / "ab"[number % 2] / f"{number:02}.png", value=number)
    rows = images(path=str(root))
    assert rows.inputs[:, 0, 0, 0].tolist() == [*range(0, 13, 2), *range(1, 13, 2)]


def test_a_test_folder_stands_behind(pets, tmp_path):
    put(tmp_path / "test" / "dog" / "a.png", value=9)
    rows = images(path=str(pets), test_path=str(tmp_path / "test"))
    assert rows.labels.tolist() == [0, 0, 1, 1, -1, 1]
    assert rows.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.test_rows.tolist() == [False] * 5 + [True]
    assert rows.names[-1] == "test/dog/a.png"
    put(tmp_path / "test" / "dgo" / "a.png")
    refused(
        "test classes must be among the 2",
        "`dgo`",
        path=str(pets),
        test_path=str(tmp_path / "test"),
    )


def test_every_mode_becomes_three_channels_or_one(root):
    for number, mode in enumerate(["RGB", "L", "RGBA", "1", "P"]):
        put(root / "ab"[number % 2] / f"{mode}.png", mode="L" if mode == "P" else mode)
    assert images(path=str(root)).inputs.shape == (5, 4, 6, 3)
    assert images(path=str(root), grayscale=True).inputs.shape == (5, 4, 6, 1)


def test_images_that_do_not_decode_are_counted_with_examples_or_skipped(pets):
    (pets / "dog" / "a.png").write_bytes(b"not at all")
    whole = (pets / "cat" / "k.bmp").read_bytes()
    (pets / "cat" / "k.bmp").write_bytes(whole[: len(whole) // 2])
    put(pets / "unlabelled" / "deep.png", mode="I;16")
    refused(
        "3 of 6 do not: pets/cat/k.bmp (",
        "pets/dog/a.png (cannot identify image file",
        "pets/unlabelled/deep.png (it has pixels of mode I;16, not 8 bits per channel)",
        path=str(pets),
    )
    rows = images(path=str(pets), on_bad_rows="skip")
    assert rows.ids.tolist() == [0, 3, 5]
    assert rows.inputs[:, 0, 0, 0].tolist() == [2, 4, 5]
    assert rows.skipped == 3


def test_nothing_that_decodes_is_an_error_even_when_skipping(root):
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "a.png").write_bytes(b"")
    refused("no image could be decoded", path=str(root), on_bad_rows="skip")


def test_images_of_several_sizes_need_a_size(pets):
    for number in range(6):
        put(pets / "dog" / f"big{number}.png", size=(8, 9))
    refused(
        "6 of 11 are not 4 x 6 as the first is: pets/dog/big0.png (8 x 9)",
        ", ...; bring them to one size with `size: [8, 9]`",
        path=str(pets),
    )
    assert images(path=str(pets), size=[5, 7]).inputs.shape == (11, 5, 7, 3)
    refused("must be [height, width]", path=str(pets), size=[5])


def test_a_folder_that_is_none_of_classes_is_explained(tmp_path, pets):
    refused("did you mean", path=str(pets) + "s")
    refused("is a file", path=str(pets / "dog" / "a.png"))
    refused("but holds no folder", path=str(pets / "dog"))
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    refused("must hold images (`.bmp`,", path=str(tmp_path / "empty"))
    for part in ("train", "test"):
        put(tmp_path / "parts" / part / "cat" / "a.png")
    refused("look like splits", "parts/train` and `test_path`", path=str(tmp_path / "parts"))
