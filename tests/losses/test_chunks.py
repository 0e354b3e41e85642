"""Probabilities of the same piece of text, by the tokens of two tokenizers."""

import math

import pytest
import torch

from understudy.losses.chunks import (
    ChunkKL,
    chunk_kl,
    chunk_log_probs,
    mean_of_chunks,
    token_log_probs,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


OWN = torch.tensor([[0, 0, 1, 2, -1], [-1, 0, -1, -1, -1]])
THEIRS = torch.tensor([[-1, 0, 1, 1, 1, 2], [0, 0, 0, -1, -1, -1]])
COUNTS = torch.tensor([3, 1])


def test_a_tokens_probability_is_the_softmax_at_its_place():
    logits, tokens = drawn(2, 3, 7), torch.tensor([[0, 6, -1], [3, 3, 1]])
    found = token_log_probs(logits, tokens)
    for row in range(2):
        for at in range(3):
            scores = [math.exp(x) for x in logits[row, at].tolist()]
            token = int(tokens[row, at])
            wanted = 0.0 if token < 0 else math.log(scores[token] / sum(scores))
            assert float(found[row, at]) == pytest.approx(wanted, abs=1e-12)


def test_a_chunk_is_the_sum_of_its_tokens():
    values = -drawn(2, 5).abs()
    values[1, 2] = torch.nan  # of no chunk
    found = chunk_log_probs(values, OWN, 3)
    wanted = [[values[0, 0] + values[0, 1], values[0, 2], values[0, 3]], [values[1, 1], 0, 0]]
    assert torch.allclose(found, torch.tensor(wanted).double())


def test_the_divergence_is_that_of_two_outcomes():
    own, goal = -drawn(4, 3).abs(), -drawn(4, 3, seed=1).abs()
    p, q = goal.exp(), own.exp()
    wanted = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert torch.allclose(chunk_kl(own, goal), wanted, atol=1e-12, rtol=0)
    assert bool((chunk_kl(own, goal) >= 0).all())
    assert torch.equal(chunk_kl(own, own), torch.zeros_like(own))


def test_it_never_exceeds_the_divergence_of_whole_distributions():
    own, goal = drawn(50, 6).log_softmax(1), drawn(50, 6, seed=1).log_softmax(1)
    whole = (goal.exp() * (goal - own)).sum(dim=1, keepdim=True)
    assert bool((chunk_kl(own, goal) <= whole + 1e-12).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_ends_are_finite(dtype):
    ends = torch.tensor([[-1e-9, -60.0, -2000.0, 0.0]], dtype=dtype)
    for goal in (ends, ends.flip(1)):
        own = ends.clone().requires_grad_()
        value = chunk_kl(own, goal)
        value.sum().backward()
        assert value.isfinite().all()
        assert own.grad.isfinite().all()


def test_only_the_student_learns_and_its_slope_is_the_differences():
    own = (-drawn(2, 3).abs() - 0.1).requires_grad_()
    goal = (-drawn(2, 3, seed=1).abs() - 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: chunk_kl(x, goal.detach()), [own])
    chunk_kl(own, goal).sum().backward()
    assert goal.grad is None


def test_a_row_is_the_mean_over_its_chunks():
    own, goal = -drawn(2, 5).abs(), -drawn(2, 6, seed=1).abs()
    found = ChunkKL()(own, goal, student_chunks=OWN, teacher_chunks=THEIRS, counts=COUNTS)
    sums = [
        (own[0, :2].sum(), goal[0, 1]), (own[0, 2], goal[0, 2:5].sum()), (own[0, 3], goal[0, 5]),
    ]  # fmt: skip
    first = torch.stack([chunk_kl(a.view(1, 1), b.view(1, 1)).squeeze() for a, b in sums]).mean()
    second = chunk_kl(own[1, 1].view(1, 1), goal[1, :3].sum().view(1, 1)).squeeze()
    assert torch.allclose(found, torch.stack([first, second]))
    assert mean_of_chunks(torch.zeros(1, 0), torch.tensor([0])).tolist() == [0.0]


def test_what_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match=r"`student.shape == teacher.shape` must hold"):
        chunk_kl(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"`teacher <= 0` must hold, but got 0.5"):
        chunk_kl(torch.zeros(1, 2), torch.full((1, 2), 0.5))
