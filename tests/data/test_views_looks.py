"""Erasing and colours: the boxes and factors are what the draws say, and as they are promised."""

import numpy as np
import pytest
import torch
from scipy import stats

from understudy.data.views import Colour, Erase, Views, draw
from understudy.data.views.numbers import uniform


def pictures(count, *, dtype=torch.uint8, height=24, width=20, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width, channels)
    whole = torch.randint(1, 256, shape, generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else (whole / 255).to(dtype)


def look(operation, rows, number=1, seed=3):
    ids = torch.arange(len(rows))
    return Views([operation], seed=seed)(rows, ids, torch.full_like(ids, number))


def drawn(count, number=1, seed=3, streams=6):
    """The uniform numbers of a first operation."""
    ids = torch.arange(count)
    view = torch.full_like(ids, number)
    return [uniform(draw(ids, view, seed=seed, stream=s)).numpy() for s in range(streams)]


# --- erasing -------------------------------------------------------------------------------------


def boxes(found):
    """Top, bottom, left and right of the zeros of each picture; checks that they are a box."""
    places = []
    for picture in (found == 0).all(dim=3).numpy():
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        if len(rows):
            box = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            assert picture[box[0] : box[1], box[2] : box[3]].all()
            assert picture.sum() == (box[1] - box[0]) * (box[3] - box[2])
            places.append(box)
    return np.array(places)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_a_share_of_pictures_is_erased_and_the_rest_is_as_it_was(share):
    rows = pictures(3000, channels=1)
    found = look(Erase(share=share), rows)
    erased = (found != rows).flatten(1).any(dim=1)
    assert torch.equal(found[~erased], rows[~erased])
    if share == 1.0:
        assert erased.all()
    else:
        assert stats.binomtest(int(erased.sum()), 3000, share).pvalue > 1e-3


def test_outside_the_box_a_picture_is_as_it_was():
    rows = pictures(300)
    found = look(Erase(), rows)
    assert ((found == rows) | (found == 0)).all()


def test_areas_are_uniform_between_their_bounds():
    rows = torch.ones(3000, 60, 80, 1)
    made = boxes(look(Erase(share=1.0, smallest=0.05, largest=0.2, aspect=0.5), rows))
    area = (made[:, 1] - made[:, 0]) * (made[:, 3] - made[:, 2]) / 4800
    # Whole pixels move an area by a few per cent of itself.
    assert stats.kstest(area, "uniform", args=(0.05, 0.15)).statistic < 0.04
    assert area.min() > 0.05 * 0.93
    assert area.max() < 0.2 * 1.07


def test_upright_and_flat_boxes_are_as_frequent_and_within_their_bounds():
    rows = torch.ones(3000, 80, 80, 1)
    made = boxes(look(Erase(share=1.0, smallest=0.1, largest=0.2, aspect=0.4), rows))
    tall, wide = made[:, 1] - made[:, 0], made[:, 3] - made[:, 2]
    spread = np.log(tall / wide) / np.log(1 / 0.4)
    assert stats.kstest(spread, "uniform", args=(-1, 2)).statistic < 0.04
    assert np.abs(spread).max() < 1.1


def test_a_box_lies_anywhere_where_it_fits():
    rows = torch.ones(4000, 12, 12, 1)
    made = boxes(look(Erase(share=1.0, smallest=0.25, largest=0.25, aspect=1.0), rows))
    assert set(made[:, 1] - made[:, 0]) == set(made[:, 3] - made[:, 2]) == {6}
    for start in (made[:, 0], made[:, 2]):
        assert stats.chisquare(np.bincount(start, minlength=7)).pvalue > 1e-3
    pairs = np.bincount(made[:, 0] * 7 + made[:, 2], minlength=49)
    assert stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(40, 8), (8, 40), (1, 30), (1, 1), (3, 2)])
def test_boxes_fit_into_pictures_of_any_shape(height, width):
    rows = torch.ones(300, height, width, 1)
    made = boxes(look(Erase(share=1.0, largest=1.0), rows))
    assert len(made) == 300  # each at least a pixel
    assert (made[:, 1] <= height).all()
    assert (made[:, 3] <= width).all()
    area = (made[:, 1] - made[:, 0]) * (made[:, 3] - made[:, 2])
    size = drawn(300)[1]
    expected = (0.02 + 0.98 * size) * height * width
    # Two rounded sides, of which each is off by half a pixel at most.
    assert (np.abs(area - expected) <= 0.5 * (height + width) + 0.25).all()


def test_the_box_is_what_the_draws_say():
    rows = torch.ones(50, 30, 40, 1)
    found = boxes(look(Erase(share=1.0, smallest=0.1, largest=0.3, aspect=0.5), rows))
    _, size, shape, *_ = drawn(50)
    area = (0.1 + 0.2 * size) * 1200
    low, high = np.maximum(0.5, area / 1600), np.minimum(2.0, 900 / area)
    aspect = low * (high / low) ** shape
    assert (found[:, 1] - found[:, 0] == np.round(np.sqrt(area * aspect))).all()
    assert (found[:, 3] - found[:, 2] == np.round(np.sqrt(area / aspect))).all()


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        ({"share": 0.0}, "`0 < share <= 1` must hold, but got 0.0"),
        ({"smallest": 0.0}, "`0 < smallest <= largest <= 1` must hold"),
        ({"smallest": 0.5}, "but got smallest 0.5 and largest 0.4"),
        ({"largest": 1.5}, "but got smallest 0.02 and largest 1.5"),
        ({"aspect": 0.0}, "`0 < aspect <= 1` must hold"),
        ({"aspect": 3.0}, "but got 3.0"),
    ],
)
def test_boxes_that_cannot_be_are_refused(arguments, law):
    with pytest.raises(ValueError, match=law):
        Erase(**arguments)


