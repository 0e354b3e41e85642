"""Fused losses over vocabularies against plain float64 autograd: values and gradients."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from losses.lists import top
from losses.vocabulary_cases import (
    FORMS,
    KINDS,
    OWN,
    PIECES,
    TOKENS,
    VOCABULARY,
    K,
    agree,
    drawn,
    expected,
    gradients,
    logits_of,
    student,
    told,
)
from understudy.losses import (
    jensen_shannon,
    outcome_kl,
    reverse_kl,
    sampled_kl,
    skew_kl,
    soft_target_kl,
)
from understudy.losses.vocabulary import (
    Blend,
    DenseLabels,
    Forward,
    LinearHead,
    ListedLabels,
    Reverse,
    Skew,
    vocabulary_loss,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_divergence_from_every_form_is_that_of_plain_autograd(kind, form):
    logits, labels = told(form)
    cases = itertools.product(((1.0, None), (1.3, 2.0)), (1.0, 2.5), PIECES)
    for (scale, cap), temperature, pieces in cases:
        hidden, head = student(scale=scale, soft_cap=cap)
        got = vocabulary_loss(
            hidden, head, labels, divergence=kind, temperature=temperature, pieces=pieces
        )
        wanted = expected(hidden, head, labels, logits, kind, temperature)
        torch.testing.assert_close(got.soft, wanted.detach(), rtol=1e-9, atol=1e-10)
        agree(got.loss, wanted.mean(), hidden, head)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pieces", PIECES, ids=str)
def test_both_losses_with_mask_smoothing_and_denominator_are_those_of_plain_autograd(form, pieces):
    logits, labels = told(form)
    targets = torch.tensor([3, 0, -100, 22, 7, 7, 1])
    mask = torch.tensor([True, False, True, True, True, True, True])
    counted = mask & (targets != -100)
    for kind, temperature, cap in itertools.product((Forward(), Blend()), (1.0, 3.0), (None, 2.5)):
        hidden, head = student(scale=0.8, soft_cap=cap)
        got = vocabulary_loss(
            hidden,
            head,
            labels,
            divergence=kind,
            temperature=temperature,
            soft_weight=0.6,
            labels=targets,
            hard_weight=0.3,
            label_smoothing=0.1,
            mask=mask,
            denominator=torch.tensor(11),
            pieces=pieces,
        )
        soft = expected(hidden, head, labels, logits, kind, temperature)
        hard = F.cross_entropy(
            logits_of(hidden, head), targets, reduction="none", label_smoothing=0.1
        )
        wanted = (0.6 * soft + 0.3 * hard)[counted].sum() / 11
        agree(got.loss, wanted, hidden, head)
        assert got.counted.tolist() == counted.tolist()
        torch.testing.assert_close(got.soft, torch.where(counted, soft, 0.0).detach())
        torch.testing.assert_close(got.hard, torch.where(counted, hard, 0.0).detach())
        assert not got.soft.requires_grad
        assert not got.hard.requires_grad


@pytest.mark.parametrize("pieces", PIECES, ids=str)
def test_cross_entropy_alone_is_pytorchs(pieces):
    targets = torch.tensor([3, 0, -1, 22, 7, 7, 1])
    hidden, head = student(soft_cap=3.0)
    got = vocabulary_loss(
        hidden, head, labels=targets, hard_weight=2.0, ignore_index=-1, pieces=pieces
    )
    agree(
        got.loss,
        2 * F.cross_entropy(logits_of(hidden, head), targets, ignore_index=-1),
        hidden,
        head,
    )


@pytest.mark.parametrize("pieces", PIECES, ids=str)
def test_sampled_labels_give_the_estimate_and_its_gradient(pieces):
    ids = torch.tensor([[2, 5, -1], [0, 22, 9], [1, -1, -1]]).repeat(3, 1)[:TOKENS]
    weights = drawn(TOKENS, 3, seed=4).exp().masked_fill(ids < 0, 0.0)
    entropy = drawn(TOKENS, seed=5)
    labels = ListedLabels(
        ids=ids,
        log_mass=weights.log(),
        rest=torch.full((TOKENS,), -torch.inf).double(),
        sampled=True,
        entropy=entropy,
    )
    hidden, head = student()
    got = vocabulary_loss(hidden, head, labels, pieces=pieces)
    wanted = sampled_kl(logits_of(hidden, head), ids, weights.log(), entropy)
    agree(got.loss, wanted.mean(), hidden, head)
    both = vocabulary_loss(
        hidden, head, labels, labels=ids[:, 0], hard_weight=0.5, pieces=pieces, denominator=2
    )
    hard = F.cross_entropy(logits_of(hidden, head), ids[:, 0], reduction="none")
    agree(both.loss, (wanted + 0.5 * hard).sum() / 2, hidden, head)


def test_it_agrees_with_the_losses_on_whole_logits():
    logits, labels = told("hidden")
    _, listed = told("listed")
    hidden, head = student()
    own = logits_of(hidden, head)
    pairs = {
        Forward(): soft_target_kl(own, logits, temperature=2.0),
        Reverse(): reverse_kl(own, logits, temperature=2.0),
        Blend(beta=0.3): jensen_shannon(own, logits, beta=0.3, temperature=2.0),
        Skew(): skew_kl(own, logits, skew=0.1, temperature=2.0),
    }
    for kind, wanted in pairs.items():
        got = vocabulary_loss(hidden, head, labels, divergence=kind, temperature=2)
        torch.testing.assert_close(got.soft, wanted.detach())
    wanted = outcome_kl(own, listed.ids, listed.log_mass, listed.rest, temperature=2.0)
    torch.testing.assert_close(
        vocabulary_loss(hidden, head, listed, temperature=2).soft, wanted.detach()
    )


@pytest.mark.parametrize("form", FORMS)
def test_its_gradients_pass_gradcheck(form):
    _, labels = told(form)
    hidden, head = student()

    def loss(hidden, weight, bias):
        capped = LinearHead(weight=weight, bias=bias, scale=0.9, soft_cap=3.0)
        return vocabulary_loss(
            hidden,
            capped,
            labels,
            divergence=Skew(),
            temperature=1.5,
            labels=torch.arange(TOKENS),
            hard_weight=0.4,
            pieces=PIECES[0],
        ).loss

    assert torch.autograd.gradcheck(loss, (hidden, head.weight, head.bias), fast_mode=True)


@pytest.mark.parametrize("wider", ["student", "teacher"])
@pytest.mark.parametrize("form", ["hidden", "dense"])
def test_of_padded_vocabularies_the_common_columns_are_compared(form, wider):
    extra = 4
    logits, labels = told(form, VOCABULARY + extra * (wider == "teacher"))
    hidden, head = student(VOCABULARY + extra * (wider == "student"))
    targets = torch.arange(TOKENS)
    got = vocabulary_loss(hidden, head, labels, labels=targets, hard_weight=1, pieces=PIECES[0])
    soft = expected(hidden, head, labels, logits, Forward(), 1.0)
    hard = F.cross_entropy(logits_of(hidden, head)[:, :VOCABULARY], targets)
    agree(got.loss, soft.mean() + hard, hidden, head)
    assert (gradients(got.loss, hidden, head)[1][VOCABULARY:] == 0).all()


def test_columns_behind_the_vocabulary_that_is_given_are_left_out():
    for form in FORMS:
        logits, labels = told(form)
        if form == "listed":
            ids, log_mass, rest = top(logits[:, :20], K)
            labels = ListedLabels(ids=ids, log_mass=log_mass, rest=rest)
        hidden, head = student()
        got = vocabulary_loss(hidden, head, labels, vocabulary=20, temperature=2)
        wanted = expected(hidden, head, labels, logits, Forward(), 2.0, width=20)
        agree(got.loss, wanted.mean(), hidden, head)


def test_gradient_accumulation_over_parts_is_the_whole_batch():
    _, labels = told("dense")
    hidden, head = student()
    whole = vocabulary_loss(hidden, head, labels)
    parts = [
        vocabulary_loss(
            hidden[part], head, DenseLabels(logits=labels.logits[part]), denominator=TOKENS
        ).loss
        for part in (slice(0, 2), slice(2, TOKENS))
    ]
    agree(sum(parts), whole.loss, hidden, head)


def test_a_tied_weight_collects_both_gradients():
    weight = drawn(VOCABULARY, OWN).requires_grad_()
    _, labels = told("dense")
    ids = torch.arange(TOKENS)

    def both(loss_of):
        return torch.autograd.grad(loss_of(F.embedding(ids, weight).tanh()), weight)[0]

    got = both(lambda x: vocabulary_loss(x, LinearHead(weight=weight), labels).loss)
    wanted = both(lambda x: soft_target_kl(x @ weight.T, labels.logits, temperature=1.0).mean())
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_lower_precision_is_computed_in_float32(form, dtype):
    _, labels = told(form)
    hidden, head = student()
    # Rounded inputs, so that only the computation differs.
    hidden = hidden.detach().to(dtype).requires_grad_()
    weight = head.weight.detach().to(dtype).requires_grad_()
    got = vocabulary_loss(hidden, LinearHead(weight=weight), labels, temperature=2)
    assert got.soft.dtype == torch.float32
    exact = hidden.detach().double().requires_grad_()
    rows = weight.detach().double().requires_grad_()
    wanted = vocabulary_loss(exact, LinearHead(weight=rows), labels, temperature=2)
    torch.testing.assert_close(got.soft.double(), wanted.soft, rtol=1e-4, atol=1e-5)
    slopes = torch.autograd.grad(got.loss, (hidden, weight))
    for mine, reference in zip(
        slopes, torch.autograd.grad(wanted.loss, (exact, rows)), strict=True
    ):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, reference.to(dtype), rtol=2e-2, atol=1e-4)


def test_a_list_of_all_columns_is_the_whole_divergence():
    logits, _ = told("dense")
    ids, log_mass, rest = top(logits, VOCABULARY)
    listed = ListedLabels(ids=ids, log_mass=log_mass, rest=rest)
    hidden, head = student()
    for kind in KINDS:
        got = vocabulary_loss(hidden, head, listed, divergence=kind, temperature=2)
        wanted = vocabulary_loss(
            hidden, head, DenseLabels(logits=logits), divergence=kind, temperature=2
        )
        agree(got.loss, wanted.loss, hidden, head)
