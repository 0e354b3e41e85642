from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.report.gallery import choose_rows, png_data_uri


def opened(uri):
    from PIL import Image

    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
    with Image.open(BytesIO(b64decode(data))) as image:
        image.load()
        return image


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, 1, 2, 3, 4]))
def test_pillow_reads_the_pixels_that_were_written(height, width, channels):
    shape = (height, width) if channels is None else (height, width, channels)
    pixels = np.random.default_rng(height * 41 + width).integers(0, 256, shape, dtype=np.uint8)
    image = opened(png_data_uri(pixels))
    assert image.mode == {None: "L", 1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert np.array_equal(np.asarray(image).reshape(shape), pixels)


def test_scaling_up_repeats_every_pixel():
    image = np.asarray(opened(png_data_uri(np.array([[0, 255]], dtype=np.uint8), scale=3)))
    assert image.shape == (3, 6)
    assert (image[:, :3] == 0).all()
    assert (image[:, 3:] == 255).all()


def test_large_images_are_averaged_down():
    pixels = np.zeros((200, 100, 3), dtype=np.uint8)
    pixels[:, ::2] = 200
    image = np.asarray(opened(png_data_uri(pixels, longest=50)))
    assert image.shape == (50, 25, 3)
    assert (image == 100).all()


def test_a_cut_block_is_averaged_over_what_there_is_of_it():
    image = np.asarray(opened(png_data_uri(np.full((7, 5), 90, dtype=np.uint8), longest=3)))
    assert image.shape == (3, 2)
    assert (image == 90).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"uint8 \[height, width\].*channels last"):
        png_data_uri(image)


def shares(*rows):
    return np.array(rows, dtype=np.float64)


def test_the_two_that_looks_like_a_three():
    teacher = shares([0.0, 0.0, 0.6, 0.4], [0.0, 0.0, 0.98, 0.02], [0.99, 0.01, 0, 0])
    labels = np.array([2, 2, 0])
    chosen = choose_rows(teacher, labels, teacher, teacher, count=3)
    assert chosen[0] == (0, "the 2 that looks like a 3")
    assert (1, "the 2 with a trace of a 3") in chosen


def test_names_are_used_with_their_article():
    teacher = shares([0.6, 0.4])
    told = choose_rows(teacher, np.array([0]), teacher, None, classes=["dog", "owl"])
    assert told == [(0, "the dog that looks like an owl")]
    eight = np.eye(9)[[3]] * 0.6 + np.eye(9)[[8]] * 0.4
    assert choose_rows(eight, np.array([3]), eight, None)[0][1] == "the 3 that looks like an 8"


def test_a_row_that_the_teacher_gets_wrong_teaches_nothing():
    teacher = shares([0.4, 0.6])
    assert choose_rows(teacher, np.array([0]), teacher, None) == []


def test_a_teacher_that_is_sure_of_everything_has_nothing_to_show():
    assert choose_rows(np.eye(3), np.arange(3), np.eye(3), None) == []


def test_wins_and_losses_are_told_apart():
    sure = shares([1, 0], [1, 0])
    student, control = shares([0.9, 0.1], [0.2, 0.8]), shares([0.1, 0.9], [0.7, 0.3])
    told = dict(choose_rows(sure, np.array([0, 0]), student, control, count=8))
    assert told == {
        0: "the student is right where the control says 1",
        1: "the control is right where the student says 1",
    }


def test_rows_without_a_label_are_never_called_right():
    student, control = shares([0.9, 0.1]), shares([0.1, 0.9])
    teacher = shares([0.7, 0.3])
    alone = choose_rows(teacher, None, student, control)
    assert alone == [(0, "the 0 that looks like a 1")]
    two = np.repeat(teacher, 2, axis=0)
    told = choose_rows(two, np.array([-1, 0]), two, two, count=4)
    assert [position for position, _ in told] == [1]


@given(st.integers(0, 60), st.integers(2, 6), st.integers(0, 30), st.integers(0, 9))
def test_rows_are_few_different_and_spread_over_the_classes(rows, classes, count, seed):
    rng = np.random.default_rng(seed)
    teacher, student, control = (rng.dirichlet(np.ones(classes), rows) for _ in range(3))
    labels = rng.integers(-1, classes, rows)
    told = choose_rows(teacher, labels, student, control, count=count)
    positions = [position for position, _ in told]
    assert len(positions) == len(set(positions)) <= count
    assert all(0 <= position < rows for position in positions)


def test_every_class_has_its_turn_before_any_has_a_second():
    teacher = np.concatenate(
        [np.tile([0.5, 0.3, 0.2], (20, 1)), np.tile([0.05, 0.9, 0.05], (3, 1))]
    )
    labels = np.array([0] * 20 + [1] * 3)
    told = choose_rows(teacher, labels, teacher, None, count=4)
    assert sorted(labels[position] for position, _ in told) == [0, 0, 1, 1]
