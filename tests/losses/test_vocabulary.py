"""Fused losses over vocabularies against plain float64 autograd; their laws and refusals."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from losses.lists import top
from understudy.errors import TrainingError
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

TOKENS, OWN, THEIRS, VOCABULARY, K = 7, 5, 6, 23, 4
KINDS = (Forward(), Reverse(), Blend(beta=0.3), Skew(skew=0.2), Skew(skew=0.2, direction="reverse"))
FORMS = ("hidden", "dense", "listed")
PIECES = (
    Pieces(tokens=3, columns=5),
    Pieces(tokens=3, columns=5, keep=False),
    Pieces(tokens=64, columns=64),
)


def drawn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, dtype=torch.float64, generator=generator)


def student(vocabulary=VOCABULARY, bias=True, scale=1.0, soft_cap=None, seed=0):
    """Hidden states and a head, all with a gradient."""
    hidden = drawn(TOKENS, OWN, seed=seed).requires_grad_()
    weight = drawn(vocabulary, OWN, seed=seed + 1).requires_grad_()
    offset = drawn(vocabulary, seed=seed + 2).requires_grad_() if bias else None
    return hidden, LinearHead(weight=weight, bias=offset, scale=scale, soft_cap=soft_cap)


def logits_of(hidden, head):
    """The whole matrix, from the definition."""
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = head.scale * logits
    return logits if head.soft_cap is None else head.soft_cap * (logits / head.soft_cap).tanh()


def told(form, vocabulary=VOCABULARY, k=K, seed=10):
    """The teacher's logits, and its labels in one form."""
    head = LinearHead(
        weight=drawn(vocabulary, THEIRS, seed=seed),
        bias=drawn(vocabulary, seed=seed + 1),
        scale=0.7,
        soft_cap=4.0,
    )
    hidden = drawn(TOKENS, THEIRS, seed=seed + 2)
    logits = logits_of(hidden, head)
    if form == "hidden":
        return logits, HiddenLabels(hidden=hidden, head=head)
    if form == "dense":
        return logits, DenseLabels(logits=logits.log_softmax(1))
    ids, log_mass, rest = top(logits, k)
    ids = torch.cat([ids, torch.full((TOKENS, 1), -1)], dim=1)
    log_mass = torch.cat([log_mass, torch.full((TOKENS, 1), -torch.inf).double()], dim=1)
    return logits, ListedLabels(ids=ids, log_mass=log_mass, rest=rest)


def divergence_of(kind, p, q):
    """Per token, of probabilities, as the papers write it."""

    def kl(a, b):
        return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(dim=1)

    if kind == Forward():
        return kl(p, q)
    if kind == Reverse():
        return kl(q, p)
    if isinstance(kind, Blend):
        middle = kind.beta * p + (1 - kind.beta) * q
        return kind.beta * kl(p, middle) + (1 - kind.beta) * kl(q, middle)
    first, second = (p, q) if kind.direction == "forward" else (q, p)
    return kl(first, kind.skew * first + (1 - kind.skew) * second)


def merged(chances, labels):
    """Probabilities of the listed outcomes and of all others together."""
    rows = []
    for row, ids in zip(chances, labels.ids, strict=True):
        listed = ids[ids >= 0]
        others = torch.ones(len(row), dtype=torch.bool)
        others[listed] = False
        rows.append(torch.cat([row[listed], row[others].sum()[None]]))
    return torch.stack(rows)


def softened_list(labels, vocabulary, temperature):
    rows = []
    for ids, log_mass, rest in zip(labels.ids, labels.log_mass, labels.rest, strict=True):
        others = vocabulary - int((ids >= 0).sum())
        bucket = others * (rest.exp() / max(others, 1)) ** (1 / temperature)
        mass = torch.cat([log_mass[ids >= 0].exp() ** (1 / temperature), bucket[None]])
        rows.append(mass / mass.sum())
    return torch.stack(rows)


def expected(hidden, head, labels, logits, kind, temperature, width=VOCABULARY):
    """The divergence of each token times T², by plain means."""
    q = (logits_of(hidden, head)[:, :width] / temperature).softmax(1)
    if isinstance(labels, ListedLabels):
        q = merged(q, labels)
        p = softened_list(labels, width, temperature)
    else:
        p = (logits[:, :width] / temperature).softmax(1)
    return temperature**2 * divergence_of(kind, p, q)


def gradients(loss, hidden, head):
    leaves = [x for x in (hidden, head.weight, head.bias) if x is not None]
    return torch.autograd.grad(loss, leaves, retain_graph=True)


def agree(got, wanted, hidden, head):
    """The same value, and the same gradients."""
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)
    for mine, reference in zip(
        gradients(got, hidden, head), gradients(wanted, hidden, head), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-10)


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


def test_widths_that_no_padding_explains_are_refused():
    hidden, head = student()
    labels = DenseLabels(logits=drawn(TOKENS, VOCABULARY + 1024))
    with pytest.raises(ValueError, match=r"one tokenizer.*vocabulary=23"):
        vocabulary_loss(hidden, head, labels)
    assert vocabulary_loss(hidden, head, labels, vocabulary=23).loss > 0


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


