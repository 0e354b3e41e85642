"""Mixing: partners and shares are functions of (seed, id, view), and have their distributions."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.data.views import Crop, CutMix, Flip, Mixup, Views, draw
from understudy.data.views.mixing import STEPS, symmetric_beta

quickly = settings(max_examples=25, deadline=None)
MANY = 20_000


def pictures(count, *, dtype=torch.uint8, height=10, width=8, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(0, 256, (count, height, width, channels), generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else (whole / 255).to(dtype)


def numbers(ids, view=1):
    return torch.full_like(ids, view)


def shares_drawn(ids, view, *, alpha, seed, place=0):
    """What the first draw after the partner's says of shares."""
    streams = [draw(ids, numbers(ids, view), seed=seed, stream=place * 64 + s) for s in (1, 2)]
    return symmetric_beta(*streams, alpha)


# --- the distribution of shares ------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 1.7, 8.0, 400.0])
def test_shares_have_a_beta_distribution(alpha):
    ids = torch.arange(MANY)
    found = shares_drawn(ids, 1, alpha=alpha, seed=5).numpy()
    beta = stats.beta(alpha, alpha)
    # Kolmogorov and Smirnov's distance between the steps, where both are what they claim.
    steps = np.unique(found)
    below = np.searchsorted(np.sort(found), steps, side="right") / MANY
    distance = np.abs(below - beta.cdf(steps + 0.5 / STEPS)).max()
    assert stats.kstwo(MANY).sf(distance) > 1e-3
    assert found.min() >= 0
    assert found.max() <= 1
    assert abs(found.mean() - 0.5) < 4 * beta.std() / MANY**0.5
    spread = (found - 0.5) ** 2
    assert abs(spread.mean() - beta.var()) < 4 * spread.std() / MANY**0.5


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e6, 1e300])
def test_shares_of_extreme_parameters_are_still_numbers(alpha):
    found = shares_drawn(torch.arange(1000), 1, alpha=alpha, seed=5)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found == 0.5).all() if alpha > 1e12 else len(found.unique()) > 1


def test_shares_are_whole_steps_and_exact_in_float32():
    found = shares_drawn(torch.arange(1000), 1, alpha=0.2, seed=5)
    assert torch.equal((found * STEPS).round() / STEPS, found)
    assert torch.equal(found.float().double(), found)


@quickly
@given(ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=40), alpha=st.floats(0.01, 10))
def test_a_share_does_not_depend_on_the_batch(ids, alpha):
    ids = torch.tensor(ids)
    together = shares_drawn(ids, 3, alpha=alpha, seed=1)
    for row in range(len(ids)):
        assert torch.equal(
            shares_drawn(ids[row : row + 1], 3, alpha=alpha, seed=1), together[row : row + 1]
        )


# --- partners ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_every_row_of_the_pool_is_as_likely_a_partner(count):
    ids = torch.arange(MANY)
    found = Views([Mixup()], seed=2).partners(ids, numbers(ids), count=count)
    counts = torch.bincount(found, minlength=count).numpy()
    assert len(counts) == count
    assert count == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_partners_and_shares_change_with_seed_id_and_view_and_with_nothing_else():
    ids = torch.arange(1000)
    base = Views([Mixup()], seed=2).partners(ids, numbers(ids), count=50)
    again = Views([Mixup(alpha=1.0)], seed=2).partners(ids, numbers(ids), count=50)
    assert torch.equal(base, again)
    turned = Views([Mixup()], seed=2).partners(ids.flip(0), numbers(ids), count=50)
    assert torch.equal(turned.flip(0), base)
    others = [
        Views([Mixup()], seed=3).partners(ids, numbers(ids), count=50),
        Views([Mixup()], seed=2).partners(ids + 1000, numbers(ids), count=50),
        Views([Mixup()], seed=2).partners(ids, numbers(ids, 2), count=50),
    ]
    for other in others:
        assert (base == other).float().mean() < 0.1
    shares = shares_drawn(ids, 1, alpha=1.0, seed=2)
    assert stats.spearmanr(base, shares).pvalue > 1e-3


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="must hold at least one row, but got 0"):
        Views([Mixup()]).partners(torch.arange(3), torch.ones(3).long(), count=0)


# --- mixup ---------------------------------------------------------------------------------------


def test_mixup_is_the_weighted_mean_rounded_to_the_nearest():
    ids = torch.arange(40)
    rows, partners = pictures(40), pictures(40, seed=1)
    found, shares = Views([Mixup(alpha=1.0)], seed=7).mixed(rows, partners, ids, numbers(ids))
    assert found.dtype == torch.uint8
    assert shares.dtype == torch.float32
    expected_shares = shares_drawn(ids, 1, alpha=1.0, seed=7)
    assert torch.equal(shares.double(), expected_shares)
    for row in range(40):
        share = Fraction(int(expected_shares[row] * STEPS), STEPS)
        pairs = zip(rows[row].flatten().tolist(), partners[row].flatten().tolist(), strict=True)
        expected = [round(share * own + (1 - share) * other) for own, other in pairs]
        assert found[row].flatten().tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mixup_of_floats_keeps_their_type(dtype):
    ids = torch.arange(40)
    rows, partners = pictures(40, dtype=dtype), pictures(40, dtype=dtype, seed=1)
    found, shares = Views([Mixup(alpha=1.0)]).mixed(rows, partners, ids, numbers(ids))
    assert found.dtype == dtype
    weights = shares.double()[:, None, None, None]
    expected = weights * rows.double() + (1 - weights) * partners.double()
    tolerance = {torch.float32: 1e-7, torch.float64: 1e-15, torch.bfloat16: 4e-3}[dtype]
    assert (found.double() - expected).abs().max() <= tolerance


