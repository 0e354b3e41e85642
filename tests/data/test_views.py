"""Views: a view is a function of (seed, id, number), and its random numbers are random."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.data.views import (
    CATALOGUE,
    MIXING,
    Colour,
    Crop,
    CutMix,
    Erase,
    Flip,
    Mixing,
    Mixup,
    Own,
    View,
    Views,
    draw,
)
from understudy.data.views.numbers import Draws, between, uniform

quickly = settings(max_examples=25, deadline=None)
MASK = 2**64 - 1


def pictures(count, *, dtype=torch.uint8, size=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size + 1, channels)
    whole = torch.randint(1, 256, shape, generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else (whole / 255).to(dtype)


def all_views(seed=3):
    return Views([Crop(padding=2), Flip(), Erase(share=0.9), Colour()], seed=seed)


def look(views, rows, ids, number):
    return views(rows, ids, torch.full_like(ids, number))


# --- replay --------------------------------------------------------------------------------------


def printed():
    """The checksum of pictures through every operation, of rows that arithmetic makes."""
    size = 6 * 9 * 8 * 3
    rows = ((torch.arange(size) * 2654435761 >> 7) % 256).to(torch.uint8).view(6, 9, 8, 3)
    ids, numbers = torch.arange(6) * 7919, torch.arange(6) // 2 + 1
    digest = hashlib.sha256()
    for last in (Mixup(), CutMix()):
        views = Views([Crop(), Flip(), Erase(), Colour(), last], seed=11)
        partners = views.partners(ids, numbers, count=6)
        own = views(rows, ids, numbers)
        other = views(rows[partners], ids[partners], numbers)
        mixed, shares = views.mixed(own, other, ids, numbers)
        for part in (partners, own, mixed, shares):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def test_another_process_sees_the_same_and_so_did_this_version_ever():
    """A change of this number makes every stored view wrong: raise the version in `describe`."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "import test_views; print(test_views.printed())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert Views().describe()["version"] == 1
    assert done.stdout.strip() == printed() == PICTURES


def test_a_row_that_is_not_alone_in_memory_looks_the_same():
    rows, ids = pictures(6, size=9), torch.arange(6)
    parts = rows.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not parts.is_contiguous()
    assert torch.equal(look(all_views(), parts, ids, 2), look(all_views(), rows, ids, 2))


@pytest.mark.parametrize("operation", [Crop(), Flip(), Erase(), Colour()])
def test_the_rows_that_were_given_stay_as_they_are(operation):
    rows = pictures(30)
    before = rows.clone()
    look(Views([operation]), rows, torch.arange(30), 1).fill_(3)
    assert torch.equal(rows, before)


def test_view_0_is_the_row_as_it_is():
    rows, ids = pictures(8), torch.arange(8)
    numbers = torch.tensor([0, 1] * 4)
    found = all_views()(rows, ids, numbers)
    assert torch.equal(found[::2], rows[::2])
    assert torch.equal(found[1::2], look(all_views(), rows, ids, 1)[1::2])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(threads):
    kept = torch.get_num_threads()
    rows, ids = pictures(2, size=200, dtype=torch.float32), torch.arange(2)
    torch.set_num_threads(1)
    expected = torch.cat([look(all_views(), rows[i : i + 1], ids[i : i + 1], 1) for i in (0, 1)])
    torch.set_num_threads(threads)
    try:
        assert torch.equal(look(all_views(), rows, ids, 1), expected)
        alone = [look(all_views(), rows[i : i + 1], ids[i : i + 1], 1) for i in (0, 1)]
        assert torch.equal(torch.cat(alone), expected)
    finally:
        torch.set_num_threads(kept)


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


def test_draws_of_a_chain_are_those_of_its_streams():
    ids, views = torch.arange(5) * 3, torch.arange(5) + 1
    made = Draws(ids, views, seed=9, operations=range(2, 5))
    for operation in (4, 2, 3):
        following = made.of(operation)
        for number in range(64):
            expected = draw(ids, views, seed=9, stream=operation * 64 + number)
            assert torch.equal(following(), expected)
        with pytest.raises(ValueError, match="may draw 64 integers per row, but number"):
            following()


