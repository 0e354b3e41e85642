"""Draws from the teacher: right on average where a plain list is not, and less noisy in part."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.codec import CodecCase, CodecLaws
from understudy.errors import StoreError
from understudy.labels.codecs import Sampled, TopK
from understudy.losses import soft_target_kl
from understudy.losses.sparse import sampled_kl

quickly = settings(max_examples=50, deadline=None)
REPEATS, CLASSES = 4000, 30


def outcomes(values, seed=0, **options):
    codec = Sampled(**options)
    return codec.decode(codec.encode(values, seed=seed), shape=values.shape[1:])


@pytest.fixture
def same_rows():
    """One distribution, once per repeat: what is drawn for each is independent."""
    row = 1.5 * np.random.default_rng(3).standard_normal(CLASSES)
    return np.tile(row.astype(np.float32), (REPEATS, 1))


def deviations(samples, expected):
    """How many of its standard errors each column's mean is off."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.abs(samples.mean(axis=0) - expected) / np.maximum(error, 1e-7)


def student_gradient(weights, student):
    """Of the cross entropy with these weights, by the student's logits, by autograd."""
    own = torch.from_numpy(np.tile(student, (len(weights), 1))).requires_grad_()
    loss = -(torch.from_numpy(weights) * own.log_softmax(dim=1)).sum()
    return torch.autograd.grad(loss, own)[0].numpy()


class TestSampled(CodecLaws):
    @pytest.fixture(params=[(50, 0), (1, 0), (20, 3), (5, 11)], ids=str)
    def case(self, request):
        draws, exact = request.param
        return CodecCase(codec=Sampled(draws=draws, exact=exact), shape=(12,))


class TestSampledFromManyClasses(CodecLaws):
    @pytest.fixture
    def case(self):
        return CodecCase(codec=Sampled(exact=4), shape=(70000,))


@pytest.mark.parametrize("exact", [0, 5])
def test_the_mean_of_the_weights_is_the_distribution(same_rows, masses, spread_out, exact):
    samples = np.concatenate(
        [spread_out(outcomes(same_rows, seed=s, draws=20, exact=exact)) for s in range(3)]
    )
    assert deviations(samples, masses(same_rows)[0]).max() < 4.5


@pytest.mark.parametrize("exact", [0, 5])
def test_the_mean_gradient_is_the_full_one_and_a_plain_list_has_another(
    same_rows, masses, spread_out, exact
):
    student = np.random.default_rng(4).standard_normal(CLASSES)
    mass = masses(same_rows)
    full = student_gradient(mass[:1], student)[0]
    drawn = spread_out(outcomes(same_rows, draws=20, exact=exact))
    gradients = student_gradient(drawn, student)
    assert deviations(gradients, full).max() < 4.5
    listed = TopK(k=8)
    plain = spread_out(listed.decode(listed.encode(same_rows[:1]), shape=(CLASSES,)))
    plain /= plain.sum(axis=1, keepdims=True)
    error = gradients.std(axis=0, ddof=1) / np.sqrt(REPEATS)
    off = np.abs(student_gradient(plain, student)[0] - full)
    assert (off / np.maximum(error, 1e-7)).max() > 20


def test_exact_classes_make_it_less_noisy(same_rows, masses, spread_out):
    mass = masses(same_rows)
    noise = [
        ((spread_out(outcomes(same_rows, draws=20, exact=exact)) - mass) ** 2).sum(axis=1).mean()
        for exact in (0, 5, 15)
    ]
    assert noise[0] > 2 * noise[1] > 4 * noise[2]


def test_the_mean_divergence_is_the_full_one(same_rows):
    student = torch.from_numpy(np.random.default_rng(4).standard_normal((1, CLASSES))).float()
    rows = student.expand(REPEATS, -1).contiguous()
    full = float(soft_target_kl(student, torch.from_numpy(same_rows[:1]), temperature=1.0))
    for exact in (0, 5):
        found = outcomes(same_rows, draws=20, exact=exact)
        values = sampled_kl(rows, found.ids, found.log_mass, found.entropy).numpy()
        # The entropy is stored as float16, the same for all of these rows.
        error = values.std(ddof=1) / np.sqrt(REPEATS)
        assert abs(values.mean() - full) < 4.5 * error + 2e-3


