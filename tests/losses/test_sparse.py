"""Losses on listed outcomes: laws, independent float64 references, bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conformance.loss import COLUMNS, LossCase, LossLaws
from losses.lists import CLASSES, padded, top, two_sets, value_and_gradient
from understudy.losses import outcome_kl, sampled_kl, soft_target_kl

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
temperatures = st.floats(0.25, 20.0)


def reference(student, ids, log_mass, rest, temperature):
    """Position by position, from probabilities and their definition."""
    values = []
    for logits, places, log_listed, log_rest in zip(student, ids, log_mass, rest, strict=True):
        listed = places[places >= 0]
        others = [c for c in range(len(logits)) if c not in listed]
        q = (logits / temperature).exp() / (logits / temperature).exp().sum()
        own = torch.cat([q[listed], q[others].sum()[None]])
        bucket = len(others) * (log_rest.exp() / max(len(others), 1)) ** (1 / temperature)
        goal = torch.cat([log_listed[places >= 0].exp() ** (1 / temperature), bucket[None]])
        goal = goal / goal.sum()
        values.append((torch.xlogy(goal, goal) - torch.xlogy(goal, own)).sum())
    return temperature**2 * torch.stack(values)


class Listed(nn.Module):
    """`outcome_kl` called like a dense loss, so that the laws of losses can be asked of it."""

    def __init__(self, k, temperature):
        super().__init__()
        self.k, self.temperature = k, temperature

    def forward(self, student, teacher):
        return outcome_kl(student, *top(teacher, self.k), temperature=self.temperature)


class TestOutcomeKL(LossLaws):
    @pytest.fixture(params=[(3, 1.0), (COLUMNS, 1.0), (COLUMNS, 4.0)], ids=str)
    def case(self, request):
        def draw(student, generator):
            return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)

        return LossCase(loss=Listed(*request.param), target=draw, equal=torch.clone)

    # A list has another shape than the student anyway, so this law asks for the positions alone.
    @pytest.mark.usefixtures("as_users_run_it")
    def test_a_target_of_another_shape_is_refused_with_both_shapes(self, rows):
        ids, log_mass, rest = top(rows, 3)
        for wrong in (ids[:-1], ids[:1], ids[:, 0]):
            with pytest.raises(ValueError, match="`ids` must be") as refusal:
                outcome_kl(rows, wrong, log_mass, rest, temperature=1.0)
            assert str(tuple(rows.shape)) in str(refusal.value)
            assert str(tuple(wrong.shape)) in str(refusal.value)


@quickly
@given(seed=seeds, temperature=temperatures, k=st.integers(1, CLASSES))
def test_values_and_gradients_agree_with_a_float64_reference(seed, temperature, k):
    student, teacher = two_sets(seed)
    listed = padded(*top(teacher, k))
    got = value_and_gradient(outcome_kl, student, *listed, temperature=temperature)
    expected = value_and_gradient(reference, student, *listed, temperature)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    single = [t.float() if t.is_floating_point() else t for t in (student, *listed)]
    got = value_and_gradient(outcome_kl, *single, temperature=temperature)
    expected = tuple(t.float() for t in expected)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [1, 4, CLASSES])
def test_the_gradients_are_those_of_the_values(k, temperature):
    student, teacher = two_sets(k)
    ids, log_mass, rest = padded(*top(teacher, k))
    student.requires_grad_()

    def exact(own):
        return outcome_kl(own, ids, log_mass, rest, temperature=temperature)

    def sampled(own):
        return sampled_kl(own, ids, log_mass, torch.zeros_like(rest))

    assert torch.autograd.gradcheck(exact, (student,))
    assert torch.autograd.gradcheck(sampled, (student,))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_a_list_of_all_classes_is_the_dense_divergence(temperature):
    student, teacher = two_sets(2)
    ids, log_mass, rest = top(teacher, CLASSES)
    assert (rest == -torch.inf).all()
    got = value_and_gradient(outcome_kl, student, ids, log_mass, rest, temperature=temperature)
    dense = value_and_gradient(soft_target_kl, student, teacher, temperature=temperature)
    torch.testing.assert_close(got, dense)
    # What rounding has left in a bucket without classes is not read.
    left = outcome_kl(student, ids, log_mass, rest.clamp_min(-20), temperature=temperature)
    torch.testing.assert_close(left, dense[0])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_where_nothing_is_left_unlisted_classes_are_impossible(temperature):
    student, teacher = two_sets(3)
    ids = teacher.topk(4).indices
    kept = teacher.gather(1, ids).log_softmax(dim=1)
    sure = torch.full_like(teacher, -torch.inf).scatter(1, ids, kept)
    rest = torch.full((5,), -math.inf, dtype=torch.float64)
    got = value_and_gradient(outcome_kl, student, ids, kept, rest, temperature=temperature)
    dense = value_and_gradient(soft_target_kl, student, sure, temperature=temperature)
    torch.testing.assert_close(got, dense)


@settings(max_examples=100, deadline=None)
@given(
    seed=seeds,
    temperature=temperatures,
    k=st.integers(1, CLASSES),
    apart=st.sampled_from([0.0, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, 100.0]),
)
def test_it_is_never_negative_however_near_the_two_are(seed, temperature, k, apart):
    noise, teacher = two_sets(seed).float()
    values = outcome_kl(teacher + apart * noise, *top(teacher, k), temperature=temperature)
    assert (values >= 0).all()
    if apart == 0 and temperature == 1:
        assert (values == 0).all()


@quickly
@given(seed=seeds)
def test_at_temperature_one_it_rises_with_the_list_up_to_the_whole_divergence(seed):
    student, teacher = two_sets(seed)
    values = [outcome_kl(student, *top(teacher, k), temperature=1.0) for k in range(1, CLASSES + 1)]
    steps = torch.stack(values).diff(dim=0)
    assert (steps >= -1e-12).all()
    assert (steps.sum(dim=0) > 0).any()
    torch.testing.assert_close(values[-1], soft_target_kl(student, teacher, temperature=1.0))


@quickly
@given(seed=seeds, temperature=st.floats(1.0, 20.0), k=st.integers(1, CLASSES - 2))
def test_a_softened_bucket_is_too_heavy_by_no_more_than_is_said(seed, temperature, k):
    student, teacher = two_sets(seed)
    ids, log_mass, rest = top(teacher, k)
    gradient = value_and_gradient(
        outcome_kl, student, ids, log_mass, rest, temperature=temperature
    )[1]
    others = torch.ones_like(student).scatter(1, ids, 0.0)
    own = (others * (student / temperature).softmax(dim=1)).sum(dim=1)
    assumed = own - (others * gradient).sum(dim=1) / temperature
    true = (others * (teacher / temperature).softmax(dim=1)).sum(dim=1)
    odds = assumed / (1 - assumed) / (true / (1 - true))
    smallest = log_mass.min(dim=1).values.exp()
    limit = ((CLASSES - k) * smallest / rest.exp()) ** (1 - 1 / temperature)
    assert (odds >= 1 - 1e-9).all()
    assert (odds <= limit + 1e-9).all()


def test_an_evenly_spread_rest_is_exact_at_any_temperature():
    student, teacher = two_sets(4)
    student[:, 3:], teacher[:, 3:] = -2.0, -1.0
    ids = torch.arange(3).expand(5, 3)
    log_mass = teacher.log_softmax(dim=1)
    listed = ids, log_mass[:, :3], log_mass[:, 3:].logsumexp(dim=1)
    dense = soft_target_kl(student, teacher, temperature=6.0)
    torch.testing.assert_close(outcome_kl(student, *listed, temperature=6.0), dense)
    assert outcome_kl(teacher, *listed, temperature=6.0).abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_padding_and_the_order_of_the_list_do_not_matter(temperature):
    student, teacher = two_sets(5)
    ids, log_mass, rest = top(teacher, 4)
    expected = value_and_gradient(outcome_kl, student, ids, log_mass, rest, temperature=temperature)
    order = torch.tensor([2, 0, 3, 1])
    for listed in (padded(ids, log_mass, rest), (ids[:, order], log_mass[:, order], rest)):
        got = value_and_gradient(outcome_kl, student, *listed, temperature=temperature)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_constant_added_to_a_position_changes_no_digit(temperature):
    student, teacher = two_sets(17).float()
    student, listed = (64 * student).round() / 64, top(teacher, 4)
    expected = value_and_gradient(outcome_kl, student, *listed, temperature=temperature)
    moved = value_and_gradient(outcome_kl, student + 2.0**16, *listed, temperature=temperature)
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-7)


def test_a_position_that_lists_nothing_teaches_nothing_and_one_that_says_nothing_is_nan():
    student = torch.zeros(2, 3)
    ids, log_mass = torch.full((2, 1), -1), torch.full((2, 1), -math.inf)
    values = outcome_kl(student, ids, log_mass, torch.tensor([0.0, -math.inf]), temperature=2.0)
    assert values[0] == 0
    assert values[1].isnan()


def test_a_student_that_gives_the_bucket_almost_nothing_keeps_all_digits():
    student, teacher = two_sets(6)
    ids, log_mass, rest = top(teacher, 4)
    student.scatter_(1, ids, student.gather(1, ids) + math.log(1e30))
    listed = ids, log_mass, rest
    bucket = student.scatter(1, ids, -torch.inf).logsumexp(dim=1) - student.logsumexp(dim=1)
    assert (bucket < math.log(1e-27)).all()
    expected = value_and_gradient(reference, student, *listed, 1.0)
    single = student.float(), ids, log_mass.float(), rest.float()
    values, gradient = value_and_gradient(outcome_kl, *single, temperature=1.0)
    torch.testing.assert_close(values, expected[0].float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected[1].float(), rtol=1e-4, atol=1e-6)


def test_a_bucket_that_the_student_rules_out_costs_infinity_only_if_the_teacher_does_not():
    student = torch.tensor([[0.0, 1.0, -math.inf, -math.inf]] * 2)
    ids, log_mass = torch.tensor([[0, 1]] * 2), torch.tensor([[0.5, 0.5], [0.3, 0.3]]).log()
    rest = torch.tensor([0.0, 0.4]).log()
    values, gradient = value_and_gradient(outcome_kl, student, ids, log_mass, rest, temperature=1.0)
    assert values[0].isfinite()
    assert values[1] == math.inf
    assert gradient.isfinite().all()
