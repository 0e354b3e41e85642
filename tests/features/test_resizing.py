"""Sizes change as PyTorch's own pooling and interpolation change them."""

import pytest
import torch
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.features.resizing import Grid, grid_of, need_grid, resize, to_maps, to_tokens

SIZES = [((6, 8), (3, 4)), ((7, 5), (3, 2)), ((9, 9), (4, 9)), ((4, 4), (1, 1))]


@pytest.fixture
def maps():
    return lambda size: torch.randn(
        2, 3, *size, generator=torch.Generator().manual_seed(1)
    ).double()


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_smaller_is_adaptive_average_pooling(maps, before, after):
    expected = F.adaptive_avg_pool2d(maps(before), after)
    torch.testing.assert_close(resize(maps(before), after), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("after", "before"), SIZES)
def test_larger_is_bilinear_interpolation(maps, before, after):
    expected = F.interpolate(maps(before), after, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(maps(before), after), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("before", "after"), [*SIZES, *((b, a) for a, b in SIZES)])
def test_nearest_is_the_nearest_pixel(maps, before, after):
    expected = F.interpolate(maps(before), after, mode="nearest")
    assert torch.equal(resize(maps(before), after, "nearest"), expected)


def test_one_axis_may_shrink_and_the_other_grow(maps):
    expected = F.interpolate(F.adaptive_avg_pool2d(maps((6, 4)), (3, 4)), (3, 8), mode="bilinear")
    torch.testing.assert_close(resize(maps((6, 4)), (3, 8)), expected, rtol=1e-12, atol=1e-12)


def test_the_same_size_is_the_same_tensor(maps):
    features = maps((5, 7))
    assert resize(features, (5, 7)) is features


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_precision_stays(maps, dtype):
    made = resize(maps((7, 5)).to(dtype), (3, 9))
    assert made.dtype == dtype
    torch.testing.assert_close(made.double(), resize(maps((7, 5)), (3, 9)), rtol=0.03, atol=0.02)


@pytest.mark.parametrize(
    ("tokens", "other", "grid"),
    [
        (64, None, Grid(8, 8, class_token=False)),
        (65, None, Grid(8, 8, class_token=True)),
        (2, None, Grid(1, 1, class_token=True)),
        (63, None, None),
        (6, (3, 2, 3), Grid(2, 3, class_token=False)),
        (7, (3, 2, 3), Grid(2, 3, class_token=True)),
        (16, (3, 2, 8), Grid(2, 8, class_token=False)),
        (16, (3, 2, 3), Grid(4, 4, class_token=False)),
        (16, (9, 8), Grid(4, 4, class_token=False)),
    ],
)
def test_the_grid_of_tokens(tokens, other, grid):
    assert grid_of(tokens, other) == grid


def test_tokens_without_a_grid_are_refused_with_the_way_out():
    with pytest.raises(ModelError, match=r"63 tokens make no square grid.*projector: attention"):
        need_grid(63, (63, 5), (3, 4, 4))


def test_maps_to_tokens_and_back(maps):
    features = maps((2, 3))
    tokens = to_tokens(features)
    assert torch.equal(tokens[0, 4], features[0, :, 1, 1])
    assert torch.equal(to_maps(tokens, Grid(2, 3, class_token=False)), features)
    first = torch.cat([torch.zeros(2, 1, 3), tokens], dim=1)
    assert torch.equal(to_maps(first, Grid(2, 3, class_token=True)), features)
