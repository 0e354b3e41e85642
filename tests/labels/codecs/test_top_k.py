"""The k likeliest classes: exact, with a rest that is exact too."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.codec import CodecCase, CodecLaws
from understudy.errors import StoreError
from understudy.labels.codecs import TopK
from understudy.losses.sparse import outcome_kl

quickly = settings(max_examples=60, deadline=None)
logits = st.tuples(st.integers(0, 2**32 - 1), st.integers(3, 60), st.floats(0.0, 40.0))


def rows_of(case, rows=6):
    seed, classes, scale = case
    draw = np.random.default_rng(seed)
    return (scale * draw.standard_normal((rows, classes))).astype(np.float32)


def outcomes(values, **options):
    codec = TopK(**options)
    return codec.decode(codec.encode(values), shape=values.shape[1:])


def plain(values, k):
    """Log-probabilities of the k likeliest, the likeliest first, and of the rest, in float64."""
    rows = values.astype(np.longdouble)
    rows = -np.sort(-(rows - rows.max(axis=1, keepdims=True)), axis=1)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows[:, :k], np.log(np.exp(rows[:, k:]).sum(axis=1))


class TestTopK(CodecLaws):
    @pytest.fixture(params=[(1, "float32"), (7, "float32"), (7, "float16")], ids=str)
    def case(self, request):
        k, precision = request.param
        return CodecCase(codec=TopK(k=k, precision=precision), shape=(12,))


@quickly
@given(logits, st.integers(1, 59))
def test_float32_log_probabilities_are_within_their_stated_error(case, k):
    values = rows_of(case)
    k = min(k, values.shape[1] - 1)
    found, (logs, rest) = outcomes(values, k=k), plain(values, k)
    np.testing.assert_allclose(found.log_mass.double(), logs, rtol=2.0**-22, atol=1e-12)
    np.testing.assert_allclose(found.rest.double(), rest, rtol=2.0**-22, atol=1e-12)
    picked = np.take_along_axis(values, found.ids.numpy(), axis=1)
    assert picked.tolist() == (-np.sort(-values, axis=1)[:, :k]).tolist()


@quickly
@given(logits, st.integers(1, 59))
def test_float16_log_probabilities_are_within_their_stated_error_and_sum_to_one(case, k):
    values = rows_of(case)
    k = min(k, values.shape[1] - 1)
    found, (logs, rest) = outcomes(values, k=k, precision="float16"), plain(values, k)
    every = np.concatenate([logs, rest[:, None]], axis=1)
    entropy = -(np.exp(every) * every).sum(axis=1, keepdims=True)
    gap = np.abs(torch.cat([found.log_mass, found.rest[:, None]], dim=1).double().numpy() - every)
    assert (gap <= (np.abs(every) + entropy) * 2.0**-11 + 1e-6).all()
    total = found.log_mass.double().exp().sum(dim=1) + found.rest.double().exp()
    np.testing.assert_allclose(total, 1, atol=1e-6)


@quickly
@given(logits, st.integers(1, 59), st.sampled_from(["float32", "float16"]))
def test_the_divergence_of_what_comes_back_is_never_negative(case, k, precision):
    values = rows_of(case)
    student = torch.from_numpy(rows_of((case[0] + 1, *case[1:])))
    found = outcomes(values, k=min(k, values.shape[1] - 1), precision=precision)
    for own in (student, torch.from_numpy(values)):
        value = outcome_kl(own, found.ids, found.log_mass, found.rest, temperature=1.0)
        assert (value >= -1e-5).all()


@pytest.mark.parametrize(
    ("classes", "kind"),
    [(255, "u1"), (256, "u1"), (257, "u2"), (65535, "u2"), (65536, "u2"), (65537, "u4")],
)
def test_numbers_of_classes_take_the_smallest_type(classes, kind):
    values = np.zeros((2, classes), np.float32)
    values[0, -1], values[1, 0] = 5.0, 5.0
    codec = TopK(k=1)
    parts = codec.encode(values)
    assert parts["ids"].dtype == np.dtype(kind)
    assert codec.decode(parts, shape=(classes,)).ids.tolist() == [[classes - 1], [0]]


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("float16", 2)])
def test_bytes_per_position(precision, size):
    parts = TopK(k=5, precision=precision).encode(np.zeros((3, 1000), np.float32))
    assert sum(part.nbytes for part in parts.values()) == 3 * (5 * (2 + size) + size)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_extreme_rows(precision):
    values = np.full((4, 6), -np.inf, np.float32)
    values[0, 2] = 3.0  # all mass on one class
    values[1] = 0.0  # uniform
    values[2, :2] = 1e30, -1e30  # huge
    values[3, :4] = 0.0  # fewer classes than are listed
    found = outcomes(values, k=5, precision=precision)
    assert found.ids[0].tolist() == [2, -1, -1, -1, -1]
    assert found.log_mass[0, 0] == 0
    assert found.rest[[0, 2, 3]].tolist() == [-np.inf] * 3
    np.testing.assert_allclose(found.log_mass[1].exp(), 1 / 6, rtol=1e-3)
    np.testing.assert_allclose(found.rest[1].exp(), 1 / 6, rtol=1e-3)
    assert found.log_mass[2, 0] == 0
    assert sorted(found.ids[3].tolist()) == [-1, 0, 1, 2, 3]
    total = found.log_mass.double().exp().sum(dim=1) + found.rest.double().exp()
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`k >= 1` must hold, but got k=0"):
        TopK(k=0)
    with pytest.raises(ValueError, match="one of float32, float16"):
        TopK(precision="bfloat16")
    with pytest.raises(StoreError, match=r"got k=50 and 10 classes: use `k: 9`"):
        TopK(k=50).encode(np.zeros((1, 10), np.float32))
    with pytest.raises(StoreError, match="one row of 2 or more classes"):
        TopK().check((4, 4))
