"""Losses on listed outcomes: laws, independent float64 references, bounds, memory, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conformance.loss import COLUMNS, LossCase, LossLaws
from understudy.losses import SoftTargetKL, outcome_kl, sampled_kl, soft_target_kl, sparse

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
temperatures = st.floats(0.25, 20.0)
CLASSES = 10


def two_sets(seed, rows=5, classes=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, rows, classes, generator=generator, dtype=torch.float64)


def top(teacher, k):
    """What a store keeps of these logits: ids, log mass and the rest."""
    log_mass = teacher.to(torch.promote_types(teacher.dtype, torch.float32)).log_softmax(dim=1)
    kept, ids = log_mass.topk(min(k, teacher.shape[1]), dim=1)
    return ids, kept, log_mass.scatter(1, ids, -torch.inf).logsumexp(dim=1)


def padded(ids, log_mass, rest):
    """The same lists with two places that hold nothing, one of them in front."""
    ids = nn.functional.pad(ids, (1, 1), value=-1)
    return ids, nn.functional.pad(log_mass, (1, 1), value=-math.inf), rest


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


def value_and_gradient(loss, student, *listed, **constants):
    student = student.detach().clone().requires_grad_()
    values = loss(student, *listed, **constants)
    return values.detach(), torch.autograd.grad(values.sum(), student)[0]


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_gradient_has_the_type_of_the_student(dtype):
    student, teacher = two_sets(7)
    listed = tuple(t.float() if t.is_floating_point() else t for t in top(teacher, 4))
    for values, gradient in (
        value_and_gradient(outcome_kl, student.to(dtype), *listed, temperature=2.0),
        value_and_gradient(sampled_kl, student.to(dtype), *listed),
    ):
        assert values.dtype == torch.promote_types(dtype, torch.float32)
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()


def test_no_gradient_reaches_what_the_teacher_has_said():
    student, teacher = two_sets(8)
    ids, log_mass, rest = top(teacher, 4)
    given_by_teacher = log_mass.requires_grad_(), rest.requires_grad_()
    student.requires_grad_()
    values = outcome_kl(student, ids, log_mass, rest, temperature=2.0)
    (values + sampled_kl(student, ids, log_mass, rest)).sum().backward()
    assert all(tensor.grad is None for tensor in given_by_teacher)
    assert (student.grad.abs().sum(dim=1) > 0).all()


def test_a_second_derivative_is_refused_instead_of_wrong():
    student, teacher = two_sets(9)
    student.requires_grad_()
    values = outcome_kl(student, *top(teacher, 4), temperature=2.0)
    (gradient,) = torch.autograd.grad(values.sum(), student, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("numbers", [1, 2 * CLASSES + 2, 4 * CLASSES + 4])
def test_positions_that_are_looked_at_apart_give_the_same(monkeypatch, numbers):
    student, teacher = two_sets(10)
    listed = top(teacher, 4)
    together = value_and_gradient(outcome_kl, student, *listed, temperature=2.0)
    monkeypatch.setattr(sparse, "WORKSPACE", numbers)
    apart = value_and_gradient(outcome_kl, student, *listed, temperature=2.0)
    torch.testing.assert_close(apart, together, rtol=0, atol=0)


def drawn(teacher, draws, generator):
    """A store's sampled labels: the share of each class in draws from the teacher itself."""
    picks = torch.multinomial(teacher.softmax(dim=1), draws, replacement=True, generator=generator)
    shares = torch.zeros_like(teacher).scatter_add(
        1, picks, torch.full(picks.shape, 1 / draws, dtype=teacher.dtype)
    )
    weights, ids = shares.sort(dim=1, descending=True)
    weights, ids = weights[:, :draws], ids[:, :draws]
    log_mass = teacher.log_softmax(dim=1)
    return torch.where(weights > 0, ids, -1), weights.log(), -(log_mass.exp() * log_mass).sum(dim=1)


@pytest.mark.parametrize("draws", [1, 6])
def test_over_many_draws_value_and_gradient_are_those_of_the_whole_divergence(draws):
    repeats = 4000
    student, teacher = (logits[:1] / 3 for logits in two_sets(11))
    dense = value_and_gradient(soft_target_kl, student, teacher, temperature=1.0)
    generator = torch.Generator().manual_seed(20250321)
    listed = drawn(teacher.expand(repeats, -1), draws, generator)
    draws_apart = value_and_gradient(sampled_kl, student.expand(repeats, -1), *listed)
    for estimates, truth in zip(draws_apart, dense, strict=True):
        error = estimates.std(dim=0) / math.sqrt(repeats)
        assert (error > 0).all()
        assert ((estimates.mean(dim=0) - truth[0]).abs() < 4 * error).all()
    assert (draws_apart[0] < 0).any()


def test_weights_that_are_the_whole_teacher_give_the_whole_divergence():
    student, teacher = two_sets(12)
    ids, log_mass, _ = top(teacher, CLASSES)
    entropy = -(log_mass.exp() * log_mass).sum(dim=1)
    dense = value_and_gradient(soft_target_kl, student, teacher, temperature=1.0)
    for kept in ((ids, log_mass), padded(ids, log_mass, entropy)[:2]):
        torch.testing.assert_close(value_and_gradient(sampled_kl, student, *kept, entropy), dense)


