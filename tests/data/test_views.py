"""Views: a view is a function of (seed, id, number), and its random numbers are random."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.data.views import CATALOGUE, Crop, Flip, View, Views, draw

quickly = settings(max_examples=25, deadline=None)
MASK = 2**64 - 1


def pictures(count, *, dtype=torch.uint8, size=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size + 1, channels)
    whole = torch.randint(1, 256, shape, generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else (whole / 255).to(dtype)


def all_views(seed=3):
    return Views([Crop(padding=2), Flip(), Crop(padding=1)], seed=seed)


def look(views, rows, ids, number):
    return views(rows, ids, torch.full_like(ids, number))


# --- replay --------------------------------------------------------------------------------------


@quickly
@given(seed=st.integers(0, 2**31), ids=st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
       number=st.integers(1, 1000))  # fmt: skip
def test_a_row_looks_the_same_in_any_batch(seed, ids, number):
    ids = torch.tensor(ids)
    rows = pictures(len(ids))
    views = all_views(seed)
    together = look(views, rows, ids, number)
    turned = look(views, rows.flip(0), ids.flip(0), number).flip(0)
    assert torch.equal(turned, together)
    for row in range(len(ids)):
        one = slice(row, row + 1)
        assert torch.equal(look(views, rows[one], ids[one], number), together[one])


def test_views_of_one_batch_may_differ():
    rows, ids = pictures(6), torch.arange(6)
    numbers = torch.tensor([1, 2, 3, 1, 2, 3])
    mixed = all_views()(rows, ids, numbers)
    for number in (1, 2, 3):
        expected = look(all_views(), rows, ids, number)
        assert torch.equal(mixed[numbers == number], expected[numbers == number])


def test_a_new_object_and_a_new_process_would_see_the_same():
    """The numbers themselves, so that a change of them is noticed: old runs could not go on."""
    ids, views = torch.tensor([0, 1, 2, 10**12]), torch.tensor([1, 1, 2, 3])
    assert torch.equal(
        look(all_views(), pictures(4), ids, 5), look(all_views(), pictures(4), ids, 5)
    )
    assert draw(ids, views, seed=0, stream=0).tolist() == FIRST


@pytest.mark.parametrize("what", ["view", "id", "seed"])
def test_another_view_id_or_seed_is_another_picture(what):
    rows = pictures(1).expand(200, -1, -1, -1).contiguous()
    ids = torch.arange(200)
    first = look(all_views(), rows, ids, 1)
    if what == "view":
        second = look(all_views(), rows, ids, 2)
    elif what == "id":
        second = look(all_views(), rows, ids + 1000, 1)
    else:
        second = look(all_views(seed=4), rows, ids, 1)
    same = (first == second).flatten(1).all(dim=1).float().mean()
    assert same < 0.1


def test_rows_are_left_as_they_are():
    rows = pictures(4)
    before = rows.clone()
    look(all_views(), rows, torch.arange(4), 1)
    assert torch.equal(rows, before)


def test_without_operations_nothing_is_random():
    rows = pictures(3)
    assert not Views().random
    assert all_views().random
    assert look(Views(), rows, torch.arange(3), 7) is rows


# --- the random numbers --------------------------------------------------------------------------


def splitmix(value):
    """The finaliser in Python's own integers: an independent reference."""
    value &= MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def reference(identity, view, *, seed, stream):
    golden = 0x9E3779B97F4A7C15
    x = splitmix(identity * golden + seed)
    x = splitmix(x + view * golden + stream)
    return splitmix(x + golden) >> 1


FIRST = [reference(i, v, seed=0, stream=0) for i, v in ((0, 1), (1, 1), (2, 2), (10**12, 3))]


@quickly
@given(identity=st.integers(-(2**63), 2**63 - 1), view=st.integers(0, 2**40),
       seed=st.integers(0, 2**40), stream=st.integers(0, 1000))  # fmt: skip
def test_draws_are_what_whole_numbers_say(identity, view, seed, stream):
    found = draw(torch.tensor([identity]), torch.tensor([view]), seed=seed, stream=stream)
    assert found.item() == reference(identity, view, seed=seed, stream=stream) >= 0


def uniform(counts):
    """The p value of equal chances."""
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("count", [2, 9, 10, 64])
def test_draws_are_uniform_over_ids_and_over_views(count):
    many, ones = torch.arange(20_000), torch.ones(20_000, dtype=torch.int64)
    for ids, views in ((many, ones), (ones, many), (many % 141, many // 141)):
        found = draw(ids, views, seed=5, stream=1) % count
        assert uniform(torch.bincount(found, minlength=count).numpy()) > 1e-3


def test_neighbouring_draws_have_nothing_to_do_with_each_other():
    ids, ones = torch.arange(20_000), torch.ones(20_000, dtype=torch.int64)
    base = draw(ids, ones, seed=5, stream=1) % 8
    others = [draw(ids, ones, seed=5, stream=2), draw(ids, ones + 1, seed=5, stream=1),
              draw(ids, ones, seed=6, stream=1), draw(ids + 1, ones, seed=5, stream=1)]  # fmt: skip
    for other in others:
        pairs = torch.bincount(base * 8 + other % 8, minlength=64)
        assert uniform(pairs.numpy()) > 1e-3


def test_every_bit_is_as_often_1_as_0():
    found = draw(torch.arange(10_000), torch.ones(10_000, dtype=torch.int64), seed=0, stream=0)
    for bit in range(63):
        assert 0.47 < float((found >> bit & 1).float().mean()) < 0.53


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
    assert uniform(counts.ravel()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_type_and_shape_stay(dtype, channels):
    rows = pictures(5, dtype=dtype, channels=channels)
    found = look(all_views(), rows, torch.arange(5), 1)
    assert found.dtype == dtype
    assert found.shape == rows.shape
    assert found.is_contiguous()


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


# --- chains --------------------------------------------------------------------------------------


def test_operations_follow_each_other_and_have_their_own_numbers():
    rows, ids = pictures(300), torch.arange(300)
    both = look(Views([Crop(padding=2), Crop(padding=2)], seed=1), rows, ids, 1)
    first = look(Views([Crop(padding=2)], seed=1), rows, ids, 1)
    twice = look(Views([Crop(padding=2)], seed=1), first, ids, 1)
    assert not torch.equal(both, twice)


def test_an_operation_more_leaves_those_before_it_as_they_were():
    class Keep:
        def __call__(self, rows, draws):
            draws()
            return rows

    rows, ids = pictures(20), torch.arange(20)
    longer = look(Views([Crop(), Keep()], seed=1), rows, ids, 1)
    assert torch.equal(longer, look(Views([Crop()], seed=1), rows, ids, 1))


def test_the_catalogue_holds_views():
    assert set(CATALOGUE) == {"crop", "flip"}
    assert all(isinstance(make(), View) for make in CATALOGUE.values())
