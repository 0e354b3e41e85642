"""The random numbers of views: what whole numbers say, and random."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.data.views import draw
from understudy.data.views.numbers import Draws, between, uniform

quickly = settings(max_examples=25, deadline=None)
MASK = 2**64 - 1


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
