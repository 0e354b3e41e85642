"""Losses on listed outcomes in training: types, memory, sampled labels, what is refused."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from losses.lists import CLASSES, padded, top, two_sets, value_and_gradient
from understudy.losses import SoftTargetKL, outcome_kl, sampled_kl, soft_target_kl, sparse


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
