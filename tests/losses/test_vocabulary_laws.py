"""Fused losses over vocabularies: laws, masks, what learns, and how the work is cut."""

import math

import pytest
import torch

from losses.lists import top
from losses.vocabulary_cases import (
    FORMS,
    KINDS,
    OWN,
    TOKENS,
    VOCABULARY,
    K,
    agree,
    divergence_of,
    drawn,
    gradients,
    logits_of,
    student,
    told,
)
from understudy.errors import TrainingError
from understudy.losses.vocabulary import (
    Blend,
    DenseLabels,
    Forward,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    Pieces,
    Reverse,
    Skew,
    tiles,
    vocabulary_loss,
)
from understudy.losses.vocabulary import parts as sizes


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_exactly_zero_at_equality_and_never_negative(kind, form):
    hidden, head = (x for x in student())
    hidden, weight = hidden.float().detach(), head.weight.float().detach()
    near = (hidden + 1e-4 * drawn(TOKENS, OWN, seed=9).float()).requires_grad_()
    same = hidden.clone().requires_grad_()
    plain, own = LinearHead(weight=weight), LinearHead(weight=weight.clone())
    logits = tiles.product(hidden, weight)
    if form == "hidden":
        labels = HiddenLabels(hidden=hidden, head=own)
    elif form == "dense":
        labels = DenseLabels(logits=logits)
    else:
        ids, log_mass, rest = top(logits, K)
        labels = ListedLabels(ids=ids, log_mass=log_mass, rest=rest)
    at, off = (vocabulary_loss(x, plain, labels, divergence=kind) for x in (same, near))
    exact = 1e-6 if form == "listed" else 0.0  # a list is rounded on its own
    assert at.soft.abs().max() <= exact
    (slope,) = torch.autograd.grad(at.loss, same)
    assert slope.abs().max() <= 10 * exact
    assert (off.soft >= 0).all()
    far = vocabulary_loss(-3 * same, plain, labels, divergence=kind)
    assert (far.soft > 0.1).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_where_no_token_counts_value_and_gradient_are_zero(form, kind):
    _, labels = told(form)
    hidden, head = student()
    got = vocabulary_loss(
        hidden,
        head,
        labels,
        divergence=kind,
        labels=torch.full((TOKENS,), -100),
        hard_weight=1.0,
    )
    assert got.loss == 0
    assert all((g == 0).all() for g in gradients(got.loss, hidden, head))


def test_tokens_that_do_not_count_do_not_matter():
    _, labels = told("hidden")
    hidden, head = student()
    mask = torch.arange(TOKENS) != 3
    wanted = vocabulary_loss(hidden, head, labels, mask=mask)
    hidden = hidden.detach().index_fill(0, torch.tensor([3]), math.nan).requires_grad_()
    got = vocabulary_loss(hidden, head, labels, mask=mask)
    assert got.loss == wanted.loss
    slopes = gradients(got.loss, hidden, head)
    assert all(g.isfinite().all() for g in slopes)
    assert (slopes[0][3] == 0).all()


def test_an_upstream_gradient_and_a_retained_graph_are_respected():
    _, labels = told("dense")
    hidden, head = student()
    loss = vocabulary_loss(hidden, head, labels).loss
    once = torch.autograd.grad(loss, head.weight, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(3 * loss, head.weight)[0], 3 * once)


def test_only_what_learns_gets_a_gradient():
    _, labels = told("hidden")
    hidden, head = student()
    frozen = LinearHead(weight=head.weight.detach(), bias=head.bias.detach())
    vocabulary_loss(hidden, frozen, labels).loss.backward()
    assert hidden.grad is not None
    vocabulary_loss(hidden.detach(), head, labels).loss.backward()
    assert head.weight.grad is not None
    with torch.no_grad():
        silent = vocabulary_loss(hidden, head, labels)
    assert not silent.loss.requires_grad
    torch.testing.assert_close(silent.loss, vocabulary_loss(hidden, head, labels).loss.detach())


def test_autocast_does_not_lower_the_precision():
    _, labels = told("hidden")
    hidden, head = student(bias=False)
    own = LinearHead(weight=head.weight.detach().float())
    wanted = vocabulary_loss(hidden.detach().float(), own, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = vocabulary_loss(hidden.detach().float(), own, labels)
    assert got.loss == wanted.loss


def test_without_onednn_the_values_are_the_same(monkeypatch):
    _, labels = told("hidden")
    hidden, head = student(bias=False)
    leaf, own = hidden.detach().float(), LinearHead(weight=head.weight.detach().float())
    wanted = vocabulary_loss(leaf, own, labels)
    monkeypatch.setattr(tiles, "ONEDNN", False)
    torch.testing.assert_close(vocabulary_loss(leaf, own, labels).loss, wanted.loss)


def test_outcomes_that_the_teacher_rules_out_cost_the_forward_divergence_nothing():
    logits = drawn(TOKENS, VOCABULARY, seed=3).index_fill(1, torch.tensor([2, 9]), -torch.inf)
    hidden, head = student()
    for kind in (Forward(), Blend(), Skew(), Skew(direction="reverse")):
        got = vocabulary_loss(hidden, head, DenseLabels(logits=logits), divergence=kind)
        p, q = logits.softmax(1), logits_of(hidden, head).softmax(1)
        agree(got.loss, divergence_of(kind, p, q).mean(), hidden, head)
    with pytest.raises(TrainingError, match=r"divergence of token 0 is inf.*`Blend` or `Skew`"):
        vocabulary_loss(hidden, head, DenseLabels(logits=logits), divergence=Reverse())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_outcomes_that_both_rule_out_are_as_if_they_were_not_there(kind):
    logits = drawn(TOKENS, VOCABULARY, seed=3)
    hidden, head = student()
    few = LinearHead(weight=head.weight[:-2], bias=head.bias[:-2])
    wanted = vocabulary_loss(hidden, few, DenseLabels(logits=logits[:, :-2]), divergence=kind)
    out = torch.tensor([VOCABULARY - 2, VOCABULARY - 1])
    shut = LinearHead(weight=head.weight, bias=head.bias.index_fill(0, out, -torch.inf))
    ruled = DenseLabels(logits=logits.index_fill(1, out, -torch.inf))
    found = vocabulary_loss(hidden, shut, ruled, divergence=kind)
    torch.testing.assert_close(found.loss, wanted.loss)
    for one, other in zip(
        torch.autograd.grad(found.loss, [hidden, head.weight]),
        torch.autograd.grad(wanted.loss, [hidden, head.weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_extreme_logits_stay_finite():
    _, labels = told("hidden")
    hidden, head = student(scale=300.0)
    for kind in KINDS:
        got = vocabulary_loss(hidden, head, labels, divergence=kind)
        assert all(g.isfinite().all() for g in gradients(got.loss, hidden, head))


def test_as_many_tokens_are_taken_as_fit():
    cpu = torch.device("cpu")
    large = Pieces.fitting(151_936, dtype=torch.float32, device=cpu)
    assert large.keep
    assert large.tokens * 151_936 * 4 <= sizes.KEPT["cpu"]
    assert Pieces.fitting(100, dtype=torch.float32, device=cpu).tokens == sizes.MOST
    assert not Pieces.fitting(2_000_000, dtype=torch.float32, device=cpu).keep
