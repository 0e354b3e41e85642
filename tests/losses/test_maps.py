"""Losses on where a layer is active: laws, float64 references, published forms, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from conformance.loss import LossCase, LossLaws
from understudy.losses.maps import (
    AttentionTransfer,
    ChannelWise,
    attention_transfer,
    channel_wise,
)

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def random_features(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


def random_channels(student, generator):
    shape = (len(student), student.shape[1] + 2, *student.shape[2:])
    return 2 * torch.randn(shape, generator=generator).to(student.dtype)


class TestAttentionTransfer(LossLaws):
    @pytest.fixture(params=[(2.0, "code"), (2.0, "paper"), (1.0, "code"), (3.0, "code")])
    def case(self, request):
        exponent, form = request.param
        return LossCase(
            loss=AttentionTransfer(exponent=exponent, form=form),
            target=random_channels,
            equal=torch.clone,
            shape=(3, 2, 4),
            narrow=(1, 1, 2),
        )


class TestAttentionTransferOfTokens(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=AttentionTransfer(),
            target=lambda s, g: torch.randn(len(s), s.shape[1], 7, generator=g).to(s.dtype),
            equal=torch.clone,
            shape=(4, 3),
            narrow=(2, 1),
            shapes=False,
        )


class TestChannelWise(LossLaws):
    @pytest.fixture(params=[1.0, 4.0])
    def case(self, request):
        return LossCase(
            loss=ChannelWise(temperature=request.param),
            target=random_features,
            equal=torch.clone,
            shape=(3, 2, 4),
            narrow=(1, 1, 2),
        )


def attention(features, exponent):
    channels, height, width = features.shape
    places = np.zeros(height * width)
    for i in range(height):
        for j in range(width):
            powers = [abs(features[c, i, j]) ** exponent for c in range(channels)]
            places[i * width + j] = sum(powers) / channels
    return places / math.sqrt(sum(place**2 for place in places))


@quickly
@given(seed=seeds, exponent=st.sampled_from([1.0, 2.0, 3.0, 4.5]))
def test_attention_agrees_with_a_float64_reference(seed, exponent):
    draw = np.random.default_rng(seed)
    student, teacher = draw.standard_normal((4, 3, 2, 5)), 9 * draw.standard_normal((4, 6, 2, 5))
    squares = np.array(
        [
            (attention(s, exponent) - attention(t, exponent)) ** 2
            for s, t in zip(student, teacher, strict=True)
        ]
    )
    own, goal = torch.tensor(student), torch.tensor(teacher)
    code = attention_transfer(own, goal, exponent=exponent)
    np.testing.assert_allclose(code.numpy(), squares.mean(axis=1), rtol=1e-9)
    paper = attention_transfer(own, goal, exponent=exponent, form="paper")
    np.testing.assert_allclose(paper.numpy(), np.sqrt(squares.sum(axis=1)) / 2, rtol=1e-9)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_the_gradient_of_attention_is_that_of_its_value(exponent, form):
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 2, 3, generator=draw, dtype=torch.float64)
    assert gradcheck(
        lambda s: attention_transfer(s, teacher, exponent=exponent, form=form), student
    )


def test_the_paper_is_larger_than_the_code_by_23_times_or_more_on_maps_of_8x8():
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 64, 16, 8, 8, generator=draw).relu()
    # The farthest that two maps of 8x8 can be apart: all on one pixel, each on another.
    student[0, :, 0, 0], student[0, :, 1:], student[0, :, :, 1:] = 1, 0, 0
    teacher[0] = student[0].flip(2)
    code = attention_transfer(student, teacher)
    paper = attention_transfer(student, teacher, form="paper")
    ratio = paper / code
    assert ratio.min().item() == pytest.approx(64 / (2 * math.sqrt(2)), rel=1e-5)
    assert ratio.median() > 30


def test_neither_size_nor_sign_nor_the_order_of_channels_moves_attention():
    draw = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 3, 4, 2, 3, generator=draw, dtype=torch.float64)
    values = attention_transfer(student, teacher)
    moved = attention_transfer(-1e-3 * student, 1e3 * teacher.flip(1))
    torch.testing.assert_close(moved, values)


def test_a_high_power_of_large_features_stays_finite_with_its_gradient():
    draw = torch.Generator().manual_seed(1)
    student = (1e4 * torch.randn(3, 4, 2, 3, generator=draw)).requires_grad_()
    teacher = 1e4 * torch.randn(3, 4, 2, 3, generator=draw)
    values = attention_transfer(student, teacher, exponent=16.0)
    values.sum().backward()
    assert (values > 0).all()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def softmax(numbers):
    shifted = np.exp(numbers - numbers.max())
    return shifted / shifted.sum()


@quickly
@given(seed=seeds, temperature=st.floats(0.5, 8.0))
def test_channels_agree_with_a_float64_reference_in_value_and_gradient(seed, temperature):
    student, teacher = 3 * np.random.default_rng(seed).standard_normal((2, 4, 3, 2, 5))
    values, slopes = np.zeros(4), np.zeros_like(student)
    for i in range(4):
        for c in range(3):
            own, goal = (softmax(x[i, c] / temperature) for x in (student, teacher))
            values[i] += temperature**2 * (goal * (np.log(goal) - np.log(own))).sum() / 3
            slopes[i, c] = temperature * (own - goal) / 3
    learner = torch.tensor(student, requires_grad=True)
    exact = channel_wise(learner, torch.tensor(teacher), temperature=temperature)
    np.testing.assert_allclose(exact.detach().numpy(), values, rtol=1e-8, atol=1e-12)
    exact.sum().backward()
    np.testing.assert_allclose(learner.grad.numpy(), slopes, rtol=1e-8, atol=1e-12)


def test_a_constant_added_to_a_channel_does_not_count():
    draw = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 3, 4, 2, 3, generator=draw, dtype=torch.float64)
    shift = torch.randn(3, 4, 1, 1, generator=draw, dtype=torch.float64)
    values = channel_wise(student, teacher, temperature=2.0)
    torch.testing.assert_close(channel_wise(student + shift, teacher, temperature=2.0), values)


def test_a_schedule_overrides_the_temperature_of_the_module_for_one_call():
    student, teacher = torch.randn(2, 3, 4, 2, 3, generator=torch.Generator().manual_seed(5))
    loss = ChannelWise(temperature=2.0)
    assert torch.equal(
        loss(student, teacher, temperature=7.0), channel_wise(student, teacher, temperature=7.0)
    )
    assert torch.equal(loss(student, teacher), channel_wise(student, teacher, temperature=2.0))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("loss", [attention_transfer, channel_wise])
@pytest.mark.parametrize("shape", [(2, 5, 1, 1), (2, 1, 5), (2, 5)])
def test_a_layer_with_one_place_is_refused_as_it_would_teach_nothing(loss, shape):
    with pytest.raises(ValueError, match="`places >= 2` must hold, but got student"):
        loss(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.usefixtures("as_users_run_it")
def test_maps_of_another_size_or_with_other_channels_are_refused():
    small, large = torch.zeros(2, 3, 2, 4), torch.zeros(2, 3, 4, 2)
    law = r"must hold, but got student \(2, 3, 2, 4\) and teacher \(2, 3, 4, 2\)"
    for loss in (attention_transfer, channel_wise):
        with pytest.raises(ValueError, match=law):
            loss(small, large)
    with pytest.raises(ValueError, match=r"must hold, but got student \(2, 3, 2, 4\) and teacher"):
        channel_wise(small, torch.zeros(2, 6, 2, 4))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("bad", [0.5, 0.0, -2.0, math.nan, math.inf])
def test_an_exponent_below_one_is_refused(bad):
    law = f"`exponent >= 1` must hold, but got exponent={bad}"
    with pytest.raises(ValueError, match=law):
        AttentionTransfer(exponent=bad)
    with pytest.raises(ValueError, match=law):
        attention_transfer(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), exponent=bad)


@pytest.mark.usefixtures("as_users_run_it")
def test_other_bad_constants_are_refused():
    with pytest.raises(ValueError, match=r"`form` must be one of code, paper, but got form='rd'"):
        AttentionTransfer(form="rd")
    with pytest.raises(ValueError, match=r"`temperature > 0` must hold, but got temperature=0.0"):
        ChannelWise(temperature=0.0)
    with pytest.raises(ValueError, match=r"`temperature > 0` must hold, but got temperature=-1.0"):
        channel_wise(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), temperature=-1.0)


def test_modules_print_their_constants():
    assert str(AttentionTransfer()) == "AttentionTransfer(exponent=2.0, form='code')"
    assert str(ChannelWise(temperature=2.5)) == "ChannelWise(temperature=2.5)"