def test_numbers_between_0_and_1_are_what_the_bits_say():
    ends = torch.tensor([0, 2**63 - 1, 2**62])
    assert uniform(ends).tolist() == [2.0**-53, 1 - 2.0**-53, 0.5 + 2.0**-53]
    many = draw(torch.arange(20_000), torch.ones(20_000).long(), seed=1, stream=0)
    assert stats.kstest(uniform(many).numpy(), "uniform").pvalue > 1e-3
    spread = between(many, torch.full((20_000,), 2.0), 5.0)
    assert stats.kstest(spread.numpy(), "uniform", args=(2, 3)).pvalue > 1e-3


PICTURES = "7427ace2e43126b33859aac9d65f5cb53f3cef3ed06264f92b1f01556e90206e"
FIRST = [reference(i, v, seed=0, stream=0) for i, v in ((0, 1), (1, 1), (2, 2), (10**12, 3))]


@quickly
@given(identity=st.integers(-(2**63), 2**63 - 1), view=st.integers(0, 2**40),
       seed=st.integers(0, 2**40), stream=st.integers(0, 1000))  # fmt: skip
def test_draws_are_what_whole_numbers_say(identity, view, seed, stream):
    found = draw(torch.tensor([identity]), torch.tensor([view]), seed=seed, stream=stream)
    assert found.item() == reference(identity, view, seed=seed, stream=stream) >= 0


def equal_chances(counts):
    """The p value of equal chances."""
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("count", [2, 9, 10, 64])
def test_draws_are_uniform_over_ids_and_over_views(count):
    many, ones = torch.arange(20_000), torch.ones(20_000, dtype=torch.int64)
    for ids, views in ((many, ones), (ones, many), (many % 141, many // 141)):
        found = draw(ids, views, seed=5, stream=1) % count
        assert equal_chances(torch.bincount(found, minlength=count).numpy()) > 1e-3


def test_neighbouring_draws_have_nothing_to_do_with_each_other():
    ids, ones = torch.arange(20_000), torch.ones(20_000, dtype=torch.int64)
    base = draw(ids, ones, seed=5, stream=1) % 8
    others = [draw(ids, ones, seed=5, stream=2), draw(ids, ones + 1, seed=5, stream=1),
              draw(ids, ones, seed=6, stream=1), draw(ids + 1, ones, seed=5, stream=1)]  # fmt: skip
    for other in others:
        pairs = torch.bincount(base * 8 + other % 8, minlength=64)
        assert equal_chances(pairs.numpy()) > 1e-3


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
    assert equal_chances(counts.ravel()) > 1e-3


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


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.int32]
)
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
    assert set(CATALOGUE) == {"crop", "flip", "erase", "colour", "mixup", "cutmix"}
    for kind, make in CATALOGUE.items():
        assert isinstance(make(), Mixing if kind in MIXING else View)
        assert not isinstance(make(), View if kind in MIXING else Mixing)


@pytest.mark.parametrize("operations", [[Mixup(), Crop()], [CutMix(), Flip(), Erase()]])
def test_what_mixes_must_be_last(operations):
    law = f"must be the last one, but got it as number 1 of {len(operations)}: move it to the end"
    with pytest.raises(ValueError, match=law):
        Views(operations)


def test_only_one_may_mix():
    with pytest.raises(ValueError, match="at most one view may mix rows, but got 2: keep one"):
        Views([Crop(), Mixup(), CutMix()])


def test_a_chain_describes_itself_in_plain_data():
    views = Views([Crop(padding=2), Flip(), Own(np.negative), Mixup(alpha=0.3)], seed=5)
    described = views.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["seed"] == 5
    assert described["operations"] == [
        {"kind": "crop", "padding": 2},
        {"kind": "flip", "share": 0.5},
        {"kind": "custom", "transform": "numpy.negative", "batched": False},
        {"kind": "mixup", "alpha": 0.3},
    ]


@pytest.mark.parametrize("other", [Views([Crop()]), Views([Crop(padding=2)], seed=1), Views()])
def test_other_chains_describe_themselves_otherwise(other):
    assert other.describe() != Views([Crop(padding=2)]).describe()
    assert Views([Crop(padding=2)]).describe() == Views([Crop(padding=2)]).describe()


def test_an_operation_from_elsewhere_is_described_by_its_name():
    class Keep:
        def __call__(self, rows, draws):
            return rows

    (described,) = Views([Keep()]).describe()["operations"]
    assert set(described) == {"kind"}
    assert described["kind"].endswith("Keep")
