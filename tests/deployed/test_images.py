import sys

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from understudy.deployed import load_rows
from understudy.errors import DataError, MissingExtraError

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def colour(opened):
    return opened(shape=("batch", 4, 6, 3), kind=TensorProto.UINT8)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_is_one_row_of_its_pixels(colour, tmp_path):
    rows, names = load_rows([save(tmp_path / "a.png", COLOURS)], colour)
    np.testing.assert_array_equal(rows, COLOURS[np.newaxis])
    assert rows.dtype == np.uint8
    assert names == ["a.png"]


def test_a_folder_gives_its_pictures_sorted_by_their_path(colour, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.png", "deep/c.PNG")):
        save(tmp_path / "in" / name, np.full_like(COLOURS, number))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    rows, names = load_rows([tmp_path / "in"], colour)
    assert names == ["a.png", "b.png", "deep/c.PNG"]
    np.testing.assert_array_equal(rows[:, 0, 0, 0], [1, 0, 2])


def test_colours_become_greys_where_the_model_has_one_channel(opened, tmp_path):
    deployed = opened(shape=("batch", 4, 6, 1), kind=TensorProto.UINT8)
    rows, _ = load_rows([save(tmp_path / "a.png", COLOURS)], deployed)
    luma = COLOURS.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert rows.shape == (1, 4, 6, 1)
    assert np.abs(rows[0, ..., 0] - luma).max() <= 1.0


def test_greys_become_equal_colours_where_the_model_has_three(colour, tmp_path):
    rows, _ = load_rows([save(tmp_path / "g.png", COLOURS[..., 0])], colour)
    np.testing.assert_array_equal(rows[0], np.repeat(COLOURS[..., :1], 3, axis=2))


def test_transparency_is_dropped(colour, tmp_path):
    alpha = np.full((4, 6, 1), 128, np.uint8)
    path = save(tmp_path / "t.png", np.concatenate([COLOURS, alpha], axis=2))
    np.testing.assert_array_equal(load_rows([path], colour)[0][0], COLOURS)


def test_a_model_of_floats_gets_the_same_pixels_as_floats(opened, tmp_path):
    deployed = opened(shape=("batch", 4, 6, 3))
    rows, _ = load_rows([save(tmp_path / "a.png", COLOURS)], deployed)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], COLOURS)


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.FLOAT, "f4"), (TensorProto.UINT8, "u1")])
def test_white_is_the_scale_of_the_metadata(opened, tmp_path, kind, dtype):
    pixels = np.array([[0, 255], [51, 102]], np.uint8)
    deployed = opened(shape=("batch", 2, 2, 1), kind=kind, metadata={"scale": 16})
    rows, _ = load_rows([save(tmp_path / "d.png", pixels)], deployed)
    exact = np.array([[0, 16], [3.2, 6.4]])
    expected = exact.round() if dtype == "u1" else exact
    assert rows.dtype == np.dtype(dtype)
    np.testing.assert_allclose(rows[0, ..., 0], expected, rtol=1e-6)


def test_another_size_is_refused_with_both_sizes(colour, tmp_path):
    path = save(tmp_path / "big.png", np.zeros((8, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"must be 6 wide and 4 high for model\.onnx") as caught:
        load_rows([path], colour)
    assert "big.png is 5 wide and 8 high" in str(caught.value)


def test_another_size_is_brought_to_the_models_if_its_metadata_says_so(opened, tmp_path):
    deployed = opened(shape=("batch", 4, 6, 3), kind=TensorProto.UINT8, metadata={"resize": True})
    path = save(tmp_path / "big.png", np.full((8, 5, 3), 77, np.uint8))
    np.testing.assert_array_equal(load_rows([path], deployed)[0], np.full((1, 4, 6, 3), 77))


def test_sixteen_bits_per_channel_are_refused(colour, tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png must have 8 bits per channel"):
        load_rows([tmp_path / "deep.png"], colour)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_picture_is_named(colour, tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png cannot be read as a picture"):
        load_rows([tmp_path / "bad.png"], colour)


def test_a_truncated_picture_is_named(colour, tmp_path):
    path = save(tmp_path / "cut.png", COLOURS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cut\.png cannot be read as a picture"):
        load_rows([path], colour)


def test_a_model_of_tables_takes_no_pictures(opened, tmp_path):
    path = save(tmp_path / "a.png", COLOURS)
    with pytest.raises(DataError, match=r"takes rows \[4\], which is no picture"):
        load_rows([path], opened())


def test_a_folder_without_pictures_is_an_error(colour, tmp_path):
    with pytest.raises(DataError, match=r"has no pictures; known: \.png, \.jpg"):
        load_rows([tmp_path], colour)


def test_without_pillow_the_error_names_the_extra(colour, tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", COLOURS)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r'`Pillow`.*pip install "understudy\[train\]"'):
        load_rows([path], colour)