class Made(TorchDispatchMode):
    """Keeps the memory that every operation makes, so that it can be counted afterwards."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                memory = tensor.untyped_storage()
                self.kept[memory.data_ptr()] = memory
        return made

    def sizes(self, student):
        """Bytes of each, the largest first, without the student's own logits."""
        own = student.untyped_storage().data_ptr()
        return sorted((m.nbytes() for at, m in self.kept.items() if at != own), reverse=True)


POSITIONS, WIDE, K = 300, 4000, 16


@pytest.fixture
def vocabulary():
    generator = torch.Generator().manual_seed(13)
    student, teacher = torch.randn(2, POSITIONS, WIDE, generator=generator)
    return student.clone().requires_grad_(), teacher, top(teacher, K)


@pytest.mark.parametrize("loss", ["outcome_kl", "sampled_kl"])
def test_nothing_as_large_as_the_logits_is_made_but_their_gradient(vocabulary, loss, monkeypatch):
    student, _, (ids, log_mass, rest) = vocabulary
    monkeypatch.setattr(sparse, "WORKSPACE", 100_000)
    with Made() as made:
        if loss == "outcome_kl":
            values = outcome_kl(student, ids, log_mass, rest, temperature=4.0)
        else:
            values = sampled_kl(student, ids, log_mass, rest)
        values.sum().backward()
    gradient, forward, backward, *small = made.sizes(student)
    assert gradient == 4 * POSITIONS * WIDE
    assert backward <= forward <= 4 * 100_000
    assert max(small) <= 8 * POSITIONS * (K + 1)


def test_the_dense_loss_makes_more_so_the_count_above_can_see_it(vocabulary):
    student, teacher, _ = vocabulary
    with Made() as made:
        soft_target_kl(student, teacher, temperature=4.0).sum().backward()
    assert sum(size >= 4 * POSITIONS * WIDE for size in made.sizes(student)) > 5


def test_between_the_passes_only_the_student_and_things_of_the_lists_size_are_kept(vocabulary):
    student, _, listed = vocabulary
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        outcome_kl(student, *listed, temperature=4.0)
    large = [t for t in kept if t.numel() > POSITIONS * (K + 1)]
    assert [t.data_ptr() for t in large] == [student.data_ptr()]


def test_the_module_reads_listed_outcomes_at_its_own_or_the_given_temperature():
    student, teacher = two_sets(14)
    ids, log_mass, rest = top(teacher, 4)
    told = {"ids": ids, "log_mass": log_mass, "rest": rest}
    loss = SoftTargetKL(temperature=2.0)
    own, warm = (outcome_kl(student, *told.values(), temperature=t) for t in (2.0, 7.0))
    assert torch.equal(loss.outcomes(student, **told), own)
    assert torch.equal(loss.outcomes(student, **told, temperature=7.0), warm)
    drawn_ones = loss.outcomes(student, **told, sampled=True, entropy=rest, temperature=1.0)
    assert torch.equal(drawn_ones, sampled_kl(student, ids, log_mass, rest))


def test_sampled_labels_are_refused_at_another_temperature_and_without_their_entropy():
    student, teacher = two_sets(15)
    told = dict(zip(("ids", "log_mass", "rest"), top(teacher, 4), strict=True), sampled=True)
    law = "`temperature == 1` must hold for sampled labels, but got temperature=4.0: .*unbiased.*"
    with pytest.raises(ValueError, match=law + "set `temperature: 1`"):
        SoftTargetKL().outcomes(student, **told, entropy=told["rest"])
    with pytest.raises(ValueError, match="`entropy` must be there"):
        SoftTargetKL(temperature=1.0).outcomes(student, **told)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(temperature):
    with pytest.raises(ValueError, match=f"`temperature > 0` must hold, but got {temperature=}"):
        outcome_kl(*(logits := two_sets(16))[:1], *top(logits[1], 2), temperature=temperature)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"student": torch.zeros(2, 1)}, r"`classes >= 2`, but got \(2, 1\)"),
        ({"student": torch.zeros(2, 3, 4)}, r"`student` must be .* got \(2, 3, 4\)"),
        (
            {"log_mass": torch.zeros(2, 2)},
            r"`log_mass.shape == ids.shape` .* \(2, 2\) and \(2, 1\)",
        ),
        ({"last": torch.zeros(2, 1)}, r"shape == student.shape\[:1\]` must hold, but got \(2, 1\)"),
        (
            {"ids": torch.zeros(2, 1)},
            r"`ids.dtype == torch.int64` must hold, but got torch.float32",
        ),
        ({"ids": torch.tensor([[0], [4]])}, r"`-1 <= ids < 4` must hold, but got ids from 0 to 4"),
        (
            {"ids": torch.tensor([[0], [-2]])},
            r"`-1 <= ids < 4` must hold, but got ids from -2 to 0",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(change, law):
    parts = {
        "student": torch.zeros(2, 4),
        "ids": torch.zeros(2, 1, dtype=torch.int64),
        "log_mass": torch.zeros(2, 1),
        "last": torch.zeros(2),
    }
    parts |= change
    with pytest.raises(ValueError, match=law):
        outcome_kl(*parts.values(), temperature=1.0)
    with pytest.raises(ValueError, match=law):
        sampled_kl(*parts.values())