def test_mixup_of_a_table():
    ids = torch.arange(30)
    rows, partners = torch.randn(30, 5), torch.randn(30, 5)
    found, shares = Views([Mixup()]).mixed(rows, partners, ids, numbers(ids))
    expected = shares[:, None] * rows + (1 - shares[:, None]) * partners
    assert torch.allclose(found, expected)


def test_a_row_mixed_with_itself_is_itself():
    ids = torch.arange(40)
    for rows in (pictures(40), pictures(40).long() * 10**6):
        assert torch.equal(Views([Mixup()]).mixed(rows, rows, ids, numbers(ids))[0], rows)
    rows = pictures(40)
    assert torch.equal(Views([CutMix()]).mixed(rows, rows, ids, numbers(ids))[0], rows)


# --- CutMix --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (11, 6), (1, 9), (1, 1)])
def test_a_share_is_exactly_what_is_left_of_the_own_pixels(dtype, height, width):
    ids = torch.arange(300)
    rows = torch.ones(300, height, width, 2, dtype=dtype)
    found, shares = Views([CutMix()]).mixed(rows, torch.zeros_like(rows), ids, numbers(ids))
    left = found[..., 0].double().flatten(1).sum(dim=1)
    assert torch.equal(shares, (left / (height * width)).float())
    assert torch.equal(found[..., 0], found[..., 1])
    if height > 9:
        assert len(shares.unique()) > 20


def test_the_box_is_where_the_draws_say_and_holds_the_partner():
    ids, height, width = torch.arange(200), 20, 30
    rows, partners = pictures(200, height=20, width=30), pictures(200, height=20, width=30, seed=1)
    found, _ = Views([Flip(), CutMix(alpha=0.8)], seed=6).mixed(
        rows, partners, ids, numbers(ids, 5)
    )
    side = (1 - shares_drawn(ids, 5, alpha=0.8, seed=6, place=1)).sqrt()
    centre_y, centre_x = (
        draw(ids, numbers(ids, 5), seed=6, stream=64 + s) % n for s, n in ((3, 20), (4, 30))
    )
    for row in range(200):
        tall, wide = int(side[row] * height), int(side[row] * width)
        top, left = int(centre_y[row]) - tall // 2, int(centre_x[row]) - wide // 2
        expected = rows[row].clone()
        for y in range(max(top, 0), min(top + tall, height)):
            for x in range(max(left, 0), min(left + wide, width)):
                expected[y, x] = partners[row, y, x]
        assert torch.equal(found[row], expected)


def test_boxes_are_centred_anywhere():
    ids = torch.arange(4000)
    rows = torch.ones(4000, 16, 16, 1)
    found, _ = Views([CutMix(alpha=50.0)], seed=1).mixed(
        rows, torch.zeros_like(rows), ids, numbers(ids)
    )
    taken = (found == 0).float().mean(dim=0)[..., 0]
    assert torch.allclose(taken, taken.flip(0), atol=0.05)
    assert torch.allclose(taken, taken.T, atol=0.05)
    assert taken.min() > 0.1  # corners too


# --- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [Mixup(alpha=1.0), CutMix()])
def test_what_was_given_stays_as_it_is(operation):
    ids = torch.arange(20)
    rows, partners = pictures(20), pictures(20, seed=1)
    copies = rows.clone(), partners.clone()
    found, _ = Views([operation]).mixed(rows, partners, ids, numbers(ids))
    found.fill_(3)
    assert torch.equal(rows, copies[0])
    assert torch.equal(partners, copies[1])


@pytest.mark.parametrize("operation", [Mixup(alpha=1.0), CutMix()])
def test_view_0_is_all_its_own(operation):
    ids = torch.arange(20)
    rows, partners = pictures(20), pictures(20, seed=1)
    views = torch.tensor([0, 1] * 10)
    found, shares = Views([operation]).mixed(rows, partners, ids, views)
    assert torch.equal(found[::2], rows[::2])
    assert (shares[::2] == 1).all()
    assert (shares[1::2] < 1).any()


def test_a_chain_that_mixes_nothing_says_so():
    ids, rows = torch.arange(5), pictures(5)
    views = Views([Crop()])
    assert not views.mixes
    found, shares = views.mixed(rows, rows.flip(0), ids, numbers(ids))
    assert torch.equal(found, rows)
    assert torch.equal(shares, torch.ones(5))


@pytest.mark.parametrize("operation", [Mixup(), CutMix()])
def test_a_chain_shows_rows_before_they_are_mixed(operation):
    ids, rows = torch.arange(30), pictures(30)
    alone, mixing = Views([Crop(), Flip()], seed=4), Views([Crop(), Flip(), operation], seed=4)
    assert mixing.mixes
    assert mixing.random
    assert torch.equal(mixing(rows, ids, numbers(ids)), alone(rows, ids, numbers(ids)))


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_a_parameter_that_no_distribution_has_is_refused(kind, alpha):
    with pytest.raises(ValueError, match="`alpha > 0` must hold and be finite, but got"):
        kind(alpha=alpha)