@quickly
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 60),
    scale=st.sampled_from([0.0, 1.0, 5.0, 1e30]),
    draws=st.integers(1, 80),
    exact=st.integers(0, 59),
)
def test_weights_are_shares_of_the_draws(seed, classes, scale, draws, exact):
    values = np.random.default_rng(seed).standard_normal((5, classes)) * scale
    values = values.astype(np.float32)
    exact = min(exact, classes - 1)
    found = outcomes(values, seed=seed, draws=draws, exact=exact)
    peak = values.max(axis=1, keepdims=True)
    mass = np.exp(values.astype(np.float64) - peak)
    mass /= mass.sum(axis=1, keepdims=True)
    order = -np.sort(-mass, axis=1)
    told = found.log_mass[:, :exact].double().exp().numpy()
    np.testing.assert_allclose(told, order[:, :exact], rtol=1e-5, atol=1e-12)
    left = order[:, exact:].sum(axis=1, keepdims=True)
    shares = found.log_mass[:, exact:].double().exp().numpy() / np.maximum(left, 1e-300) * draws
    np.testing.assert_allclose(shares, np.rint(shares), rtol=1e-4)
    some = left[:, 0] > 1e-30
    assert np.rint(shares).sum(axis=1)[some].tolist() == [draws] * int(some.sum())
    ids = found.ids.numpy()
    assert (np.take_along_axis(values, np.maximum(ids, 0), axis=1)[ids >= 0] > -np.inf).all()
    expected = -(mass * np.log(np.maximum(mass, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(found.entropy, expected, rtol=2.0**-11, atol=1e-6)


def test_classes_that_are_ruled_out_are_never_drawn(masses):
    values = np.full((300, 40), -np.inf, np.float32)
    values[:, 10:14] = [0.0, 1.0, 2.0, 3.0]
    for exact in (0, 2, 3, 4, 6):
        found = outcomes(values, draws=200, exact=exact)
        assert set(found.ids.unique().tolist()) - {-1} == {10, 11, 12, 13}
        total = found.log_mass.double().exp().sum(dim=1)
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_one_certain_class():
    values = np.full((2, 6), -np.inf, np.float32)
    values[:, 4] = 7.0
    for exact in (0, 1, 2):
        found = outcomes(values, exact=exact)
        assert found.ids[:, 0].tolist() == [4, 4]
        assert (found.ids[:, 1:] == -1).all()
        assert found.log_mass[:, 0].tolist() == [0, 0]
        assert found.entropy.tolist() == [0, 0]


def test_another_seed_gives_other_draws_and_the_same_seed_the_same(same_rows):
    one, same, other = (outcomes(same_rows, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one.ids, same.ids)
    assert torch.equal(one.log_mass, same.log_mass)
    assert not torch.equal(one.ids, other.ids)
    assert len({tuple(row.tolist()) for row in one.ids}) > REPEATS / 2


def test_draws_do_not_change_with_the_release():
    values = np.tile(np.log(np.arange(1, 9, dtype=np.float32)), (2, 1))
    found = outcomes(values, seed=1, draws=6)
    drawn = [
        {i: round(6 * m) for i, m in zip(ids.tolist(), log.exp().tolist(), strict=True) if i >= 0}
        for ids, log in zip(found.ids, found.log_mass, strict=True)
    ]
    assert drawn == [{1: 2, 2: 1, 4: 1, 7: 2}, {3: 3, 4: 1, 6: 1, 7: 1}]


@pytest.mark.parametrize(("classes", "kind"), [(256, "u1"), (257, "u2"), (65537, "u4")])
def test_exact_numbers_of_classes_take_the_smallest_type(classes, kind):
    parts = Sampled(exact=2).encode(np.zeros((1, classes), np.float32))
    assert parts["ids"].dtype == np.dtype(kind)


def test_fifty_draws_take_few_bytes(zipf):
    parts = Sampled().encode(zipf(500, 32000))
    body = parts["body"]
    fixed = sum(parts[name].nbytes for name in ("head", "unary", "entropy"))
    assert (len(body.content) + body.lengths.nbytes + fixed) / 500 < 50


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`draws >= 1` must hold, but got draws=0"):
        Sampled(draws=0)
    with pytest.raises(ValueError, match="`exact >= 0` must hold, but got exact=-1"):
        Sampled(exact=-1)
    with pytest.raises(StoreError, match=r"`exact < classes`.*exact=10 and 10 classes: use `exact"):
        Sampled(exact=10).check((10,))
    with pytest.raises(StoreError, match="one row of 2 or more classes"):
        Sampled().check((3, 3))
    with pytest.raises(StoreError, match="1 positions have none"):
        Sampled().encode(np.float32([[np.inf, 0], [0, 0]]))
