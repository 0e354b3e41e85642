"""Crops and flips: which ones is what the draws say, and these are uniform."""

import numpy as np
import pytest
import torch
from scipy import stats

from understudy.data.views import Crop, Flip, Views, draw


def pictures(count, *, dtype=torch.uint8, size=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size + 1, channels)
    whole = torch.randint(1, 256, shape, generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else (whole / 255).to(dtype)


def look(views, rows, ids, number):
    return views(rows, ids, torch.full_like(ids, number))


# --- crops ---------------------------------------------------------------------------------------


def offsets(found, row, padding):
    """Where each crop of one picture was cut out: found by trying every place."""
    height, width = row.shape[:2]
    padded = np.pad(row, ((padding, padding), (padding, padding), (0, 0)))
    places = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            places[padded[top : top + height, left : left + width].tobytes()] = (top, left)
    return [places[picture.tobytes()] for picture in found]


def test_a_crop_is_cut_out_of_the_padded_picture_at_uniform_places():
    row = pictures(1)[0]
    ids = torch.arange(3000)
    views = Views([Crop(padding=2)], seed=1)
    found = look(views, row.expand(3000, -1, -1, -1).contiguous(), ids, 1)
    counts = np.zeros((5, 5), int)
    for top, left in offsets(found.numpy(), row.numpy(), 2):
        counts[top, left] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.int64])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_and_flips_are_what_the_draws_say(dtype, channels):
    rows, ids = pictures(60, channels=channels).to(dtype), torch.arange(60) * 10**9
    found = look(Views([Crop(padding=3), Flip(share=0.3)], seed=2**62 + 1), rows, ids, 4)
    one = torch.full_like(ids, 4)
    top, left, side = (draw(ids, one, seed=2**62 + 1, stream=s) for s in (0, 1, 64))
    for row in range(60):
        padded = torch.zeros(14, 15, channels, dtype=dtype)
        padded[3:-3, 3:-3] = rows[row]
        y, x = int(top[row]) % 7, int(left[row]) % 7
        expected = padded[y : y + 8, x : x + 9]
        expected = expected.flip(1) if int(side[row]) < 0.3 * 2**63 else expected
        assert torch.equal(found[row], expected)


def test_a_crop_may_be_wider_than_the_picture():
    rows = pictures(50, size=2)
    found = look(Views([Crop(padding=4)]), rows, torch.arange(50), 1)
    assert found.shape == rows.shape
    assert (found == 0).flatten(1).all(dim=1).any()


def test_a_crop_without_padding_is_refused():
    with pytest.raises(ValueError, match="`padding` must be at least 1 pixel, but got 0"):
        Crop(padding=0)


# --- flips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_of_pictures_is_mirrored_left_to_right(share):
    rows = pictures(1).expand(4000, -1, -1, -1).contiguous()
    found = look(Views([Flip(share=share)], seed=2), rows, torch.arange(4000), 1)
    mirrored = (found == rows.flip(2)).flatten(1).all(dim=1)
    kept = (found == rows).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    p = stats.binomtest(int(mirrored.sum()), 4000, share).pvalue
    assert p > 1e-3


def test_a_share_of_1_is_every_picture():
    rows = pictures(500)
    assert torch.equal(look(Views([Flip(share=1.0)]), rows, torch.arange(500), 1), rows.flip(2))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_out_of_bounds_is_refused(share):
    with pytest.raises(ValueError, match="`0 < share <= 1` must hold"):
        Flip(share=share)
