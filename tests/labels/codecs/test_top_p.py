"""The fewest classes that hold a share: which they are, how exact they are, what they cost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.codec import CodecCase, CodecLaws
from understudy.errors import StoreError
from understudy.labels.codecs import TopK, TopP, top_p
from understudy.labels.codecs.form import Stream

# Fixtures are functions here, so that one for all examples does no harm.
quickly = settings(max_examples=80, deadline=None)


def rows_of(seed, classes, scale, rows=6):
    draw = np.random.default_rng(seed)
    return (scale * draw.standard_normal((rows, classes))).astype(np.float32)


def softmax(values):
    shifted = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def outcomes(values, **options):
    codec = TopP(**options)
    return codec.decode(codec.encode(values), shape=values.shape[1:])


def size_of(parts):
    return sum(
        part.content.nbytes + part.lengths.nbytes if isinstance(part, Stream) else part.nbytes
        for part in parts.values()
    )


class TestTopP(CodecLaws):
    @pytest.fixture(params=[(0.5, 4, 1), (0.98, 11, 1), (1.0, 11, 3), (0.1, 5, 5)], ids=str)
    def case(self, request):
        p, k, minimum = request.param
        return CodecCase(codec=TopP(p=p, k=k, minimum=minimum), shape=(12,))


class TestTopPOfAPeakedTeacher(CodecLaws):
    @pytest.fixture
    def case(self):
        return CodecCase(codec=TopP(), shape=(300,), scale=9.0)


class TestTopPOfALongList(CodecLaws):
    @pytest.fixture
    def case(self):
        return CodecCase(codec=TopP(p=1.0, k=200), shape=(300,), scale=1.0)


@quickly
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 400),
    scale=st.sampled_from([0.0, 0.3, 2.0, 6.0, 60.0]),
    p=st.floats(0.05, 1.0),
    k=st.integers(1, 100),
    minimum=st.integers(1, 100),
)
def test_it_lists_the_fewest_that_hold_p_each_within_a_step(seed, classes, scale, p, k, minimum):
    values = rows_of(seed, classes, scale)
    k = min(k, classes - 1)
    minimum = min(minimum, k)
    found = outcomes(values, p=p, k=k, minimum=minimum)
    for row, mass in enumerate(softmax(values)):
        order = -np.sort(-mass)
        count = int((np.cumsum(order) < p - 1e-9).sum()) + 1
        told = int((order >= 2.0**-16).sum())
        ids = found.ids[row][found.ids[row] >= 0].numpy()
        # Rounding may see one class more or less where the share is met exactly.
        allowed = {max(1, min(max(n, minimum), k, told)) for n in (count, count + 1)}
        assert len(ids) in allowed
        np.testing.assert_allclose(-np.sort(-mass[ids]), order[: len(ids)])
        step = min(2.0**-10, mass[ids].min() / 2)
        rest = max(0.0, 1 - order[: len(ids)].sum())
        told_mass = found.log_mass[row][: len(ids)].double().exp().numpy()
        assert np.abs(told_mass - mass[ids]).max() <= max(step, 2.0**-17) + 1e-6
        assert abs(float(found.rest[row].double().exp()) - rest) <= max(step, 2.0**-17) + 1e-6


@quickly
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.0, 30.0), classes=st.integers(3, 500))
def test_masses_are_whole_steps_that_sum_to_one(seed, scale, classes):
    values = rows_of(seed, classes, scale)
    codec = TopP(k=min(64, classes - 1))
    parts = codec.encode(values)
    found = codec.decode(parts, shape=(classes,))
    whole = 2.0 ** (10 + (parts["head"] >> 5).astype(np.int64))[:, None]
    every = torch.cat([found.log_mass, found.rest[:, None]], dim=1).double().exp().numpy() * whole
    np.testing.assert_allclose(every, np.rint(every), rtol=3e-6)
    assert np.rint(every).sum(axis=1).tolist() == whole[:, 0].tolist()


@pytest.mark.parametrize(
    "classes", [255, 256, 257, 65535, 65536, 65537, 131072], ids=lambda n: f"{n} classes"
)
def test_the_first_and_the_last_class_of_any_vocabulary(classes):
    values = np.full((3, classes), -np.inf, np.float32)
    values[0, [0, classes - 1]] = 0.0, 1.0
    values[1, [0, classes - 1]] = 1.0, 0.0
    values[2, classes - 1] = 0.0
    found = outcomes(values)
    assert found.ids[:, :2].tolist() == [[classes - 1, 0], [0, classes - 1], [classes - 1, -1]]
    mass = found.log_mass[:, :2].exp()
    np.testing.assert_allclose(mass, [[0.7311, 0.2689], [0.7311, 0.2689], [1, 0]], atol=2**-10)
    assert found.rest.tolist() == [-np.inf] * 3


def test_classes_of_31_bits_in_a_batch_whose_sum_has_more():
    # No dense row of so many classes fits, so that the bytes are written as `encode` does.
    rows, k, classes = 300, 8, 2**31 - 1
    draw = np.random.default_rng(0)
    ids = draw.integers(0, classes, (rows, k))
    ids[0], ids[1, :2] = np.arange(k), (classes - 1, 0)
    steps = np.full((rows, k + 1), 2**14)
    steps[:, 0], steps[:, -1] = 2**14 - 5, 5
    pairs, widths = top_p._pairs(ids, steps, np.ones((rows, k), np.bool_))
    packed = top_p._code(classes).pack(pairs, widths)
    head = ((17 - 10) << 5 | widths).astype(np.uint8)
    parts = {"head": head, "unary": packed.unary, "body": packed.body}
    found = TopP(k=k).decode(parts, shape=(classes,))
    expected = np.concatenate([ids[:, :1], np.sort(ids[:, 1:], axis=1)], axis=1)
    assert found.ids.tolist() == expected.tolist()
    np.testing.assert_allclose(found.rest.exp(), 5 / 2**17, rtol=1e-6)


def test_extreme_rows():
    values = np.full((5, 200), -np.inf, np.float32)
    values[0, 7] = 3.0  # all mass on one class
    values[1] = 0.0  # uniform
    values[2, :2] = 1e30, -1e30  # huge
    values[3, :4] = 0.0  # a few that are equal
    values[4], values[4, 9] = 0.0, 60.0  # a rest that is faint, and there
    found = outcomes(values)
    listed = (found.ids >= 0).sum(dim=1)
    assert listed.tolist() == [1, 64, 1, 4, 1]
    assert found.ids[[0, 2, 4], 0].tolist() == [7, 0, 9]
    np.testing.assert_allclose(found.log_mass[1].exp(), 1 / 200, atol=2**-10)
    np.testing.assert_allclose(found.rest[1].exp(), 136 / 200, atol=2**-10)
    assert found.log_mass[3, :4].exp().tolist() == pytest.approx([0.25] * 4)
    assert found.rest[[0, 3]].tolist() == [-np.inf] * 2
    np.testing.assert_allclose(found.rest[4].exp(), 2.0**-17, rtol=1e-5)


def test_a_flat_vocabulary_lists_one_class_and_leaves_the_rest():
    found = outcomes(np.zeros((2, 131072), np.float32), minimum=8)
    assert (found.ids >= 0).sum(dim=1).tolist() == [1, 1]
    np.testing.assert_allclose(found.rest.exp(), 1, rtol=2e-5)


def test_likelier_classes_are_not_listed_beyond_p(masses, spread_out, zipf):
    values = zipf(200, 1000)
    sizes = [(outcomes(values, p=p).ids >= 0).sum(dim=1).float().mean() for p in (0.5, 0.9, 0.98)]
    assert sizes[0] < sizes[1] < sizes[2]
    mass = masses(values)
    kept = spread_out(outcomes(values, p=0.5)) > 0
    assert ((mass * kept).sum(axis=1) >= 0.5 - 1e-9).all()


def test_it_takes_far_fewer_bytes_than_a_plain_list_of_the_same_variation(masses, spread_out, zipf):
    values = zipf(300, 32000)
    codec = TopP()
    parts = codec.encode(values)
    bytes_per_position = size_of(parts) / len(values)
    mass = masses(values)

    def variation(found):
        listed = spread_out(found)
        free = (listed == 0).sum(axis=1, keepdims=True)
        rest = found.rest.double().exp().numpy()[:, None]
        return 0.5 * np.abs(np.where(listed > 0, listed, rest / free) - mass).sum(axis=1).mean()

    own = variation(codec.decode(parts, shape=(32000,)))
    plain = TopK(k=56, precision="float16")
    assert own < variation(plain.decode(plain.encode(values), shape=(32000,)))
    # A class number of 4 bytes and a mass of 2, as others store them.
    assert bytes_per_position <= 0.45 * 56 * 6


def test_classes_near_each_other_take_fewer_bytes(zipf):
    values = zipf(100, 4096)
    near = -np.sort(-values, axis=1)
    assert size_of(TopP().encode(near)) < 0.75 * size_of(TopP().encode(values))


def test_what_cannot_be_is_refused():
    for p in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="`0 < p <= 1` must hold, but got p="):
            TopP(p=p)
    with pytest.raises(ValueError, match="must hold, but got minimum=9 and k=8"):
        TopP(k=8, minimum=9)
    with pytest.raises(ValueError, match="`1 <= minimum <= k`"):
        TopP(k=0, minimum=0)
    with pytest.raises(StoreError, match=r"got k=64 and 10 classes: use `k: 9`"):
        TopP().encode(np.zeros((1, 10), np.float32))
    with pytest.raises(StoreError, match="one row of 2 or more classes"):
        TopP().check((4, 100))
    with pytest.raises(StoreError, match="1 positions have none"):
        TopP(k=1).encode(np.float32([[-np.inf, -np.inf], [0, 0]]))
