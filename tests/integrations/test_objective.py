"""The objective of a token: both ways to the same value, and constants that mean nothing."""

import pytest
import torch

from understudy.errors import TrainingError
from understudy.integrations.transformers import Blend, Forward, Reverse, Skew, TokenObjective
from understudy.losses import jensen_shannon, reverse_kl, skew_kl, soft_target_kl
from understudy.losses.vocabulary import DenseLabels, HiddenLabels, LinearHead, ListedLabels

TOKENS, WIDTH, VOCABULARY = 7, 5, 12
DIVERGENCES = {
    Forward(): lambda own, goal: soft_target_kl(own, goal, temperature=2.0),
    Reverse(): lambda own, goal: reverse_kl(own, goal, temperature=2.0),
    Blend(beta=0.3): lambda own, goal: jensen_shannon(own, goal, beta=0.3, temperature=2.0),
    Skew(): lambda own, goal: skew_kl(own, goal, skew=0.1, temperature=2.0),
    Skew(direction="reverse"): lambda own, goal: skew_kl(
        own, goal, skew=0.1, temperature=2.0, direction="reverse"
    ),
}


@pytest.fixture
def given():
    """Hidden states with a head, labels of which two do not count, and a teacher's logits."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(n, WIDTH, generator=draw, dtype=torch.float64, requires_grad=True)
        for n in (TOKENS, VOCABULARY)
    )
    labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=draw)
    labels[[1, 4]] = -100
    goal = 3 * torch.randn(TOKENS, VOCABULARY, generator=draw, dtype=torch.float64)
    return hidden, LinearHead(weight=weight), labels, goal


@pytest.mark.parametrize("kind", DIVERGENCES, ids=str)
def test_from_logits_and_from_hidden_states_it_is_the_loss_of_that_name(given, kind):
    hidden, head, labels, goal = given
    objective = TokenObjective(
        divergence=kind, temperature=2.0, soft_weight=0.8, hard_weight=0.3, label_smoothing=0.1
    )
    counts = labels != -100
    logits = hidden @ head.weight.t()
    expected = torch.where(counts, DIVERGENCES[kind](logits, goal), 0.0)
    smooth = torch.nn.functional.cross_entropy(
        logits, labels, ignore_index=-100, reduction="none", label_smoothing=0.1
    )
    loss = (0.8 * expected.sum() + 0.3 * smooth.sum()) / 9
    wanted = torch.autograd.grad(loss, (hidden, head.weight))
    for student in (hidden @ head.weight.t(), HiddenLabels(hidden=hidden, head=head)):
        told = objective(student, labels, DenseLabels(logits=goal), denominator=9)
        torch.testing.assert_close(told.soft, expected.detach())
        torch.testing.assert_close(told.hard, smooth.detach())
        torch.testing.assert_close(told.loss, loss)
        torch.testing.assert_close(torch.autograd.grad(told.loss, (hidden, head.weight)), wanted)
        assert torch.equal(told.counted, counts)


@pytest.mark.parametrize("sampled", [False, True])
def test_listed_labels_are_the_same_from_both(given, sampled):
    hidden, head, labels, goal = given
    log_mass, ids = goal.log_softmax(1).topk(4)
    rest = torch.log1p(-log_mass.exp().sum(1))
    entropy = torch.rand(TOKENS, dtype=torch.float64) if sampled else None
    listed = ListedLabels(ids=ids, log_mass=log_mass, rest=rest, sampled=sampled, entropy=entropy)
    objective = TokenObjective(temperature=1.0 if sampled else 2.0, hard_weight=0.5)
    bare = objective(hidden @ head.weight.t(), labels, listed)
    fused = objective(HiddenLabels(hidden=hidden, head=head), labels, listed)
    torch.testing.assert_close(bare.loss, fused.loss)
    torch.testing.assert_close(bare.soft, fused.soft)


def test_where_nothing_counts_the_loss_is_zero_with_a_gradient_of_zero(given):
    hidden, head, labels, goal = given
    nothing = torch.full_like(labels, -100)
    for student in (hidden @ head.weight.t(), HiddenLabels(hidden=hidden, head=head)):
        told = TokenObjective(hard_weight=1)(student, nothing, DenseLabels(logits=goal))
        assert told.loss == 0
        assert not any(g.any() for g in torch.autograd.grad(told.loss, (hidden, head.weight)))


def test_a_token_that_is_ruled_out_does_not_spoil_the_others(given):
    hidden, head, labels, goal = given
    logits = torch.cat([hidden @ head.weight.t(), torch.full((TOKENS, 1), -torch.inf)], dim=1)
    told = TokenObjective()(logits, labels, DenseLabels(logits=goal))
    whole = TokenObjective()(logits[:, :-1], labels, DenseLabels(logits=goal))
    torch.testing.assert_close(told.loss, whole.loss)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"temperature": 0}, "`temperature > 0` must hold"),
        ({"soft_weight": -1}, "`soft_weight >= 0` must hold, but got soft_weight=-1"),
        ({"hard_weight": float("nan")}, "`hard_weight >= 0` must hold"),
        ({"soft_weight": 0}, "there must be something to learn"),
        ({"label_smoothing": 1.0}, "`0 <= label_smoothing < 1` must hold, but got 1.0"),
    ],
)
def test_constants_that_mean_nothing(wrong, told):
    with pytest.raises(ValueError, match=told):
        TokenObjective(**wrong)


def test_what_it_cannot_learn_from(given):
    hidden, head, labels, goal = given
    logits = hidden @ head.weight.t()
    with pytest.raises(TrainingError, match="a teacher must speak"):
        TokenObjective()(logits, labels, None)
    states = HiddenLabels(hidden=hidden.detach(), head=LinearHead(weight=head.weight.detach()))
    with pytest.raises(ValueError, match="a student of bare logits needs a teacher of logits"):
        TokenObjective()(logits, labels, states)
    with pytest.raises(ValueError, match=r"`vocabulary <= 12` must hold"):
        TokenObjective(vocabulary=13)(logits, labels, DenseLabels(logits=goal))