@pytest.mark.parametrize("where", ["student", "teacher"])
@pytest.mark.parametrize("form", ["hidden", "dense"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_nan_names_its_token(where, form, kind):
    _, labels = told(form)
    hidden, head = student()
    if where == "student":
        hidden = hidden.detach().index_fill(0, torch.tensor([4]), math.nan)
    elif form == "hidden":
        bad = labels.hidden.index_fill(0, torch.tensor([4]), math.nan)
        labels = HiddenLabels(hidden=bad, head=labels.head)
    else:
        labels = DenseLabels(logits=labels.logits.index_fill(0, torch.tensor([4]), math.nan))
    with pytest.raises(TrainingError, match=rf"token 4 is nan \(1 of 7 tokens\): the {where}'s"):
        vocabulary_loss(hidden, head, labels, divergence=kind)


def listed(**changed):
    _, labels = told("listed")
    fields = {n: getattr(labels, n) for n in ("ids", "log_mass", "rest", "sampled", "entropy")}
    return ListedLabels(**{**fields, **changed})


_, DENSE = told("dense")
BROKEN = {
    "label": ({"labels": torch.full((TOKENS,), 23), "hard_weight": 1}, "label 23 at token 0"),
    "negative label": ({"labels": torch.full((TOKENS,), -1), "hard_weight": 1}, "label -1"),
    "short labels": ({"labels": torch.zeros(3, dtype=torch.int64), "hard_weight": 1}, "`labels`"),
    "integer mask": ({"mask": torch.ones(TOKENS, dtype=torch.int64)}, "`mask.dtype"),
    "short mask": ({"mask": torch.ones(2, dtype=torch.bool)}, "`mask` must be"),
    "no labels": ({"hard_weight": 1.0}, "`labels` must be there"),
    "smoothing": ({"label_smoothing": 1.0}, "label_smoothing < 1"),
    "temperature": ({"temperature": 0}, "temperature > 0"),
    "soft weight": ({"soft_weight": 0}, "soft_weight > 0"),
    "hard weight": ({"hard_weight": -1.0}, "hard_weight >= 0"),
    "denominator": ({"denominator": 0}, "denominator > 0"),
    "denominators": ({"denominator": torch.ones(2)}, "must be one number"),
    "vocabulary": ({"vocabulary": 24}, "vocabulary <= 23"),
    "one column": ({"vocabulary": 1}, "2 columns or more"),
    "nothing": ({"teacher": None}, "something to learn"),
    "rows": ({"teacher": DenseLabels(logits=DENSE.logits[:-1])}, "one row per token"),
    "teacher's head": (
        {"teacher": HiddenLabels(hidden=DENSE.logits, head=LinearHead(weight=torch.ones(23, 4)))},
        "teacher.hidden.shape",
    ),
    "listed id": ({"teacher": listed(ids=torch.full((TOKENS, K + 1), 23))}, "-1 <= ids < 23"),
    "int32 ids": ({"teacher": listed(ids=listed().ids.int())}, "ids.dtype"),
    "list shapes": ({"teacher": listed(log_mass=torch.zeros(TOKENS, 2))}, "log_mass.shape"),
    "rest": ({"teacher": listed(rest=torch.zeros(2))}, "`rest` must be"),
    "no entropy": ({"teacher": listed(sampled=True)}, "`entropy` must be there"),
    "sampled at T": (
        {"teacher": listed(sampled=True, entropy=torch.zeros(TOKENS)), "temperature": 2},
        "temperature == 1",
    ),
    "sampled reverse": (
        {"teacher": listed(sampled=True, entropy=torch.zeros(TOKENS)), "divergence": Reverse()},
        "Forward",
    ),
}


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("name", BROKEN)
def test_what_means_nothing_is_refused(name):
    given, words = BROKEN[name]
    hidden, head = student()
    with pytest.raises(ValueError, match=words):
        vocabulary_loss(hidden, head, **{"teacher": DENSE, **given})


@pytest.mark.usefixtures("as_users_run_it")
def test_hidden_states_of_another_shape_are_refused():
    hidden, head = student()
    with pytest.raises(ValueError, match="flatten"):
        vocabulary_loss(hidden.unsqueeze(0), head, DENSE)
    with pytest.raises(ValueError, match=r"\(7, 4\) and weight \(23, 5\)"):
        vocabulary_loss(hidden[:, :4], head, DENSE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearHead(weight=torch.ones(3)), "weight"),
        (lambda: LinearHead(weight=torch.ones(3, 2), bias=torch.ones(2)), "bias.shape"),
        (lambda: LinearHead(weight=torch.ones(3, 2), soft_cap=0.0), "soft_cap > 0"),
        (lambda: LinearHead(weight=torch.ones(3, 2), scale=math.nan), "scale > 0"),
        (lambda: Blend(beta=1.0), "0 < beta < 1"),
        (lambda: Skew(skew=0.0), "0 < skew < 1"),
        (lambda: Skew(direction="up"), "`direction` must be one of"),
        (lambda: Pieces(tokens=0, columns=1), "tokens >= 1"),
    ],
)
def test_parts_that_mean_nothing_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
