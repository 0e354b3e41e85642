"""Hidden states: the head rebuilds the logits, within what the state has lost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.codec import CodecCase, CodecLaws
from understudy.errors import StoreError
from understudy.labels.codecs import Hidden, make

quickly = settings(max_examples=40, deadline=None)
PRECISIONS = ["float32", "float16", "bfloat16", "int8"]


def head(seed=0, classes=9, wide=5):
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal((classes, wide)).astype(np.float32)
    return weight, draw.standard_normal(classes).astype(np.float32)


class TestHidden(CodecLaws):
    @pytest.fixture(params=PRECISIONS)
    def precision(self, request):
        return request.param

    @pytest.fixture(params=[True, False], ids=["bias", "no bias"])
    def case(self, precision, request):
        weight, bias = head()
        codec = Hidden(weight=weight, bias=bias if request.param else None, precision=precision)
        return CodecCase(codec=codec, shape=(5,), rounding=1e-5)


@quickly
@given(seed=st.integers(0, 2**32 - 1), precision=st.sampled_from(PRECISIONS))
def test_logits_are_within_the_stated_error(seed, precision):
    weight, bias = head(seed)
    state = np.random.default_rng(seed + 1).standard_normal((6, 5)).astype(np.float32)
    codec = Hidden(weight=weight, bias=bias, precision=precision)
    found = codec.decode(codec.encode(state), shape=(5,)).double().numpy()
    exact = state.astype(np.float64) @ weight.T.astype(np.float64) + bias
    lost = {
        "float32": np.zeros_like(state),
        "float16": np.maximum(np.abs(state) * 2.0**-11, 2.0**-25),
        "bfloat16": np.abs(state) * 2.0**-8,
        "int8": np.abs(state).max(axis=1, keepdims=True) / 254 * np.ones_like(state),
    }[precision]
    assert (np.abs(found - exact) <= lost @ np.abs(weight).T + 2e-6).all()


def test_the_head_lies_in_the_constants_and_not_in_the_parameters():
    weight, bias = head()
    codec = Hidden(weight=weight, bias=bias)
    assert codec.parameters == {"precision": "float32"}
    assert {name: part.tolist() for name, part in codec.constants.items()} == {
        "weight": weight.tolist(),
        "bias": bias.tolist(),
    }
    assert set(Hidden(weight=weight).constants) == {"weight"}


def test_constants_that_cannot_be_written_to_are_taken():
    weight, bias = head()
    weight.setflags(write=False)
    state = np.ones((2, 5), np.float32)
    codec = make("hidden", {"precision": "float32"}, {"weight": weight, "bias": bias})
    found = codec.decode(codec.encode(state), shape=(5,))
    torch.testing.assert_close(found, torch.from_numpy(state @ weight.T + bias))


def test_a_head_in_half_precision_becomes_float32():
    weight, _ = head()
    codec = Hidden(weight=weight.astype(np.float16))
    assert codec.constants["weight"].dtype == np.float32


def test_what_cannot_be_is_refused():
    weight, bias = head()
    with pytest.raises(ValueError, match=r"`weight` must be \[classes, d\]"):
        Hidden(weight=bias)
    with pytest.raises(ValueError, match=r"`bias` must be \[classes\], but got \(5,\)"):
        Hidden(weight=weight, bias=weight[0])
    with pytest.raises(ValueError, match="one of float32, float16, bfloat16, int8"):
        Hidden(weight=weight, precision="int4")
    with pytest.raises(StoreError, match=r"5 numbers per position, but got the shape \(9,\)"):
        Hidden(weight=weight).check((9,))
    with pytest.raises(StoreError, match="and not the logits"):
        Hidden(weight=weight).encode(np.zeros((2, 9), np.float32))


def test_a_scale_and_a_cap_are_those_of_the_head():
    weight, bias = head()
    state = np.random.default_rng(3).standard_normal((6, 5)).astype(np.float32)
    codec = Hidden(weight=weight, bias=bias, scale=0.5, soft_cap=1.5)
    exact = 0.5 * (state.astype(np.float64) @ weight.T + bias)
    found = codec.decode(codec.encode(state), shape=(5,)).numpy()
    np.testing.assert_allclose(found, 1.5 * np.tanh(exact / 1.5), rtol=1e-5, atol=1e-6)
    assert np.abs(exact).max() > 1.5 > np.abs(found).max()
    assert codec.parameters == {"precision": "float32", "scale": 0.5, "soft_cap": 1.5}
    again = make("hidden", codec.parameters, codec.constants)
    assert torch.equal(again.decode(again.encode(state), shape=(5,)), torch.from_numpy(found))


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"soft_cap": -1.0}, {"scale": float("nan")}])
def test_a_scale_or_cap_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="must be positive and finite"):
        Hidden(weight=head()[0], **wrong)