# --- colours -------------------------------------------------------------------------------------


def jittered(rows, *, brightness, contrast, saturation):
    """The three steps one after the other, in float64, by their factors."""
    weights = np.array([0.299, 0.587, 0.114]) if rows.shape[3] == 3 else np.ones(1)
    factors = drawn(len(rows))
    strengths = (brightness, contrast, saturation)
    scaled = zip(factors, strengths, strict=False)
    light, far, colour = (1 - s + 2 * s * f[:, None, None, None] for f, s in scaled)
    x = rows.double().numpy() * light
    grey = (x * weights).sum(axis=3, keepdims=True)
    x = far * x + (1 - far) * grey.mean(axis=(1, 2), keepdims=True)
    grey = (x * weights).sum(axis=3, keepdims=True)
    return colour * x + (1 - colour) * grey


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "strength", [(0.4, 0.0, 0.0), (0.0, 0.7, 0.0), (0.0, 0.0, 1.0), (0.4, 0.3, 0.5)]
)
def test_colours_are_brightness_then_contrast_then_saturation(channels, strength):
    names = dict(zip(("brightness", "contrast", "saturation"), strength, strict=True))
    floats = pictures(40, dtype=torch.float32, channels=channels)
    expected = jittered(floats, **names)
    assert np.abs(look(Colour(**names), floats).numpy() - expected).max() < 1e-5
    whole = pictures(40, channels=channels)
    expected = np.clip(jittered(whole, **names), 0, 255)
    found = look(Colour(**names), whole).numpy()
    assert np.abs(found - expected).max() < 0.5001


def test_whole_numbers_stop_at_the_ends_of_their_type():
    rows = torch.full((200, 4, 4, 3), 250, dtype=torch.uint8)
    found = look(Colour(brightness=1.0, contrast=0.0, saturation=0.0), rows)
    brighter = torch.from_numpy(drawn(200)[0] > 0.52)
    assert (found[brighter] == 255).all()
    assert found[~brighter].float().mean() < 200


def test_floats_are_not_cut_off():
    rows = torch.full((50, 4, 4, 1), 16.0)
    found = look(Colour(brightness=0.5, contrast=0.0, saturation=0.0), rows)
    assert 20 < found.max() < 24


def test_saturation_does_nothing_to_a_grey_picture():
    grey = pictures(40, channels=1)
    assert torch.equal(look(Colour(brightness=0.0, contrast=0.0, saturation=0.8), grey), grey)
    painted = grey.expand(-1, -1, -1, 3).contiguous()
    found = look(Colour(brightness=0.0, contrast=0.0, saturation=0.8), painted)
    assert torch.equal(found, painted)


def test_contrast_keeps_the_mean_of_a_grey_picture():
    rows = pictures(40, dtype=torch.float64, channels=1)
    found = look(Colour(brightness=0.0, contrast=0.9, saturation=0.0), rows)
    assert torch.allclose(found.mean(dim=(1, 2, 3)), rows.mean(dim=(1, 2, 3)))
    ratio = (found.std(dim=(1, 2, 3)) / rows.std(dim=(1, 2, 3))).numpy()
    assert stats.kstest(ratio, "uniform", args=(0.1, 1.8)).pvalue > 1e-3


def test_factors_are_uniform_around_1_and_have_nothing_to_do_with_each_other():
    rows = torch.full((3000, 1, 1, 1), 1.0)
    light = look(Colour(brightness=0.3, contrast=0.0, saturation=0.0), rows).flatten().numpy()
    assert stats.kstest(light, "uniform", args=(0.7, 0.6)).pvalue > 1e-3
    light, far, colour = drawn(3000)[:3]
    for one, other in ((light, far), (far, colour), (light, colour)):
        assert stats.spearmanr(one, other).pvalue > 1e-3


@pytest.mark.parametrize("channels", [2, 4])
def test_of_other_numbers_of_channels_grey_is_the_mean(channels):
    rows = pictures(10, dtype=torch.float32, channels=channels)
    found = look(Colour(brightness=0.0, contrast=0.0, saturation=1.0), rows)
    assert torch.allclose(found.mean(dim=3), rows.mean(dim=3), atol=1e-6)
    assert not torch.allclose(found, rows, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        ({"brightness": -0.1}, "`0 <= brightness <= 1` must hold, but got -0.1"),
        ({"contrast": 1.5}, "`0 <= contrast <= 1` must hold, but got 1.5"),
        ({"saturation": float("nan")}, "`0 <= saturation <= 1` must hold, but got nan"),
        ({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}, "but all are 0: remove"),
    ],
)
def test_strengths_that_cannot_be_are_refused(arguments, law):
    with pytest.raises(ValueError, match=law):
        Colour(**arguments)
