"""One byte per number: within half a step, whatever the size of the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conformance.codec import CodecCase, CodecLaws
from understudy.errors import StoreError
from understudy.labels.codecs import Int8

quickly = settings(max_examples=150, deadline=None)


class TestInt8(CodecLaws):
    @pytest.fixture(params=[(6,), (), (2, 3), (0,)], ids=str)
    def case(self, request):
        return CodecCase(codec=Int8(), shape=request.param)


@quickly
@given(
    values=arrays(
        np.float32,
        (3, 5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_every_number_is_within_half_a_step(values):
    parts = Int8().encode(values)
    found = Int8().decode(parts, shape=(5,)).numpy().astype(np.float64)
    assert np.isfinite(found).all()
    half = parts["scales"].astype(np.float64)[:, None] / 2
    # The last factor is the rounding of the product in float32.
    assert (np.abs(found - values) <= half * (1 + 1e-5)).all()


@quickly
@given(scale=st.floats(1e-30, 1e30), seed=st.integers(0, 1000))
def test_a_step_is_a_127th_of_the_largest_number(scale, seed):
    values = np.random.default_rng(seed).standard_normal((4, 9)) * scale
    parts = Int8().encode(values.astype(np.float32))
    np.testing.assert_allclose(parts["scales"], np.abs(values).max(axis=1) / 127, rtol=1e-5)
    assert np.abs(parts["codes"].astype(int)).max(axis=1).tolist() == [127] * 4


def test_zeros_come_back_as_zeros():
    parts = Int8().encode(np.zeros((2, 3), np.float32))
    assert parts["scales"].tolist() == [0, 0]
    assert Int8().decode(parts, shape=(3,)).tolist() == [[0] * 3] * 2


def test_one_byte_per_number_and_four_per_position():
    parts = Int8().encode(np.ones((7, 4, 5), np.float32))
    assert parts["codes"].nbytes == 7 * 20
    assert parts["scales"].nbytes == 7 * 4


def test_an_infinite_number_is_refused():
    with pytest.raises(StoreError, match=r"must be finite.*use `codec: dense`"):
        Int8().encode(np.float32([[0.0, -np.inf]]))
