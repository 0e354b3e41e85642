"""Dense codecs: float32 bit for bit, the halves within half a unit in the last place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conformance.codec import CodecCase, CodecLaws
from understudy.errors import StoreError
from understudy.labels.codecs import Dense

quickly = settings(max_examples=100, deadline=None)
numbers = st.floats(width=32, allow_nan=False)


def there_and_back(codec, values):
    return codec.decode(codec.encode(values), shape=values.shape[1:]).numpy()


class TestDense(CodecLaws):
    @pytest.fixture(params=["float32", "float16", "bfloat16"])
    def precision(self, request):
        return request.param

    @pytest.fixture(params=[(6,), (), (2, 3), (0,)], ids=str)
    def case(self, precision, request):
        return CodecCase(codec=Dense(precision=precision), shape=request.param)


@quickly
@given(arrays(np.float32, (3, 4), elements=numbers))
def test_float32_is_exact(values):
    assert there_and_back(Dense(), values).tobytes() == values.tobytes()


@quickly
@given(arrays(np.float32, (3, 4), elements=st.floats(-65504, 65504, width=32)))
def test_float16_is_within_its_stated_error(values):
    gap = np.abs(there_and_back(Dense(precision="float16"), values).astype(np.float64) - values)
    assert (gap <= np.maximum(np.abs(values.astype(np.float64)) * 2.0**-11, 2.0**-25)).all()


@quickly
@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_bfloat16_is_within_its_stated_error_and_what_pytorch_has(values):
    found = there_and_back(Dense(precision="bfloat16"), values)
    gap = np.abs(found.astype(np.float64) - values)
    assert (gap <= np.maximum(np.abs(values.astype(np.float64)) * 2.0**-8, 2.0**-134)).all()
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_bytes_per_number(precision, size):
    parts = Dense(precision=precision).encode(np.zeros((5, 3), np.float32))
    assert parts["values"].nbytes == 5 * 3 * size


def test_what_does_not_fit_is_refused_with_what_does():
    values = np.float32([[1.0, 70000.0], [-70001.0, 2.0]])
    law = r"fit into float16, but 2 do not, one of them 70000: use `precision: bfloat16"
    with pytest.raises(StoreError, match=law):
        Dense(precision="float16").encode(values)
    with pytest.raises(StoreError, match=r"bfloat16, but 1 do not.*use `precision: float32`"):
        Dense(precision="bfloat16").encode(np.float32([[3.4028e38]]))
    assert there_and_back(Dense(precision="bfloat16"), values)[0, 1] == pytest.approx(7e4, rel=0.01)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_class_that_is_ruled_out_stays_so(precision):
    values = np.float32([[0.5, -np.inf]])
    assert there_and_back(Dense(precision=precision), values).tolist() == values.tolist()


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="did you mean `float16`"):
        Dense(precision="float61")
